"""What the scripts about large transfers share: bodies in memory, raw requests, times and CPU.

Not a program of its own. Bodies lie in memory files and leave by sendfile, answers are thrown away
by the kernel (MSG_TRUNC), so that the client costs little beside the server on the same cores.
"""

import hashlib
import mmap
import os
import re
import socket
import statistics
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

MIB = 1 << 20
GIB = 1 << 30
CHUNK = 32 << 10  # what Go's io.Copy sends, and so `ollama create` and `docker push`
_STEP = MIB
_SENDFILE_MOST = 8 * MIB


class Body:
    """Bytes to upload: the same ones but for a number at their start, so that the digest is new."""

    def __init__(self, size: int, *, chunked: bool) -> None:
        self.size = size
        self.chunked = chunked
        self._file = os.memfd_create("body")
        self._first = len(b"%x\r\n" % CHUNK) if chunked else 0
        block = os.urandom(MIB)
        with os.fdopen(os.dup(self._file), "wb", MIB) as out:
            for _ in range(size // MIB):
                if not chunked:
                    out.write(block)
                    continue
                for at in range(0, MIB, CHUNK):
                    out.write(b"%x\r\n%s\r\n" % (CHUNK, block[at : at + CHUNK]))
            if chunked:
                out.write(b"0\r\n\r\n")
        self._length = os.fstat(self._file).st_size
        self._number = 0
        self.hash_rate = 0.0

    def renew(self) -> str:
        """Change the bytes; return their SHA-256. Without chunks also takes its rate."""
        self._number += 1
        number = b"%d-%d" % (time.time_ns(), self._number)
        os.pwrite(self._file, number, self._first)
        digest = hashlib.sha256()
        with mmap.mmap(self._file, self._length, prot=mmap.PROT_READ) as memory:
            view = memoryview(memory)
            began = time.perf_counter()
            for part in self._parts(view):
                digest.update(part)
                part.release()
            self.hash_rate = self.size / (time.perf_counter() - began)
            view.release()
        return digest.hexdigest()

    def _parts(self, view: memoryview) -> Iterable[memoryview]:
        if not self.chunked:
            for at in range(0, self.size, _STEP):
                yield view[at : at + _STEP]
            return
        step = self._first + CHUNK + 2
        for number in range(self.size // CHUNK):
            at = number * step + self._first
            yield view[at : at + CHUNK]

    @property
    def framing(self) -> str:
        """The header that says how long it is."""
        return "Transfer-Encoding: chunked" if self.chunked else f"Content-Length: {self.size}"

    def send(self, sock: socket.socket) -> None:
        """Send all of it."""
        offset = 0
        while offset < self._length:
            offset += os.sendfile(sock.fileno(), self._file, offset, _SENDFILE_MOST)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._file)


def request(
    port: int, method: str, path: str, body: Body | None = None, headers: str = ""
) -> tuple[int, dict[str, str]]:
    """One request on a connection of its own; status and headers of the answer."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        framing = body.framing if body else "Content-Length: 0"
        lines = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{framing}\r\n{headers}"
        sock.sendall(lines.encode() + b"\r\n")
        if body:
            body.send(sock)
        status, found, _ = read_head(sock)
        return status, found


def read_head(sock: socket.socket) -> tuple[int, dict[str, str], int]:
    """Status, headers, and how many bytes of the answer's body came with them."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65_536)
        if not part:
            raise ConnectionError(f"no answer: {data!r}")
        data += part
    head, rest = data.split(b"\r\n\r\n", 1)
    lines = head.decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), {name.lower(): value for name, value in pairs}, len(rest)


def upload(port: int, kind: str, body: Body, digest: str) -> None:
    """Upload a blob: `api` is POST /api/blobs, `oci` a session of the registry protocol."""
    if kind == "api":
        status, _ = request(port, "POST", f"/api/blobs/sha256:{digest}", body)
    else:
        _, headers = request(port, "POST", "/v2/bench/x/blobs/uploads/")
        path = re.sub(r"^https?://[^/]+", "", headers["location"])
        joint = "&" if "?" in path else "?"
        kind_of_body = "Content-Type: application/octet-stream\r\n"
        target = f"{path}{joint}digest=sha256:{digest}"
        status, _ = request(port, "PUT", target, body, kind_of_body)
    if status != 201:
        raise SystemExit(f"upload failed: {status}")


def download(port: int, path: str, start: int = 0, stop: int | None = None) -> int:
    """Get a file or a range of it and throw it away; return the number of bytes."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        span = f"Range: bytes={start}-{stop - 1}\r\n" if stop is not None else ""
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{span}\r\n".encode())
        status, headers, got = read_head(sock)
        if status != (206 if span else 200):
            raise SystemExit(f"download failed: {status}")
        length = int(headers["content-length"])
        nothing = bytearray(4 * MIB)  # never written to
        while got < length:
            wanted = min(length - got, len(nothing))
            got += sock.recv_into(nothing, wanted, socket.MSG_TRUNC) or _cut()
        return got


def _cut() -> int:
    raise ConnectionError("the answer was cut")


def at_once(jobs: Sequence[object]) -> None:
    """Run callables in a thread each."""
    with ThreadPoolExecutor(len(jobs)) as threads:
        for done in [threads.submit(job) for job in jobs]:  # type: ignore[arg-type]
            done.result()


def warm_memory(folder: Path, size: int) -> None:
    """Touch as many pages as an upload will: on a virtual machine cold ones measure the host."""
    path = folder / "warm"
    with path.open("wb", CHUNK) as out:
        block = bytes(CHUNK)
        for _ in range(size // CHUNK):
            out.write(block)
    path.unlink()


@dataclass
class Row:
    """Results of one server."""

    rates: list[float]  # bytes per second
    cpu: list[float]  # seconds per GiB
    memory: float = 0.0

    def show(self, name: str, others: dict[str, float]) -> str:
        """One line: min / median / max in MB/s, CPU, and ratios of medians."""
        low, middle, high = min(self.rates), statistics.median(self.rates), max(self.rates)
        ratios = "  ".join(f"{middle / rate:.2f} × {other}" for other, rate in others.items())
        return (
            f"{name:16} {low / 1e6:7,.0f} {middle / 1e6:7,.0f} {high / 1e6:7,.0f} MB/s"
            f"  {statistics.median(self.cpu):5.2f} CPU s/GiB  {self.memory:6.0f} MiB  {ratios}"
        )

    @property
    def median(self) -> float:
        """The median rate."""
        return statistics.median(self.rates)
