"""A started server: `registry serve` as a child process on a free port of the loopback address."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.backends import BACKENDS
from tests.support.ports import free_port

START_S = 120.0  # 2 s, where nothing else is done
STOP_S = 30.0


@dataclass(slots=True)
class Server:
    """A running server. `kill` is for tests of crashes; leaving the block stops it politely."""

    process: subprocess.Popen[bytes]
    port: int
    data: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_S)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(STOP_S)


def start(data: Path, port: int | None = None, **environ: str) -> Server:
    """Start a server over a data folder, on what the tests run on, and wait until it answers."""
    port = port or free_port()
    data.mkdir(parents=True, exist_ok=True)
    log = data.with_suffix(".log")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("REGISTRY_", "OLLAMA_"))}
    line = [sys.executable, "-m", "registry", "serve", "--port", str(port), "--data", str(data)]
    with log.open("ab") as output:
        env |= BACKENDS.environ(data) | environ
        process = subprocess.Popen(line, stdout=output, stderr=output, env=env)
    server = Server(process, port, data, log)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(server.url + "/readyz", timeout=2):
                return server
        except OSError:
            time.sleep(0.05)
    process.kill()
    raise AssertionError(f"the server did not start:\n{log.read_text()[-4000:]}")


@contextmanager
def running(data: Path, **environ: str) -> Iterator[Server]:
    """A server for the length of a block."""
    server = start(data, None, **environ)
    try:
        yield server
    finally:
        server.stop()
