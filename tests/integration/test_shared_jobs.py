"""Two servers on one library, asked for the same pull: one transfer, which outlives its server."""

import http.client
import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import PostgresServer
from tests.support.server import Server, start
from tests.support.upstream import digest_of, manifest_of

BLOB = random.Random(7).randbytes(12 << 20)
SIZE = len(BLOB)
CONTENTS = {str(digest_of(data)): data for data in (BLOB, b"{}")}
PIECE = 128 << 10


class SlowRegistry(ThreadingHTTPServer):
    """A registry with one model, whose bytes come slowly. `served` counts them."""

    daemon_threads = True

    def __init__(self, pause_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pause_s = pause_s
        self.served = 0
        self.lock = threading.Lock()

    def name(self, tag: str) -> str:
        return f"127.0.0.1:{self.server_port}/a/b:{tag}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SlowRegistry

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self._send(CONTENTS[self.path.rpartition("/")[2]], with_body=False)

    def do_GET(self) -> None:
        if "/manifests/" in self.path:
            self._send(manifest_of([BLOB]))
        else:
            self._send(CONTENTS[self.path.rpartition("/")[2]])

    def _send(self, data: bytes, *, with_body: bool = True) -> None:
        asked = self.headers.get("Range")
        start, stop = 0, len(data)
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1, stop)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(stop - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.end_headers()
        for at in range(start, stop if with_body else start, PIECE):
            piece = data[at : min(at + PIECE, stop)]
            try:
                self.wfile.write(piece)
            except OSError:
                self.close_connection = True
                return
            with self.server.lock:
                self.server.served += len(piece)
            if len(data) > PIECE:
                time.sleep(self.server.pause_s)


@contextmanager
def slow_registry(pause_s: float) -> Iterator[SlowRegistry]:
    registry = SlowRegistry(pause_s)
    thread = threading.Thread(target=registry.serve_forever, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        registry.shutdown()
        registry.server_close()


class Puller(threading.Thread):
    """A client that pulls and keeps the lines of the answer."""

    def __init__(self, server: Server, model: str) -> None:
        super().__init__(daemon=True)
        self.server, self.model = server, model
        self.lines: list[dict[str, Any]] = []
        self.start()

    def run(self) -> None:
        body = json.dumps({"model": self.model, "insecure": True})
        link = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            link.request("POST", "/api/pull", body=body)
            for line in link.getresponse():
                self.lines.append(json.loads(line))
        except (OSError, http.client.HTTPException):
            pass  # the server was killed
        finally:
            link.close()

    @property
    def seen(self) -> list[int]:
        """How far the blob was, each time it was told."""
        digest = str(digest_of(BLOB))
        return [line.get("completed", 0) for line in self.lines if line.get("digest") == digest]

    def wait_for(self, completed: int) -> None:
        deadline = time.monotonic() + 30
        while max(self.seen, default=0) < completed:
            assert time.monotonic() < deadline, self.lines[-3:]
            time.sleep(0.02)

    def succeeded(self) -> bool:
        self.join(120)
        return self.lines[-1:] == [{"status": "success"}]


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "sqlite":
        yield ""
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    with postgres.database() as url:
        yield url


@pytest.fixture
def pair(tmp_path: Path, database: str) -> Iterator[tuple[Server, Server]]:
    settings = {
        "REGISTRY_DATABASE_URL": database,
        "REGISTRY_UPSTREAM_ALLOW": "127.0.0.1",
        "REGISTRY_UPSTREAM__PART_BYTES": str(1 << 20),
        "REGISTRY_UPSTREAM__STREAMS": "2",
    }
    with ExitStack() as stack:
        first = start(tmp_path / "data", None, **settings)
        stack.callback(first.stop)
        second = start(tmp_path / "data", None, **settings)
        stack.callback(second.stop)
        yield first, second


def jobs(server: Server, state: str) -> list[dict[str, Any]]:
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    link.request("GET", "/api/v1/jobs")
    found = json.loads(link.getresponse().read())["jobs"]
    link.close()
    return [job for job in found if job["total"] == SIZE and job["state"] == state]


def test_a_pull_asked_of_two_servers_is_one_transfer(pair: tuple[Server, Server]) -> None:
    with slow_registry(0.03) as registry:
        first = Puller(pair[0], registry.name("v1"))
        first.wait_for(2 << 20)
        second = Puller(pair[1], registry.name("v2"))
        second.wait_for(3 << 20)
        (job,) = jobs(pair[1], "running")
        assert 0 < job["completed"] <= SIZE
        assert first.succeeded()
        assert second.succeeded()
        assert registry.served < SIZE + (1 << 20)
    assert second.seen == sorted(second.seen)
    assert len(jobs(pair[0], "done")) == 1


@pytest.mark.folder("of a blob this small an object store has one part at the most")
def test_a_server_takes_over_from_one_that_was_killed(pair: tuple[Server, Server]) -> None:
    with slow_registry(0.12) as registry:
        first = Puller(pair[0], registry.name("v1"))
        first.wait_for(5 << 20)
        second = Puller(pair[1], registry.name("v1"))
        second.wait_for(5 << 20)
        time.sleep(2.5)  # for what came to be recorded
        before = registry.served
        pair[0].kill()
        registry.pause_s = 0.01
        assert second.succeeded()
        assert before < registry.served < SIZE + (6 << 20)  # not from the start
    assert jobs(pair[1], "running") == []
    assert len(jobs(pair[1], "done")) == 1


def test_a_server_that_starts_again_goes_on_at_once(tmp_path: Path) -> None:
    settings = {"REGISTRY_UPSTREAM_ALLOW": "127.0.0.1", "REGISTRY_UPSTREAM__PART_BYTES": "1048576"}
    with slow_registry(0.05) as registry:
        server = start(tmp_path / "data", None, **settings)
        Puller(server, registry.name("v1")).wait_for(6 << 20)
        time.sleep(2.5)  # for what came to be recorded
        server.kill()
        before, registry.pause_s = registry.served, 0.0
        server = start(tmp_path / "data", None, **settings)
        try:
            began = time.monotonic()
            assert Puller(server, registry.name("v1")).succeeded()
            assert time.monotonic() - began < 5
            assert registry.served < before + SIZE - (3 << 20)
            assert jobs(server, "running") == []
        finally:
            server.stop()


class Scrubber(Puller):
    """A client that has every blob read, slowly, and keeps the lines of the answer."""

    def run(self) -> None:
        body = json.dumps({"bytes_per_second": SIZE // 4})
        link = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=120)
        try:
            headers = {"Content-Type": "application/json"}
            link.request("POST", "/api/v1/scrub", body=body, headers=headers)
            for line in link.getresponse():
                self.lines.append(json.loads(line))
        except (OSError, http.client.HTTPException):
            pass  # the server was killed
        finally:
            link.close()


def test_a_scrub_asked_of_two_servers_is_one_and_outlives_the_one_that_does_it(
    pair: tuple[Server, Server],
) -> None:
    link = http.client.HTTPConnection("127.0.0.1", pair[0].port, timeout=60)
    link.request("POST", f"/api/blobs/{digest_of(BLOB)}", body=BLOB)
    assert link.getresponse().status == 201
    link.close()
    first = Scrubber(pair[0], "")
    while not jobs(pair[1], "running"):
        time.sleep(0.05)
    second = Scrubber(pair[1], "")
    time.sleep(1.0)
    assert len(jobs(pair[1], "running")) == 1
    pair[0].kill()
    assert second.succeeded()
    assert not first.succeeded()
    said = [line["status"] for line in second.lines]
    assert said == [f"1 blobs read, {SIZE} bytes: 0 damaged, 0 repaired", "success"]
    assert len(jobs(pair[1], "done")) == 1


def test_a_job_is_cancelled_from_any_server(pair: tuple[Server, Server]) -> None:
    with slow_registry(0.2) as registry:
        pulls = [Puller(server, registry.name("v1")) for server in pair]
        for pull in pulls:
            pull.wait_for(1 << 20)
        (job,) = jobs(pair[0], "running")
        link = http.client.HTTPConnection("127.0.0.1", pair[1].port, timeout=30)
        link.request("DELETE", f"/api/v1/jobs/{job['id']}")
        assert json.loads(link.getresponse().read())["state"] == "cancelled"
        link.close()
        for pull in pulls:
            pull.join(20)
            assert "cancelled" in pull.lines[-1]["error"], pull.lines[-1]
        time.sleep(1)
        before = registry.served
        time.sleep(1)
        assert registry.served == before
