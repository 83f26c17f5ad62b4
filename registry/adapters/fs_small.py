"""Small blobs on a local file system: `put` and `sync` of `ports/blobs.py`.

What a create adds is a handful of texts of a few hundred bytes, whose content the catalog keeps
until their files are synced. So the files are written here without a sync each, and synced many at
a time later: the journal then commits once for all of them.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from registry.adapters.fs_files import Layout, begin_writeback, sync_folder
from registry.adapters.os_errors import os_errors

_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOEXEC
_AT_ONCE = 64  # files held open while they are synced


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
        sync_files(path for path in map(layout.blob, keys) if path is not None)
        sync_folder(layout.blobs)


def sync_files(paths: Iterable[Path]) -> None:
    """Make the contents of files durable; those that are gone are skipped."""
    waiting = iter(paths)
    while some := list(islice(waiting, _AT_ONCE)):
        descriptors: list[int] = []
        try:
            for path in some:
                with contextlib.suppress(FileNotFoundError):
                    descriptors.append(os.open(path, os.O_RDONLY | _CLOEXEC))
            for descriptor in descriptors:
                begin_writeback(descriptor)  # of all first: then they share the journal's commit
            for descriptor in descriptors:
                os.fdatasync(descriptor)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def sync_folders(folders: Iterable[Path]) -> None:
    """Make the names in folders durable; those that are gone are skipped."""
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            sync_folder(folder)
