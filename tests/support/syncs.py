"""What was synced: records the files and folders that a test has the kernel make durable."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


class Syncs:
    """Paths in the order of their `fsync` or `fdatasync`, which is done all the same."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.paths: list[Path] = []
        self.fails_with: int | None = None  # an errno
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, self._recorded(getattr(os, name)))

    def _recorded(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def record(descriptor: int) -> None:
            if self.fails_with is not None:
                raise OSError(self.fails_with, os.strerror(self.fails_with))
            self.paths.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
            sync(descriptor)

        return record
