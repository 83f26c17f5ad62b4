"""What was synced: records the files and folders that a test has the kernel make durable."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.adapters import fs_files


class Syncs:
    """Paths in the order of their syncs, which are done all the same unless they are to fail."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.paths: list[Path] = []
        self.whole: list[Path] = []  # whose whole file system was synced
        self.fails_with: int | None = None  # an errno
        self.offers_whole = True
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, self._recorded(getattr(os, name)))
        if fs_files.SYNC_FILE_SYSTEM is not None:
            patch.setattr(fs_files, "SYNC_FILE_SYSTEM", self._all)

    def _recorded(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def record(descriptor: int) -> None:
            if self.fails_with is not None:
                raise OSError(self.fails_with, os.strerror(self.fails_with))
            self.paths.append(_path(descriptor))
            sync(descriptor)

        return record

    def _all(self, descriptor: int) -> int:
        code = self.fails_with if self.offers_whole else 38  # ENOSYS
        if code is None:
            self.whole.append(_path(descriptor))
            return 0
        ctypes.set_errno(code)
        return -1


def _path(descriptor: int) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{descriptor}"))
