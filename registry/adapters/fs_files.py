"""Files of the store: their names, and the calls that write one. All of it blocks: for threads.

This is the one place that makes a path out of a key, and it makes none out of anything but a
digest's file name or a random key of ours (CVE-2024-37032 was a digest that walked out of the
folder).
"""

import asyncio
import ctypes
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from registry.adapters.fs_buffers import BLOCK

T = TypeVar("T")

DIRECT_FROM = 8 << 20  # bytes from which a file is written around the page cache
_RESERVE_MOST = 256 << 20  # room taken at once: a bigger step would hold the lane up for too long
_RESERVE_FROM = 1 << 20
_WRITEBACK = 8 << 20  # dirty bytes after which the kernel is asked to begin writing them
_SYNC_FILE_RANGE_WRITE = 2
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_BLOB_NAME = re.compile(r"sha256-[0-9a-f]{64}")
_KEY = re.compile(r"[0-9a-f]{32}")
_TEMPORARY = re.compile(r"(?:trash-|link-|manifest-)?[0-9a-f]{32}")

_LIBC = ctypes.CDLL(None, use_errno=True)
_FALLOCATE = getattr(_LIBC, "fallocate64", None) or getattr(_LIBC, "fallocate", None)
_SYNC_RANGE = getattr(_LIBC, "sync_file_range", None)
SYNC_FILE_SYSTEM = getattr(_LIBC, "syncfs", None)


class Run:
    """Calls a blocking function in a thread of the store's."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    def __call__(self, job: Callable[[], T]) -> "asyncio.Future[T]":
        """Begin it; the future has its result."""
        return asyncio.get_running_loop().run_in_executor(self._threads, job)


class Layout:
    """Where things are: `blobs/sha256-<hex>` and `incoming/<key>` of one folder."""

    def __init__(self, folder: Path) -> None:
        self.blobs = folder / "blobs"
        self.arrivals = folder / "incoming"

    def make(self) -> None:
        """Create the folders that are not there."""
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.arrivals.mkdir(exist_ok=True)

    def blob(self, storage_key: str) -> Path | None:
        """The file of a blob; None for a key that cannot be one."""
        return self.blobs / storage_key if _BLOB_NAME.fullmatch(storage_key) else None

    def incoming(self, key: str) -> Path | None:
        """The file of bytes on their way in; None for a key that cannot be one."""
        return self.arrivals / key if _KEY.fullmatch(key) else None

    def new_arrival(self) -> Path:
        """A new name for bytes on their way in."""
        return self.arrivals / new_key()

    def temporary(self, prefix: str) -> Path:
        """A new name in `incoming/` for something in passing: `trash-` or `link-`."""
        return self.arrivals / f"{prefix}{new_key()}"

    @staticmethod
    def is_temporary(name: str) -> bool:
        """Whether a file of `incoming/` is ours."""
        return _TEMPORARY.fullmatch(name) is not None

    def put(self, source: Path, storage_key: str) -> None:
        """Give the file `source` the blob's name too, durably, replacing whatever had that name.

        On a file system without hard links `source` is moved.
        """
        target = self.blobs / storage_key
        link = self.temporary("link-")
        try:
            link.hardlink_to(source)
        except FileNotFoundError:
            raise
        except OSError:
            source.replace(target)
        else:
            link.replace(target)
            link.unlink(missing_ok=True)  # two names of one file: rename leaves both alone
        sync_folder(self.blobs)


def new_key() -> str:
    """A random key for bytes on their way in."""
    return secrets.token_hex(16)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(folder: Path) -> bool:
    """Make all that was written on the file system of `folder` durable; False: not offered here."""
    if SYNC_FILE_SYSTEM is None:
        return False
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if SYNC_FILE_SYSTEM(descriptor) == 0:
            return True
        code = ctypes.get_errno()
    finally:
        os.close(descriptor)
    if code == errno.ENOSYS:
        return False
    raise OSError(code, os.strerror(code))


def free_bytes(folder: Path) -> int:
    """How much this process may still write there."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


