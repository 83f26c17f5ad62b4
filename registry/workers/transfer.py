"""One blob from the library to a file, in a thread: received, written and hashed side by side.

With the event loop in between it would be half as fast: each piece is a system call and a hash that
another thread makes meanwhile.
"""

import asyncio
import contextlib
import hashlib
import http.client
import os
import queue
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urljoin, urlsplit

from registry.ports.workers import Weights

_PIECE = 1 << 18
"""Larger ones leave the processor's caches before they are hashed: a third slower."""
_PIECES = 8
_SYNC_BYTES = 64 << 20
_HOPS = 5
_TIMEOUT_S = 60.0


class _Hash(Protocol):
    """A running hash."""

    def update(self, data: memoryview | bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class FetchBroken(Exception):
    """The library did not send all of it; what came is kept."""


class FetchRefused(FetchBroken):
    """The library does not give it to us; asking again would not help."""


class WrongBytes(Exception):
    """All of it came and is not what it is called; nothing is kept."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where blobs come from: the library's URL, and headers that prove who asks."""

    url: str
    headers: Callable[[], dict[str, str]]

    def blob(self, weights: Weights) -> str:
        """The URL of a blob."""
        return f"{self.url}/api/v1/link/blobs/{weights.digest}"

    def transfer(self, weights: Weights, part: Path) -> "Transfer":
        """A try to fetch it into a file."""
        return Transfer(self, weights, part)


class Transfer:
    """One try. `received` counts the bytes that came by it."""

    def __init__(self, source: Source, weights: Weights, part: Path) -> None:
        self._source = source
        self._weights = weights
        self._part = part
        self._left = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None  # the connection forgets it once it has answered
        self._syncer = _Syncer()
        self.received = 0

    async def run(self) -> None:
        """Fetch what is missing; then the part is complete, right and on disk.

        Raises:
            FetchBroken: it did not come whole.
            WrongBytes: it is another blob's.
            OSError: the file cannot be written.
        """
        work = asyncio.ensure_future(asyncio.to_thread(self._run))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            self._leave()
            with contextlib.suppress(FetchBroken, WrongBytes, OSError):
                await work
            raise

    def _leave(self) -> None:
        """Have the thread stop: what it waits for ends."""
        self._left.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        size = self._weights.size
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        file = os.open(self._part, flags, 0o600)
        try:
            begin = min(os.fstat(file).st_size, size)
            os.ftruncate(file, begin)
            running = hashlib.new(self._weights.digest.algorithm)
            _hash_file(file, begin, running)
            if begin < size:
                self._receive(file, begin, running)
            if error := self._syncer.finish():
                raise error
            if running.hexdigest() != self._weights.digest.hex:
                os.ftruncate(file, 0)
                raise WrongBytes
            os.fsync(file)
        finally:
            self._syncer.finish()
            os.close(file)

    def _receive(self, file: int, begin: int, running: _Hash) -> None:
        """Read the rest into the file; the hash is made beside it."""
        hasher = _Hasher(running)
        try:
            with contextlib.closing(self._open(begin)) as answer:
                os.lseek(file, begin, os.SEEK_SET)
                self._copy(answer, file, self._weights.size - begin, hasher)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in _OURS:
                raise
            raise FetchBroken(_words(error)) from error
        finally:
            hasher.finish()
            self._close()

    def _copy(
        self, answer: http.client.HTTPResponse, file: int, left: int, hasher: "_Hasher"
    ) -> None:
        unsynced = 0
        while left and not self._left.is_set():
            piece = hasher.spare()
            count = answer.readinto(piece[: min(left, _PIECE)])
            if not count:
                break
            _write(file, piece[:count])
            hasher.put(piece, count)
            left -= count
            self.received += count
            unsynced += count
            if unsynced >= _SYNC_BYTES:
                unsynced = 0
                self._syncer.begin(file)
        if left:
            raise FetchBroken("the connection broke off")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self, begin: int) -> http.client.HTTPResponse:
        """Ask for the rest. Who asks is told to the library alone, wherever it sends us."""
        url, headers = self._source.blob(self._weights), self._source.headers()
        home = _origin(urlsplit(url))
        for _ in range(_HOPS):
            parts = urlsplit(url)
            self._close()
            connection = self._connection = _connection(parts)
            own = headers if _origin(parts) == home else {}
            target = parts._replace(scheme="", netloc="", fragment="").geturl()
            asked = {"Range": f"bytes={begin}-", "Accept-Encoding": "identity", **own}
            connection.request("GET", target, headers=asked)
            self._socket = connection.sock
            answer = connection.getresponse()
            location = answer.headers.get("location", "")
            if answer.status in {301, 302, 303, 307, 308} and location:
                answer.close()
                url = _followed(url, location)
                continue
            expected = answer.headers.get("content-range", "").startswith(f"bytes {begin}-")
            if (answer.status == 206 and expected) or (answer.status == 200 and begin == 0):
                return answer
            answer.close()
            kind = FetchRefused if answer.status in {400, 401, 403, 404} else FetchBroken
            raise kind(f"the library answered {answer.status}")
        raise FetchBroken("too many redirects")


class _Syncer:
    """Has the disk take what was written while more comes, so that less is left for the end."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def begin(self, file: int) -> None:
        """Begin, unless the disk is busy with what came before."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, args=(file,), daemon=True)
            self._thread.start()

    def finish(self) -> OSError | None:
        """Wait for what was begun; what went wrong. A later sync would not tell it again."""
        if self._thread is not None:
            self._thread.join()
        return self._error

    def _run(self, file: int) -> None:
        try:
            os.fdatasync(file)
        except OSError as error:
            self._error = self._error or error


class _Hasher:
    """Hashes pieces in a thread of its own, and lends the buffers they lie in."""

    def __init__(self, running: _Hash) -> None:
        self._running = running
        self._spare: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[memoryview, int] | None] = queue.SimpleQueue()
        for _ in range(_PIECES):
            self._spare.put(memoryview(bytearray(_PIECE)))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def spare(self) -> memoryview:
        """A buffer to read into."""
        return self._spare.get()

    def put(self, piece: memoryview, count: int) -> None:
        """Hash the first bytes of a buffer, which is lent again afterwards."""
        self._full.put((piece, count))

    def finish(self) -> None:
        """Wait until all of it is hashed."""
        self._full.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (found := self._full.get()) is not None:
            piece, count = found
            self._running.update(piece[:count])
            self._spare.put(piece)


_OURS = frozenset({28, 122, 30, 5})  # ENOSPC, EDQUOT, EROFS, EIO: the disk's, not the network's


def _write(file: int, data: memoryview) -> None:
    while data:
        data = data[os.write(file, data) :]


def _hash_file(file: int, size: int, running: _Hash) -> None:
    """Hash what an earlier try left."""
    os.lseek(file, 0, os.SEEK_SET)
    while size:
        data = os.read(file, min(size, _PIECE))
        if not data:
            raise FetchBroken("the part became shorter")
        running.update(data)
        size -= len(data)


def _connection(parts: SplitResult) -> http.client.HTTPConnection:
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(parts.netloc, timeout=_TIMEOUT_S, context=context)
    return http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT_S)


def _followed(url: str, location: str) -> str:
    target = urljoin(url, location)
    parts = urlsplit(target)
    downgrade = urlsplit(url).scheme == "https" and parts.scheme != "https"
    if parts.scheme not in {"http", "https"} or downgrade or parts.username is not None:
        raise FetchBroken("a redirect that is not followed")
    return target


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return "no answer for too long" if isinstance(error, TimeoutError) else type(error).__name__
