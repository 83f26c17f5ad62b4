"""Bytes on their way into the file system store: `Incoming` of `ports/blobs.py`.

All state but the file and the running hash belongs to the event loop. Those two belong to the
lanes: each full buffer becomes a piece that is handed to both, and comes back when both are done
with it. A `receive` that fails half-way gives its attempt up: its pieces are passed over, and jobs
queued behind them cut the file and put the old hash back. So nothing has to be waited for.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from registry.adapters.fs_buffers import BLOCK, Buffer, BufferPool, Lane, write_through
from registry.adapters.fs_files import IncomingFile, Layout, sync_folder
from registry.adapters.fs_pieces import Attempt, Piece, Running
from registry.adapters.hashing_sink import is_same
from registry.adapters.os_errors import os_errors
from registry.core.digest import Digest
from registry.core.errors import DigestMismatch, OperationFailed, RegistryError
from registry.ports.blobs import Body

DEPTH = 4  # buffers of one upload that may be on their way through the lanes
_IDLE_S = 0.2  # a buffer not filled further for so long is written as it is and given back
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Workshop:
    """What the store lends to each of its incoming bytes."""

    layout: Layout
    pool: BufferPool
    lane: Callable[[], Lane]  # for files
    hash_lane: Callable[[], Lane]
    closed: Callable[[str, Running | None], None]  # key, and the hash to go on with at `resume`


class FsIncoming:
    """An append-only file under a random key, hashed as it grows."""

    rereads = True

    def __init__(
        self, workshop: Workshop, path: Path, file: IncomingFile, size: int, running: Running | None
    ) -> None:
        self.key = path.name
        self._workshop = workshop
        self._file = file
        self._path = path
        self._size = size
        self._running = running  # of the hash lane; None: read back for the digest
        self._writing = workshop.lane()
        self._hashing = workshop.hash_lane()
        self._loop = asyncio.get_running_loop()
        self._attempt = Attempt()
        self._failure: tuple[Attempt, RegistryError] | None = None
        self._current: Buffer | None = None
        self._start = self._fill = 0  # the bytes in it that no lane has seen
        self._borrowed = False
        self._touched = False
        self._timer: asyncio.TimerHandle | None = None
        self._underway = 0
        self._progress = asyncio.Event()
        self._sealed: Digest | None = None
        self._published: str | None = None
        self._prepared = self._closed = self._gone = False

    @property
    def size(self) -> int:
        """How many bytes were accepted."""
        return self._size

    # ---- bytes in

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`; it may be reused at once."""
        await write_through(self, data)

    async def borrow(self) -> memoryview:
        """The unfilled part of a buffer."""
        self._check()
        if self._current is None:
            while self._underway >= DEPTH:
                self._progress.clear()
                await self._progress.wait()
            self._current = await self._workshop.pool.acquire()
            # Bytes lie in the buffer as they will in the file's blocks: O_DIRECT asks for that.
            self._start = self._fill = self._size % BLOCK
            self._check()
        else:
            self._workshop.pool.cannot_spare(self)
        self._borrowed = True
        return self._current.view[self._fill :]

    async def fill(self, size: int) -> None:
        """Append the first `size` bytes of the buffer last borrowed."""
        self._borrowed = False
        self._touched = True
        self._fill += size
        self._size += size
        if self._fill in {self._start, self._workshop.pool.size}:
            self._pass_on()
            return
        self._workshop.pool.can_spare(self, self._pass_on)
        if self._timer is None:
            self._timer = self._loop.call_later(_IDLE_S, self._tick)

    async def receive(self, body: Body) -> int:
        """Append a whole body, or nothing of it."""
        self._check()
        before = self._size
        self._pass_on()
        self._attempt = Attempt()
        saved: list[Running | None] = []
        self._hashing.put(partial(self._save_hash, saved))
        try:
            return await body.feed(self)
        except BaseException:
            self._undo(before, saved)
            raise

    async def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write out of order; the hash is made by reading back."""
        self._check()
        self._pass_on()
        self._hashing.put(self._forget_hash)
        with os_errors():
            if not self._prepared:
                await self._writing.call(self._file.prepare)
                self._prepared = True
            view = memoryview(data).cast("B")
            self._size = max(self._size, offset + len(view))
            await self._workshop.lane().call(partial(self._file.write_at, view, offset))

    # ---- bytes back

    async def read(self, start: int, stop: int) -> bytes:
        """Bytes already written."""
        self._pass_on()
        with os_errors():
            data = await self._writing.call(partial(self._file.read, start, min(stop, self._size)))
        self._check_failure()
        return data

    async def repeats(self, start: int, body: Body) -> bool:
        """Whether a body is what was accepted last."""
        return await is_same(body, self, start)

    async def durable(self) -> list[tuple[int, int]]:
        """Everything."""
        await self.flush()
        return [(0, self._size)]

    async def flush(self) -> None:
        """Wait until every byte accepted, and the name they are found under, is durable."""
        await self._synced()
        with os_errors():
            await self._writing.call(partial(sync_folder, self._path.parent))

    async def digest(self, algorithm: str = "sha256") -> Digest:
        """The digest of all bytes accepted."""
        self._pass_on()
        if algorithm == "sha256":
            if self._sealed is not None:
                return self._sealed
            text = await self._hashing.call(partial(self._hashed, self._size))
            if text is not None:
                self._check_failure()
                return Digest.sha256(text)
        with os_errors():
            text = await self._writing.call(partial(self._hash_again, algorithm, self._size))
        self._check_failure()
        return Digest(algorithm, text)

    # ---- the end

    async def seal(self) -> Digest:
        """Make the bytes durable and say what they are."""
        if self._sealed is None:
            self._pass_on()
            hashed = self._hashing.call(partial(self._hashed, self._size))
            await self._synced()
            text = await hashed
            self._sealed = Digest.sha256(text) if text else await self.digest()
        return self._sealed

    async def publish(self, digest: Digest) -> str:
        """Put the sealed bytes where blobs are."""
        own = await self.seal()
        if digest != own:
            same = digest.algorithm != "sha256" and await self.digest(digest.algorithm) == digest
            if not same:
                raise DigestMismatch(str(digest), str(own))
        with os_errors():
            await self._writing.call(partial(self._put, own.file_name))
        self._published = own.file_name
        return own.file_name

    def confirm(self) -> None:
        """Put the blob back if someone has removed or replaced it since `publish`."""
        assert self._published is not None
        target = self._workshop.layout.blobs / self._published
        with os_errors():
            try:
                status = target.stat()
            except FileNotFoundError:
                found = None
            else:
                found = (status.st_dev, status.st_ino)
            if found != self._file.identity():
                try:
                    self._put(self._published)
                except FileNotFoundError as error:  # moved, where there are no hard links
                    raise OperationFailed("the blob was removed while it was stored") from error

    async def close(self, *, intact: bool = True) -> None:
        """Let go of files and buffers; the bytes stay."""
        if self._closed:
            return
        self._closed = True
        self._pass_on()
        hashed = self._hashing.call(self._last_hash)
        with os_errors():  # shielded: a caller that is cancelled here must not leave files open
            finish = partial(self._finish, False, self._size)
            await asyncio.shield(self._writing.call(finish))
        running = await hashed
        intact = intact and self._published is None and not self._has_failed
        self._workshop.closed(
            self.key, running if intact and running and running.size == self._size else None
        )

    async def discard(self) -> None:
        """`close`, and delete the bytes unless they were published."""
        if self._gone:
            return
        self._gone = self._closed = True
        self._drop()
        self._workshop.closed(self.key, None)
        with os_errors():
            await asyncio.shield(self._writing.call(partial(self._finish, True, self._size)))

    # ---- on the loop

    def _check(self) -> None:
        assert self._sealed is None and not self._closed
        self._check_failure()

    def _check_failure(self) -> None:
        failure = self._failure
        if failure is not None and not failure[0].given_up:
            raise failure[1]

    async def _synced(self) -> None:
        self._pass_on()
        with os_errors():
            await self._writing.call(partial(self._file.sync, self._size))
        self._check_failure()

    def _pass_on(self) -> None:
        """Send what the current buffer holds to the lanes."""
        buffer, self._current = self._current, None
        if buffer is None:
            return
        self._workshop.pool.cannot_spare(self)
        if self._fill == self._start:
            self._workshop.pool.release(buffer)
            return
        view = buffer.view[self._start : self._fill]
        offset = self._size - len(view)
        over = partial(self._loop.call_soon_threadsafe, self._came_back, buffer)
        piece = Piece(view, offset, self._attempt, over)
        self._underway += 1
        self._hashing.put(partial(self._hash, piece))
        self._writing.put(partial(self._write, piece))

    def _came_back(self, buffer: Buffer) -> None:
        self._underway -= 1
        self._workshop.pool.release(buffer)
        self._progress.set()

    def _tick(self) -> None:
        """Give the buffer back if its bytes come slowly."""
        self._timer = None
        if self._current is None:
            return
        if not self._borrowed and not self._touched:
            self._pass_on()
            return
        self._touched = False
        self._timer = self._loop.call_later(_IDLE_S, self._tick)

    def _drop(self) -> None:
        """Let go of the current buffer and its bytes."""
        buffer, self._current = self._current, None
        self._borrowed = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if buffer is not None:
            self._workshop.pool.cannot_spare(self)
            self._workshop.pool.release(buffer)

    def _undo(self, size: int, saved: list[Running | None]) -> None:
        """Go back to `size` bytes and the hash of them."""
        self._attempt.given_up = True
        self._attempt = Attempt()
        self._drop()
        self._size = size
        self._writing.put(partial(self._cut, size, self._attempt))
        self._hashing.put(partial(self._restore_hash, saved))

    # ---- in the lanes

    def _write(self, piece: Piece) -> None:
        try:
            if not self._is_void(piece) and not self._has_failed:
                with os_errors():
                    self._file.write(piece.view, piece.offset)
        except RegistryError as error:
            self._failure = (piece.attempt, error)
        finally:
            piece.done()

    def _is_void(self, piece: Piece) -> bool:
        return self._gone or piece.attempt.given_up

    @property
    def _has_failed(self) -> bool:
        return self._failure is not None and not self._failure[0].given_up

    def _cut(self, size: int, attempt: Attempt) -> None:
        try:
            with os_errors():
                self._file.truncate(size)
        except RegistryError as error:
            self._failure = (attempt, error)

    def _put(self, storage_key: str) -> None:
        self._workshop.layout.put(self._path, storage_key)

    def _finish(self, unlink: bool, size: int) -> None:
        if not unlink:
            with contextlib.suppress(OSError):  # the disk is full: what came before is there
                self._file.make()
                self._file.truncate(size)
        self._file.close()
        if unlink:
            self._path.unlink(missing_ok=True)

    def _hash(self, piece: Piece) -> None:
        try:
            running = self._running
            if self._is_void(piece) or running is None:
                return
            if running.size != piece.offset:
                self._running = None
                return
            running.state.update(piece.view)
            running.size += len(piece.view)
        finally:
            piece.done()

    def _save_hash(self, saved: list[Running | None]) -> None:
        saved.append(self._running.copy() if self._running else None)

    def _restore_hash(self, saved: list[Running | None]) -> None:
        self._running = saved.pop()

    def _forget_hash(self) -> None:
        self._running = None

    def _hashed(self, size: int) -> str | None:
        running = self._running
        return running.state.hexdigest() if running and running.size == size else None

    def _last_hash(self) -> Running | None:
        return self._running

    def _hash_again(self, algorithm: str, size: int) -> str:
        """Hash the file. Runs in the file lane, so that all of it has been written."""
        state = hashlib.new(algorithm)
        buffer = bytearray(min(_READ_BYTES, size))
        for offset in range(0, size, _READ_BYTES):
            view = memoryview(buffer)[: size - offset]
            self._file.read_into(view, offset)
            state.update(view)
        return state.hexdigest()
