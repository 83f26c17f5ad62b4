"""The server as a process: starting, stopping, and what happens to requests that are running."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.core.errors import OperationFailed
from registry.server.run import listen

PROGRAM = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from registry.adapters.blobs_fs import FileBlobStore
    from registry.server.run import run_server
    from registry.settings import Limits, Settings
    from tests.support.serving import Seen, blob_app

    limits = Limits.model_validate({"shutdown_s": float(sys.argv[2])})
    settings = Settings.load({}, data=Path(sys.argv[1]), port=0, limits=limits)
    seen = Seen()
    run_server(
        lambda: blob_app(FileBlobStore(settings.data), limits, seen),
        settings,
        lambda port: print(port, flush=True),
    )
    print("stopped", [type(error).__name__ for error in seen.errors], flush=True)
    """
)
HANGING = textwrap.dedent(
    """
    import asyncio, contextlib, sys, time
    from pathlib import Path
    from starlette.applications import Starlette
    from registry.server import run
    from registry.settings import Limits, Settings

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield
        await asyncio.to_thread(time.sleep, 600)

    run._CANCELLED_S = run._CLOSING_S = 0.1
    limits = Limits.model_validate({"shutdown_s": 0.1})
    settings = Settings.load({}, data=Path(sys.argv[1]), port=0, limits=limits)
    run.run_server(
        lambda: Starlette(lifespan=lifespan), settings, lambda port: print(port, flush=True)
    )
    """
)
Start = Callable[[float], tuple["subprocess.Popen[str]", socket.socket]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []
    sockets: list[socket.socket] = []

    def begin(grace_s: float) -> tuple["subprocess.Popen[str]", socket.socket]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path), str(grace_s)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout is not None
        port = int(process.stdout.readline())
        sockets.append(socket.create_connection(("127.0.0.1", port), timeout=10))
        return process, sockets[-1]

    yield begin
    for sock in sockets:
        sock.close()
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_stops_at_once(start: Start, number: int) -> None:
    process, sock = start(30)
    sock.sendall(b"GET /size HTTP/1.1\r\nHost: x\r\n\r\n")
    assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "stopped []\n", "")


def test_a_running_request_may_finish(start: Start) -> None:
    process, sock = start(30)
    sock.sendall(b"GET /sleep?s=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert b"".join(iter(lambda: sock.recv(1000), b"")).endswith(b"slept")
    assert process.wait(timeout=10) == 0


def test_an_upload_that_takes_too_long_is_ended_and_leaves_nothing(
    start: Start, tmp_path: Path
) -> None:
    process, sock = start(0.5)
    digest = "sha256:" + "0" * 64
    sock.sendall(
        f"POST /blobs/{digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n".encode()
        + bytes(3_000_000)
    )
    time.sleep(0.3)
    assert len(os.listdir(tmp_path / "incoming")) == 1
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "stopped ['CancelledError']\n")
    assert os.listdir(tmp_path / "incoming") == []


def test_a_part_that_hangs_does_not_keep_the_process(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HANGING, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        try:
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, err) == (1, "Something hangs: ended without waiting for it\n")


def test_a_port_that_is_taken_is_one_clear_error() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(OperationFailed, match=f"cannot listen on 127.0.0.1 port {port}: "):
            listen("127.0.0.1", port)


def test_ipv6_addresses_are_listened_on() -> None:
    try:
        with listen("::1", 0) as sock:
            assert sock.family == socket.AF_INET6
    except OperationFailed:
        pytest.skip("no IPv6 here")