class IncomingFile:
    """A file that grows: opened at its first write, with room reserved ahead of the bytes.

    Whole blocks of a big file go around the page cache (O_DIRECT) where the file system can: that
    costs no CPU, and the speed does not fall when the machine's dirty pages reach their limit.
    What is not a whole block, and everything where it cannot, goes through the page cache.
    """

    def __init__(self, path: Path, expected: int | None) -> None:
        self.path = path
        self._expected = expected or 0
        self._fd = -1
        self._direct_fd = -1
        self._try_direct = hasattr(os, "O_DIRECT")
        self._try_reserve = True
        self._reserved = 0  # end of the room taken: the file is as long, written or not
        self._unsynced = False
        self._writeback = 0
        self._is_shared = False

    def make(self) -> None:
        """Open the file, creating it if need be, and reserve the first room."""
        if self._fd < 0:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            self._fd = os.open(self.path, flags, 0o644)
            self._unsynced = True
            if self._expected >= _RESERVE_FROM:
                self._reserve(0, 0, must=True)

    def prepare(self) -> None:
        """Make it and see that nobody else has it, before it is written to."""
        self.make()
        if self._is_shared:
            self._become_own()

    def take_up(self, size: int) -> bool:
        """Open a file begun earlier, cut to `size`; False if it is not there or is shorter."""
        try:
            self._fd = os.open(self.path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            return False
        status = os.fstat(self._fd)
        self._is_shared = status.st_nlink > 1  # published, and then no row was written
        if status.st_size > size:
            self.truncate(size)
        return status.st_size >= size

    def write(self, view: memoryview, offset: int) -> None:
        """Write at `offset`. Fast if `view` lies in memory as `offset` does in blocks."""
        self.prepare()
        self._unsynced = True
        stop = offset + len(view)
        if stop > self._reserved and stop >= _RESERVE_FROM:
            self._reserve(offset, stop, must=False)
        head = min(-offset % BLOCK, len(view))
        body = (len(view) - head) // BLOCK * BLOCK
        if body and max(stop, self._expected) >= DIRECT_FROM and self._open_direct():
            self._write_plain(view[:head], offset)
            done = head + self._write_direct(view[head : head + body], offset + head)
            self._write_plain(view[done:], offset + done)
        else:
            self._write_plain(view, offset)

    def write_at(self, view: memoryview, offset: int) -> None:
        """Write anywhere, from any thread, after `prepare`."""
        self._unsynced = True
        self._write_plain(view, offset)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes `[start, stop)`."""
        parts = []
        while start < stop:
            part = os.pread(self._fd, stop - start, start)
            if not part:
                raise OSError(errno.EIO, "file is shorter than expected")
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill `view` with the bytes from `offset` on."""
        while view:
            count = os.preadv(self._fd, [view], offset)
            if not count:
                raise OSError(errno.EIO, "file is shorter than expected")
            view, offset = view[count:], offset + count

    def truncate(self, size: int) -> None:
        """Cut it to `size` bytes, or nothing if it was never opened."""
        if self._fd >= 0 and not (self._is_shared and size == os.fstat(self._fd).st_size):
            self.prepare()
            os.ftruncate(self._fd, size)
            self._reserved = min(self._reserved, size)
            self._unsynced = True

    def sync(self, size: int) -> None:
        """Make its `size` bytes durable and give back what was reserved beyond them."""
        self.make()
        if self._reserved > size:
            self.truncate(size)
        if self._unsynced:
            os.fdatasync(self._fd)
            self._unsynced = False

    def close(self) -> None:
        """Let go of it."""
        for descriptor in (self._fd, self._direct_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._fd = self._direct_fd = -1

    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    def _become_own(self) -> None:
        """Go on in a copy: the file has a blob's name too, whose bytes must stay as they are."""
        copy = self.path.with_name(f"link-{new_key()}")
        try:
            shutil.copyfile(self.path, copy)
            descriptor = os.open(copy, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
            copy.replace(self.path)
        except OSError:
            copy.unlink(missing_ok=True)
            raise
        self.close()
        self._fd, self._is_shared, self._unsynced = descriptor, False, True

    def _reserve(self, start: int, stop: int, *, must: bool) -> None:
        """Take room for the bytes up to `stop` and some more; `must`: it is known to be needed."""
        if _FALLOCATE is None or not self._try_reserve:
            return
        begin = max(start, self._reserved)
        step = _RESERVE_MOST if self._expected else min(max(begin, 16 << 20), _RESERVE_MOST)
        end = begin + step
        if self._expected > begin:
            end = min(end, self._expected)
        end = max(end, stop)
        if _FALLOCATE(self._fd, 0, ctypes.c_int64(begin), ctypes.c_int64(end - begin)) == 0:
            self._reserved = end
            return
        code = ctypes.get_errno()
        if must and code in _FULL:
            raise OSError(code, os.strerror(code))
        self._try_reserve = (
            False  # not offered here, or nearly full: the writes themselves will tell
        )

    def _write_plain(self, view: memoryview, offset: int) -> None:
        begun = offset
        while view:
            count = os.pwrite(self._fd, view, offset)
            view, offset = view[count:], offset + count
        self._writeback += offset - begun
        if self._writeback >= _WRITEBACK and _SYNC_RANGE is not None:
            # Without it the kernel waits until a tenth of the memory is dirty, and fdatasync pays.
            _SYNC_RANGE(self._fd, ctypes.c_int64(0), ctypes.c_int64(offset), _SYNC_FILE_RANGE_WRITE)
            self._writeback = 0

    def _open_direct(self) -> bool:
        if self._direct_fd < 0 and self._try_direct:
            try:
                self._direct_fd = os.open(
                    self.path, os.O_WRONLY | os.O_DIRECT | getattr(os, "O_CLOEXEC", 0)
                )
            except OSError:
                self._try_direct = False
        return self._try_direct

    def _write_direct(self, view: memoryview, offset: int) -> int:
        """Write whole blocks; the rest, after the bytes returned, has to go the other way."""
        done = 0
        while done < len(view):
            try:
                count = os.pwrite(self._direct_fd, view[done:], offset + done)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._try_direct = False
                break
            done += count
            if count % BLOCK:
                break
        return done
