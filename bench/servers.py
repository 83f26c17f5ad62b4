"""The servers that the scripts here measure: started on free ports of the loopback address.

Not a program of its own. Each server gets a folder, its own default settings, and its log thrown
away, so that it still has to word it.
"""

import argparse
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_START_S = 120.0
_CONFIG = """\
version: 0.1
storage:
  filesystem: {{rootdirectory: {folder}}}
  cache: {{blobdescriptor: inmemory}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    @property
    def cpu(self) -> float:
        """CPU seconds that its process has used."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / _TICKS

    @property
    def children_cpu(self) -> float:
        """CPU seconds that the processes which it started, and that still run, have used."""
        used = 0
        for file in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = file.read_text().rpartition(")")[2].split()
            except OSError:  # it ended
                continue
            if int(fields[1]) == self.process.pid:
                used += int(fields[11]) + int(fields[12])
        return used / _TICKS

    @property
    def memory(self) -> float:
        """MiB that are resident."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    @property
    def bytes_read(self) -> int:
        """Bytes that it read by read calls, from files, pipes and sockets alike."""
        return self._io("rchar")

    @property
    def bytes_written(self) -> int:
        """Bytes that it wrote by write calls, to files, pipes and sockets alike."""
        return self._io("wchar")

    def _io(self, key: str) -> int:
        text = Path(f"/proc/{self.process.pid}/io").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(key))


def options(description: str | None) -> argparse.ArgumentParser:
    """What all scripts take."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--ours", default=f"{shlex.quote(sys.executable)} -m registry", help="our command"
    )
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="where to put data")
    parser.add_argument("--rounds", type=int, default=5)
    return parser


@contextmanager
def ours(
    command: str, data: Path, log: Path | None = None, environ: dict[str, str] | None = None
) -> Iterator[Server]:
    """Our service over a data folder, as anybody would start it."""
    port = _free_port()
    line = [*shlex.split(command), "serve", "--port", str(port), "--data", str(data)]
    with _running("registry", port, line, environ or {}, log) as server:
        yield server


@contextmanager
def distribution(name: str, binary: Path, folder: Path) -> Iterator[Server]:
    """A registry of the distribution project, such as Debian's docker-registry."""
    port = _free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yml"
    config.write_text(_CONFIG.format(folder=folder / "data", port=port))
    with _running(name, port, [str(binary), "serve", str(config)], {}) as server:
        yield server


@contextmanager
def ollama(
    binary: Path, models: Path, home: Path, settings: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A real Ollama over a models folder, which may be a data folder of ours."""
    port = _free_port()
    environ = {
        "HOME": str(home),
        "OLLAMA_MODELS": str(models),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_NOPRUNE": "1",
        **(settings or {}),
    }
    with _running("ollama", port, [str(binary), "serve"], environ) as server:
        yield server


@contextmanager
def _running(
    name: str, port: int, line: list[str], environ: dict[str, str], log: Path | None = None
) -> Iterator[Server]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("REGISTRY_", "OLLAMA_"))}
    with (log or Path(os.devnull)).open("ab") as output:
        process = subprocess.Popen(line, stdout=output, stderr=output, env=kept | environ)
    try:
        _wait(port, process)
        yield Server(name, port, process)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise SystemExit(f"{process.args!r} did not start")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
