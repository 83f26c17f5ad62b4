"""Quantizing on a started server: seen, left, killed, out of room; the recorded answers."""

import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.tensors.engine import find_engine
from tests.support.backends import BACKENDS
from tests.support.server import Server, running
from tests.support.weighty import model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_engine().library is None, reason="the engine is not installed"),
]
GOLDEN = Path(__file__).parents[1] / "golden"
DATA = model("F16", layers=6, width=1024)  # 64 MB: seconds of work, on any machine


def call(server: Server, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request(method, path, body=body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def upload(server: Server, data: bytes) -> str:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    assert call(server, "POST", f"/api/blobs/{digest}", data)[0] == 201
    return digest


class Stream:
    """A create whose lines are read one by one."""

    def __init__(self, server: Server, **request: Any) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        self._connection.request("POST", "/api/create", body=json.dumps(request))
        self._answer = self._connection.getresponse()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while line := self._answer.readline():
            yield json.loads(line)
        self.leave()

    def until_progress(self) -> dict[str, Any]:
        return next(line for line in self if line.get("completed"))

    def leave(self) -> None:
        self._answer.close()
        self._connection.close()


def children(server: Server) -> list[int]:
    """The processes at work on tensors for a server."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            if (
                parent == server.process.pid
                and b"tensors" in (path.parent / "cmdline").read_bytes()
            ):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path / "data") as started:
        yield started


def kept(server: Server) -> set[str]:
    """Everything in the store, finished or not."""
    return BACKENDS.kept(server.data)


def test_progress_moves_and_the_model_is_smaller(server: Server) -> None:
    digest = upload(server, DATA)
    began, moments, lines = time.monotonic(), [], []
    for line in Stream(server, model="m", files={"m.gguf": digest}, quantize="q4_K_M"):
        lines.append(line)
        if "completed" in line:
            moments.append(time.monotonic() - began)
    shown = [line for line in lines if "total" in line]
    assert {line["status"] for line in shown} == {"quantizing F16 model to Q4_K_M"}
    assert {line["digest"] for line in shown} == {digest}
    done = [line.get("completed", 0) for line in shown]
    assert done == sorted(done)
    assert done[-1] == shown[-1]["total"]
    assert len(moments) > 4
    assert lines[-1] == {"status": "success"}
    _, body = call(server, "POST", "/api/show", b'{"model": "m"}')
    assert json.loads(body)["details"]["quantization_level"] == "Q4_K_M"


def test_a_client_that_leaves_ends_the_work_and_nothing_is_kept(server: Server) -> None:
    digest = upload(server, DATA)
    before = kept(server)
    stream = Stream(server, model="m", files={"m.gguf": digest}, quantize="q2_k")
    stream.until_progress()
    assert len(children(server)) == 1
    stream.leave()
    wait_for(lambda: not children(server) and kept(server) == before)
    assert json.loads(call(server, "GET", "/api/tags", b"")[1]) == {"models": []}


def test_a_killed_child_is_one_clear_error_and_the_server_goes_on(server: Server) -> None:
    digest = upload(server, DATA)
    before = kept(server)
    stream = Stream(server, model="m", files={"m.gguf": digest}, quantize="q2_k")
    stream.until_progress()
    os.kill(children(server)[0], signal.SIGKILL)
    last = list(stream)[-1]
    assert last == {
        "error": "the process that works on tensors died; it may have run out of memory"
    }
    wait_for(lambda: kept(server) == before)
    assert call(server, "GET", "/readyz", b"")[0] == 200


def test_a_killed_server_takes_its_child_along_and_the_next_start_cleans_up(
    tmp_path: Path,
) -> None:
    with running(tmp_path / "data") as first:
        digest = upload(first, DATA)
        stream = Stream(first, model="m", files={"m.gguf": digest}, quantize="q2_k")
        stream.until_progress()
        (child,) = children(first)
        first.kill()
        wait_for(lambda: not Path(f"/proc/{child}").exists() or is_zombie(child))
        stream.leave()
    with running(tmp_path / "data", REGISTRY_RETENTION__LEFTOVER_S="0") as second:
        assert json.loads(call(second, "GET", "/api/tags", b"")[1]) == {"models": []}
        wait_for(lambda: not BACKENDS.incoming(second.data))
        lines = list(Stream(second, model="m", files={"m.gguf": digest}, quantize="q8_0"))
        assert lines[-1] == {"status": "success"}


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


DEVIATIONS = {
    # Ollama has llama-quantize look at every file and can only say that it exited with 1; we say
    # what is wrong, and keep models that only another engine can run.
    "malformed/header-only",
    "malformed/version-99",
    "malformed/no-architecture",
    "malformed/unknown-architecture",
}


def test_the_recorded_answers_of_quantizing_are_ours_too(server: Server) -> None:
    line = [sys.executable, str(GOLDEN / "replay.py"), server.url, "--quantize"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)
    failed = {row.split()[1] for row in done.stdout.splitlines() if row.startswith("FAIL ")}
    assert failed == DEVIATIONS, done.stdout[-20_000:]


@pytest.mark.parametrize(
    "name",
    [
        *("q2_K", "q3_K_S", "q3_K_M", "q3_K_L", "q4_0", "q4_1", "q4_K_S", "q4_K_M"),
        *("q5_0", "q5_1", "q5_K_S", "q5_K_M", "q6_K", "q8_0"),
    ],
)
def test_every_documented_type_succeeds(shared: tuple[Server, str], name: str) -> None:
    server, digest = shared
    request = {"model": f"m:{name}", "files": {"f16.gguf": digest}, "quantize": name}
    lines = list(Stream(server, **request))
    assert lines[-1] == {"status": "success"}
    _, body = call(server, "POST", "/api/show", json.dumps({"model": f"m:{name}"}).encode())
    assert json.loads(body)["details"]["quantization_level"] == name.upper()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    data = (GOLDEN / "inputs" / "f16-256.gguf").read_bytes()
    with running(tmp_path_factory.mktemp("shared") / "data") as server:
        yield server, upload(server, data)
