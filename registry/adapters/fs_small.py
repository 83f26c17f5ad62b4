"""Small contents published together: `Small` of `ports/blobs.py` on a local file system.

What a create adds is a handful of texts of a few hundred bytes. Each on its own way in (buffers,
lanes, two names, its own syncs) cost more than all else of a create. Here one visit to a thread
writes them all, and the folder is synced once.
"""

import asyncio
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from registry.adapters.fs_files import Layout, Run, begin_writeback, sync_folder
from registry.adapters.os_errors import os_errors
from registry.core.digest import Digest

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)

_Identity = tuple[int, int]  # device and inode


class FsSmall:
    """A few small blobs on their way."""

    def __init__(self, layout: Layout, run: Run, contents: Mapping[Digest, bytes]) -> None:
        self.keys = {digest: digest.file_name for digest in contents}
        self._layout = layout
        self._run = run
        self._contents = {digest.file_name: content for digest, content in contents.items()}
        self._identities: dict[str, _Identity] = {}

    async def publish(self) -> None:
        """Put all of them where blobs are, durably, with one visit to a thread."""
        job = self._run(partial(self._put, self._contents))
        with os_errors():
            try:
                await asyncio.shield(job)
            except asyncio.CancelledError:
                await asyncio.wait([job])  # milliseconds
                raise

    def confirm(self) -> None:
        """Put those back that someone has removed or replaced since `publish`."""
        with os_errors():
            lost = {
                name: content
                for name, content in self._contents.items()
                if _identity(self._layout.blobs / name) != self._identities[name]
            }
            self._put(lost)

    def _put(self, contents: Mapping[str, bytes]) -> None:
        """Write, sync, and only then give each its name, so that no name ever stands for less."""
        parts = {name: self._layout.new_arrival() for name in contents}
        descriptors: dict[str, int] = {}
        try:
            for name, content in contents.items():
                descriptors[name] = os.open(parts[name], _FLAGS, 0o644)
                _write(descriptors[name], content)
            for descriptor in descriptors.values():
                begin_writeback(descriptor)  # of all first: then they share the journal's commit
            for name, descriptor in descriptors.items():
                os.fdatasync(descriptor)
                self._identities[name] = _status(os.fstat(descriptor))
            for name, part in parts.items():
                part.replace(self._layout.blobs / name)
        finally:
            for name, descriptor in descriptors.items():
                os.close(descriptor)
                parts[name].unlink(missing_ok=True)
        if contents:
            sync_folder(self._layout.blobs)


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _identity(path: Path) -> _Identity | None:
    try:
        return _status(path.stat())
    except FileNotFoundError:
        return None


def _status(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino
