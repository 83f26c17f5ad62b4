"""The blob store in a folder: `BlobStore` of `ports/blobs.py` on a local file system.

The folder is laid out as Ollama lays out its models folder, so that either program can be pointed
at it: `blobs/sha256-<hex>` are the blobs, and that file name is the storage key. `incoming/` is
ours and holds what is on its way in or out. Both are on one file system, so publishing is a link
and a rename, and removing is a rename: neither depends on the blob's size.
"""

import asyncio
import contextlib
import io
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar

from registry.adapters import fs_small
from registry.adapters.fs_buffers import BufferPool, Lane
from registry.adapters.fs_files import IncomingFile, Layout, Run, free_bytes, new_key
from registry.adapters.fs_incoming import FsIncoming, Workshop
from registry.adapters.fs_pieces import Running
from registry.adapters.fs_turns import Turn, Turns
from registry.adapters.os_errors import os_errors
from registry.core.digest import Digest
from registry.core.errors import BlobUnknown, StorageFull, UploadUnknown
from registry.ports.blobs import Incoming, Opened

T = TypeVar("T")

_BUFFERS = 12
_BUFFER_BYTES = 4 << 20
_CHUNK = 1 << 20
_FILE_THREADS = 8
_HASH_THREADS = max(2, os.cpu_count() or 2)
_HASHES_KEPT = 1024  # running hashes of upload sessions between two of their requests
_PAGE = 1000
_EARLY = 1 << 20  # a size from which room is looked for before the first byte


class FsOpened:
    """A blob's file, open for reading."""

    def __init__(self, file: io.FileIO, size: int, run: Run) -> None:
        self._file = file
        self._size = size
        self._run = run

    @property
    def size(self) -> int:
        """Length of the blob in bytes."""
        return self._size

    def fileno(self) -> int | None:
        """The file's descriptor."""
        return self._file.fileno()

    async def read(self, start: int, stop: int) -> bytes:
        """The bytes `[start, stop)`."""
        with os_errors():
            return await self._run(partial(_read, self._file.fileno(), start, stop))

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """The same in pieces of up to 1 MiB."""
        for begin in range(start, stop, _CHUNK):
            yield await self.read(begin, min(begin + _CHUNK, stop))

    async def close(self) -> None:
        """Close the file. In a thread: if the blob was removed, this is what frees its room."""
        if not self._file.closed:
            await asyncio.shield(self._run(self._file.close))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class FileBlobStore:
    """Blobs in `folder`. One event loop per store; many processes may share the folder."""

    reuses_keys = True

    def __init__(
        self, folder: Path, *, buffers: int = _BUFFERS, buffer_bytes: int = _BUFFER_BYTES
    ) -> None:
        self._layout = Layout(folder)
        self._layout.make()
        self._files = ThreadPoolExecutor(_FILE_THREADS, "store-files")
        self._hashers = ThreadPoolExecutor(_HASH_THREADS, "store-hash")
        self._run = Run(self._files)
        self._active: set[str] = set()
        self._hashes: OrderedDict[str, Running] = OrderedDict()
        self._turns = Turns(folder)
        self._workshop = Workshop(
            self._layout,
            BufferPool(buffers, buffer_bytes),
            partial(Lane, self._files),
            partial(Lane, self._hashers),
            self._closed,
        )

    def close(self) -> None:
        """Wait for work in threads and end them."""
        self._hashers.shutdown()
        self._files.shutdown()
        self._turns.close()

    async def turn(self, name: str) -> Turn:
        """A turn at incoming bytes: processes that share the folder take turns."""
        return await self._turns.take(name)

    def boundary(self, offset: int) -> int:
        """Any: a file has no parts."""
        return offset

    async def create(self, size_hint: int | None = None) -> Incoming:
        """Begin new bytes."""
        path = self._layout.arrivals / new_key()
        file = IncomingFile(path, size_hint)
        if size_hint is not None and size_hint >= _EARLY:
            with os_errors():
                await self._opened(file, partial(_make_room, file, size_hint))
        self._active.add(path.name)
        return FsIncoming(self._workshop, path, file, 0, Running.fresh())

    async def resume(self, key: str, size: int, *, sparse: bool = False) -> Incoming:
        """Go on with bytes begun earlier."""
        path = self._layout.incoming(key)
        if path is None:
            raise UploadUnknown("upload unknown")
        file = IncomingFile(path, None)
        with os_errors():
            there = await self._opened(file, partial(file.take_up, size))
        if not there:
            file.close()
            raise UploadUnknown("upload unknown")
        running = self._hashes.pop(key, None)
        if size == 0:
            running = Running.fresh()
        elif running is not None and running.size != size:
            running = None
        self._active.add(key)
        return FsIncoming(self._workshop, path, file, size, running)

    async def _opened(self, file: IncomingFile, job: Callable[[], T]) -> T:
        """Do a job that opens a file; it is closed again if whoever asked goes away meanwhile."""
        running = self._run(job)
        try:
            return await asyncio.shield(running)
        except BaseException:
            running.add_done_callback(partial(_close, file))
            raise

    def new_key(self, digest: Digest) -> str:
        """The name that the blob's file will have."""
        return digest.file_name

    def put(self, contents: Mapping[str, bytes]) -> None:
        """Write small blobs, unsynced."""
        fs_small.put(self._layout, contents)

    def sync(self, keys: Sequence[str]) -> None:
        """Sync small blobs."""
        fs_small.sync(self._layout, keys)

    async def open(self, storage_key: str) -> Opened:
        """Open a blob."""
        path = self._layout.blob(storage_key)
        if path is None:
            raise BlobUnknown(storage_key)
        with os_errors():
            opening = self._run(partial(_open, path))
            try:
                file, size = await asyncio.shield(opening)
            except asyncio.CancelledError:
                opening.add_done_callback(_close_unwanted)
                raise
            except FileNotFoundError as error:
                raise BlobUnknown(str(Digest.parse(storage_key))) from error
        return FsOpened(file, size, self._run)

    async def exists(self, storage_key: str) -> int | None:
        """The size of a blob's file. A stat takes microseconds, so it stays on the loop."""
        path = self._layout.blob(storage_key)
        try:
            return path.stat().st_size if path else None
        except OSError:
            return None

    def path(self, storage_key: str) -> str | None:
        """The path of a blob's file."""
        path = self._layout.blob(storage_key)
        return str(path.absolute()) if path else None

    def remove(self, storage_key: str) -> None:
        """Take a blob's name away; its room is freed in a thread, which for 40 GB takes a while."""
        path = self._layout.blob(storage_key)
        if path is None:
            return
        trash = self._layout.temporary("trash-")
        with os_errors():
            try:
                path.rename(trash)
            except FileNotFoundError:
                return
        self._files.submit(partial(_unlink, trash))

    async def discard(self, key: str) -> None:
        """Delete incoming bytes."""
        self._hashes.pop(key, None)
        path = self._layout.incoming(key)
        if path is not None:
            with os_errors():
                await self._run(partial(path.unlink, missing_ok=True))

    def key_of(self, digest: Digest) -> str | None:
        """The name of a blob's file."""
        path = self._layout.blob(digest.file_name)
        return digest.file_name if path is not None and path.is_file() else None

    async def keys(self, before_ns: int) -> AsyncIterator[tuple[str, int]]:
        """Every blob that was written before then."""
        with os_errors(), os.scandir(self._layout.blobs) as entries:
            while names := await self._run(partial(_names, entries)):
                for item in await self._run(partial(_sizes, self._layout, names, before_ns)):
                    yield item

    async def sweep(self, keep: frozenset[str], older_than_ns: int) -> int:
        """Delete what was left behind in `incoming/`."""
        spared = keep | self._active
        with os_errors():
            return await self._run(partial(_sweep, self._layout, spared, older_than_ns))

    async def check(self) -> None:
        """Write a file and delete it."""
        with os_errors():
            await self._run(partial(_probe, self._layout.arrivals / new_key()))

    def _closed(self, key: str, running: Running | None) -> None:
        self._active.discard(key)
        self._hashes.pop(key, None)
        if running is not None and running.size:
            self._hashes[key] = running
            while len(self._hashes) > _HASHES_KEPT:
                self._hashes.popitem(last=False)


