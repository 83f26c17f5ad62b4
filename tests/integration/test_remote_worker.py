"""A library and a worker as two processes: the worker calls in, fetches, answers, goes and returns.

With the real engine and models whose answers are written down.
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.integration.test_proxies import Place as Way
from tests.integration.test_proxies import place as way_in
from tests.support.backends import BACKENDS
from tests.support.ports import free_port
from tests.support.scripted_model import scripted_model
from tests.support.server import Server, running, start

__all__ = ["way_in"]

pytestmark = pytest.mark.engine

HELLO = ["Hello", " there", ",", " friend"]
LONG = [f" w{number}" for number in range(2500)]


@dataclass
class WorkerProcess:
    """`registry worker` as a child process."""

    process: subprocess.Popen[str]
    data: Path
    lines: list[str] = field(default_factory=list)

    def blobs(self) -> list[str]:
        return sorted(file.name for file in (self.data / "worker" / "blobs").iterdir())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)


def token(server: Server, *options: str) -> str:
    line = [sys.executable, "-m", "registry", "worker", "token", "--data", str(server.data)]
    env = os.environ | BACKENDS.environ(server.data)
    done = subprocess.run([*line, *options], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


NOTICED_S = 2.5
"""A running server has seen by then what a command wrote about placement."""


@contextlib.contextmanager
def worker(
    server: Server, data: Path, *options: str, url: str = "", **told: str
) -> Iterator[WorkerProcess]:
    """A worker for the length of a block, linked when it begins."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("REGISTRY_", "OLLAMA_"))}
    with subprocess.Popen(
        [sys.executable, "-m", "registry", "worker", "--server", url or server.url]
        + ["--data", str(data), *options],
        env={**environ, **told},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        found = WorkerProcess(process, data)
        linked = threading.Event()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                found.lines.append(line)
                if "linked to the library" in line:
                    linked.set()

        reading = threading.Thread(target=read)
        reading.start()
        try:
            assert linked.wait(30), f"no link: {found.lines}"
            yield found
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(30)
            reading.join()


@dataclass
class Place:
    """The library, and a client of it."""

    server: Server
    client: httpx2.Client

    def make(self, name: str, script: list[str]) -> str:
        """Upload a model; the name of its blob's file."""
        data = scripted_model(script)
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.client.post(f"/api/blobs/{digest}", content=data).raise_for_status()
        ask = {"model": name, "files": {"m.gguf": digest}, "stream": False}
        self.client.post("/api/create", json=ask).raise_for_status()
        return digest.replace(":", "-")

    def ask(self, model: str = "hello", **told: Any) -> Any:
        """The whole answer to a generate; it is tried while no worker has come."""
        body = {
            "model": model,
            "prompt": "hi\n",
            "raw": True,
            "stream": False,
            "options": {"temperature": 0},
            **told,
        }
        deadline = time.monotonic() + 20
        while True:
            answer = self.client.post("/api/generate", json=body)
            if answer.status_code != 503 or time.monotonic() > deadline:
                return answer.json()
            time.sleep(0.1)

    def stream(self) -> Iterator[dict[str, Any]]:
        """The frames of a long answer."""
        body = {"model": "long", "prompt": "hi\n", "raw": True, "options": {"temperature": 0}}
        with self.client.stream("POST", "/api/generate", json=body) as answer:
            for line in answer.iter_lines():
                yield json.loads(line)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    data = tmp_path_factory.mktemp("library")
    with (
        running(data, REGISTRY_WORKER__LOCAL="off") as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        made = Place(server, client)
        made.make("hello", HELLO)
        made.make("long", LONG)
        yield made


def test_a_worker_fetches_once_and_serves(place: Place, tmp_path: Path) -> None:
    code = token(place.server)
    with worker(place.server, tmp_path, "--token", code, "--name", "one") as one:
        assert place.ask()["response"] == "".join(HELLO)
        (loaded,) = place.client.get("/api/ps").json()["models"]
        assert (loaded["name"], loaded["worker"]) == ("hello:latest", "one")
        assert len(one.blobs()) == 1
        credential = tmp_path / "worker" / "credential"
        assert credential.stat().st_mode & 0o777 == 0o600
        assert code not in credential.read_text()
        assert place.ask(keep_alive=0, prompt="")["done_reason"] == "unload"
        assert place.client.get("/api/ps").json()["models"] == []
    assert one.process.returncode == 0
    with worker(place.server, tmp_path) as again:  # no token is needed any more
        assert place.ask()["response"] == "".join(HELLO)
        assert not any("blob fetched" in line for line in again.lines)


def test_a_used_token_and_a_taken_name_are_told(place: Place, tmp_path: Path) -> None:
    code = token(place.server)
    with worker(place.server, tmp_path / "a", "--token", code, "--name", "two"):
        pass
    for name, options, said in (
        ("b", ["--token", code], "unknown, used or expired"),
        ("c", ["--token", token(place.server), "--name", "two"], "already"),
        ("d", [], "not enrolled"),
    ):
        line = [sys.executable, "-m", "registry", "worker", "--server", place.server.url]
        done = subprocess.run(
            [*line, "--data", str(tmp_path / name), *options],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr


def test_sigterm_lets_what_runs_end(place: Place, tmp_path: Path) -> None:
    code = token(place.server)
    with worker(place.server, tmp_path, "--token", code, "--name", "three") as three:
        frames = place.stream()
        first = next(frames)
        assert not first.get("done", True), first
        three.process.send_signal(signal.SIGTERM)
        texts = [first["response"], *(frame.get("response", "?") for frame in frames)]
        assert "".join(texts) == "".join(LONG)
        assert three.process.wait(20) == 0
    assert (
        "no inference worker"
        in place.client.post("/api/generate", json={"model": "hello", "prompt": "x"}).text
    )


def test_a_second_signal_ends_it_now(place: Place, tmp_path: Path) -> None:
    code = token(place.server)
    with worker(place.server, tmp_path, "--token", code, "--name", "four") as four:
        frames = place.stream()
        next(frames)
        began = time.monotonic()
        four.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        four.process.send_signal(signal.SIGTERM)
        assert "error" in list(frames)[-1]
        assert four.process.wait(20) == 0
        assert time.monotonic() - began < 10


def test_a_worker_that_dies_in_mid_answer_is_told_of(place: Place, tmp_path: Path) -> None:
    code = token(place.server)
    with worker(place.server, tmp_path, "--token", code, "--name", "five") as five:
        frames = place.stream()
        next(frames)
        began = time.monotonic()
        five.kill()
        last = list(frames)[-1]
        assert "unexpectedly stopped" in last["error"]
        assert time.monotonic() - began < 5
    with worker(place.server, tmp_path) as again:
        assert place.ask()["response"] == "".join(HELLO)
        again.kill()


@pytest.mark.folder("opens files of the store")
def test_a_worker_beside_the_library_opens_its_files(place: Place, tmp_path: Path) -> None:
    code, store = token(place.server), str(place.server.data)
    options = ("--token", code, "--name", "six", "--store", store)
    with worker(place.server, tmp_path, *options) as six:
        assert place.ask()["response"] == "".join(HELLO)
        assert six.blobs() == []


def test_a_library_that_restarts_is_found_again(tmp_path: Path) -> None:
    port = free_port()
    server = start(tmp_path / "library", port, REGISTRY_WORKER__LOCAL="off")
    try:
        with httpx2.Client(base_url=server.url, timeout=60) as client:
            place = Place(server, client)
            place.make("hello", HELLO)
            with worker(server, tmp_path / "w", "--token", token(server)) as linked:
                assert place.ask()["response"] == "".join(HELLO)
                began = time.monotonic()
                assert server.stop() == 0
                assert time.monotonic() - began < 5  # an open line does not hold it up
                server = start(tmp_path / "library", port, REGISTRY_WORKER__LOCAL="off")
                assert place.ask()["response"] == "".join(HELLO)
                server.kill()
                server = start(tmp_path / "library", port, REGISTRY_WORKER__LOCAL="off")
                assert place.ask()["response"] == "".join(HELLO)
                assert linked.process.poll() is None
    finally:
        server.stop()


def test_a_worker_calls_in_through_a_proxy_and_tls(way_in: Way, tmp_path: Path) -> None:
    server, trust = way_in.server, str(way_in.authority.file)
    with way_in.client() as client:
        place = Place(server, client)
        place.make("long", LONG)
        line = [sys.executable, "-m", "registry", "model", "place", "long", "--label", "far"]
        env = os.environ | BACKENDS.environ(server.data)
        line += ["--data", str(server.data)]
        subprocess.run(line, env=env, check=True, capture_output=True)
        options = ("--token", token(server), "--name", "far", "--label", "far")
        with worker(server, tmp_path, *options, url=way_in.url, SSL_CERT_FILE=trust) as far:
            time.sleep(NOTICED_S)  # else the server's own worker may run it
            texts, first = [], 0.0
            for frame in place.stream():
                first = first or time.monotonic()
                texts.append(frame.get("response", str(frame)))
            came_in_s = time.monotonic() - first
            assert "".join(texts) == "".join(LONG)
            made_in_s = frame["eval_duration"] / 1e9
            assert came_in_s > made_in_s / 2, "the answer was held back on its way"
            assert len(far.blobs()) == 1
            (loaded,) = client.get("/api/ps").json()["models"]
            assert loaded["worker"] == "far"
