"""Small blobs on a local file system: `put` and `sync` of `ports/blobs.py`.

What a create adds is a handful of texts of a few hundred bytes, whose content the catalog keeps
until their files are synced. So the files are written here without a sync each, and synced later,
all at a time: one call for the whole file system took 15 ms for 1,000 files, one for each file
120 ms, each of which made the disk empty its cache.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from registry.adapters.fs_files import Layout, sync_file_system
from registry.adapters.os_errors import os_errors

_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOEXEC


def put(layout: Layout, contents: Mapping[str, bytes]) -> None:
    """Write each under a name of its own first, so that a blob's name never stands for less."""
    with os_errors():
        for key, content in contents.items():
            path = layout.blob(key)
            if path is not None:
                write_whole(path, content, layout.new_arrival())


def write_whole(path: Path, content: bytes, part: Path) -> None:
    """Write a file by way of `part`: whoever opens it sees all of it, or what was there before."""
    descriptor = os.open(part, _NEW, 0o644)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def sync(layout: Layout, keys: Sequence[str]) -> None:
    """Make blobs and their names durable."""
    with os_errors():
        if not sync_file_system(layout.blobs):
            paths = [path for path in map(layout.blob, keys) if path is not None]
            sync_each([*paths, layout.blobs])


def sync_each(paths: Iterable[Path]) -> None:
    """Make files and folders durable one by one; those that are gone are skipped."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | _CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
