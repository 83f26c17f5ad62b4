"""Turns: of the processes that share a folder, one at a time writes an upload's file.

A turn is a lock on one byte of a file, far beyond its end; the byte is chosen by the session's
name. The kernel gives it back when a process dies, on network file systems too, and nothing has to
be cleaned up. The byte behind it says that somebody waits.

Source: fcntl(2), "Open file description locks".
"""

import asyncio
import errno
import fcntl
import os
import struct
import time
from hashlib import blake2b
from pathlib import Path

import structlog

from registry.adapters.os_errors import os_errors
from registry.core.errors import Unavailable

log = structlog.get_logger()

_FILE = ".turns"
_LOCK = "hhqqi"  # struct flock
# The classic locks serve as well where there are no others: in one process `_held` decides.
_SET = getattr(fcntl, "F_OFD_SETLK", fcntl.F_SETLK)
_GET = getattr(fcntl, "F_OFD_GETLK", fcntl.F_GETLK)
_BUSY = {errno.EACCES, errno.EAGAIN}
_NOT_OFFERED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
WAIT_S = 30.0
_PAUSE_S, _PAUSE_MOST_S = 0.005, 0.1


class Turns:
    """The turns of one folder."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / _FILE
        self._descriptor = -1
        self._held: set[int] = set()
        self._warned = False

    async def take(self, name: str, wait_s: float | None = None) -> "Turn":
        """Wait for a turn, `WAIT_S` if not said otherwise, and have it.

        Raises:
            Unavailable: somebody else has it for so long.
        """
        place = _place(name)
        deadline = time.monotonic() + (WAIT_S if wait_s is None else wait_s)
        pause = _PAUSE_S
        try:
            while not self._try(place):
                if time.monotonic() > deadline:
                    raise Unavailable("another server is just receiving this", retry_after_s=1)
                self._set(place + 1, fcntl.F_RDLCK)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _PAUSE_MOST_S)
        finally:
            self._set(place + 1, fcntl.F_UNLCK)
        self._held.add(place)
        return Turn(self, place)

    def close(self) -> None:
        """Let go of the file, and of every turn."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def give_back(self, place: int) -> None:
        """End a turn."""
        self._held.discard(place)
        if self._descriptor >= 0:
            self._set(place, fcntl.F_UNLCK)

    def is_wanted(self, place: int) -> bool:
        """Whether another process waits for a turn."""
        asked = struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, place + 1, 1, 0)
        with os_errors():
            answer = fcntl.fcntl(self._descriptor, _GET, asked)
        return bool(struct.unpack(_LOCK, answer)[0] != fcntl.F_UNLCK)

    def _try(self, place: int) -> bool:
        return place not in self._held and self._set(place, fcntl.F_WRLCK)

    def _set(self, place: int, kind: int) -> bool:
        """Lock or unlock a byte; False if somebody else has it."""
        with os_errors():
            if self._descriptor < 0:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                self._descriptor = os.open(self._file, flags, 0o600)
            wanted = struct.pack(_LOCK, kind, os.SEEK_SET, place, 1, 0)
            try:
                fcntl.fcntl(self._descriptor, _SET, wanted)
            except OSError as error:
                if error.errno in _BUSY:
                    return False
                if error.errno not in _NOT_OFFERED:
                    raise
                self._warn()
        return True

    def _warn(self) -> None:
        if not self._warned:
            log.warning("the data folder has no file locks: let no second server use it")
        self._warned = True


class Turn:
    """A turn that one has."""

    def __init__(self, turns: Turns, place: int) -> None:
        self._turns = turns
        self._place = place

    def is_wanted(self) -> bool:
        """Whether another process waits for it."""
        return self._turns.is_wanted(self._place)

    def end(self) -> None:
        """Give it back."""
        self._turns.give_back(self._place)


def _place(name: str) -> int:
    """An even number below 2^62: two names that share one only wait for each other."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) >> 3 << 1