def _make_room(file: IncomingFile, size: int) -> None:
    if free_bytes(file.path.parent) < size:
        raise StorageFull("no space left in the store")
    try:
        file.prepare()
    except OSError:
        file.close()
        file.path.unlink(missing_ok=True)
        raise


def _open(path: Path) -> tuple[io.FileIO, int]:
    file = io.FileIO(path)
    if hasattr(os, "posix_fadvise"):  # a wider read-ahead: a blob is read from its start to its end
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return file, os.fstat(file.fileno()).st_size


def _close(file: IncomingFile, opening: "asyncio.Future[T]") -> None:
    if not opening.cancelled():
        opening.exception()  # nobody is left to tell
    file.close()


def _close_unwanted(opening: "asyncio.Future[tuple[io.FileIO, int]]") -> None:
    """Whoever asked for the file went away while it was being opened."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()


def _read(descriptor: int, start: int, stop: int) -> bytes:
    data = os.pread(descriptor, stop - start, start)
    if len(data) == stop - start:
        return data
    parts = [data]
    start += len(data)
    while start < stop and parts[-1]:
        parts.append(os.pread(descriptor, stop - start, start))
        start += len(parts[-1])
    return b"".join(parts)


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):  # the sweep finds it again
        path.unlink()


def _names(entries: Iterator[os.DirEntry[str]]) -> list[str]:
    """The next file names: a folder of a million is not read as a whole."""
    return [entry.name for entry in islice(entries, _PAGE)]


def _sizes(layout: Layout, names: list[str], before_ns: int) -> list[tuple[str, int]]:
    found = []
    for name in names:
        path = layout.blob(name)
        if path is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if status.st_mtime_ns < before_ns:
                found.append((name, status.st_size))
    return found


def _sweep(layout: Layout, spared: frozenset[str], older_than_ns: int) -> int:
    freed = 0
    with os.scandir(layout.arrivals) as entries:
        for entry in entries:
            if entry.name in spared or not layout.is_temporary(entry.name):
                continue
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                touched = max(status.st_mtime_ns, status.st_ctime_ns)  # a link's mtime may be old
                if touched < older_than_ns or entry.name.startswith("trash-"):
                    (layout.arrivals / entry.name).unlink()
                    freed += status.st_size
    return freed


def _probe(path: Path) -> None:
    try:
        path.write_bytes(b"\0" * 4096)
    finally:
        path.unlink(missing_ok=True)
