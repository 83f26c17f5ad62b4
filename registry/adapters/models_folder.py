"""The models folder on a file system: `manifests/<host>/<namespace>/<model>/<tag>`.

Source: spec ollama-api 3.1. Temporary files lie in `incoming/`, never below `manifests/`, where a
real Ollama would take them for tags. Applying syncs nothing: the catalog knows what is due until
`sync` has come to its end, and has it written again after a crash.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio.to_thread

from registry.adapters.fs_files import sync_file_system
from registry.adapters.fs_small import sync_each, write_whole
from registry.adapters.os_errors import os_errors
from registry.core.names import ModelName
from registry.ports.catalog import FolderChange
from registry.ports.folder import TagFile

_DEPTH = 4  # host, namespace, model, tag
_MAX_BYTES = 4 << 20


class FolderOnDisk:
    """`ModelsFolder` below a data folder."""

    def __init__(self, data: Path) -> None:
        self._root = data / "manifests"
        self._incoming = data / "incoming"

    def apply(self, changes: Sequence[FolderChange]) -> None:
        """See `ModelsFolder.apply`. Names that Ollama cannot have are left out."""
        with os_errors():
            for change in changes:
                if not change.name.is_valid:
                    continue
                path = self._path(change.name)
                if change.body is None:
                    _remove(path)
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    part = self._incoming / f"manifest-{secrets.token_hex(16)}"
                    write_whole(path, change.body, part)

    def sync(self, changes: Sequence[FolderChange]) -> None:
        """See `ModelsFolder.sync`: the files, then each folder above them once."""
        with os_errors():
            if not sync_file_system(self._incoming):
                paths = [self._path(change.name) for change in changes if change.name.is_valid]
                above = [folder for path in paths for folder in list(path.parents)[: _DEPTH + 1]]
                sync_each(dict.fromkeys([*paths, *above]))

    async def names(self) -> list[ModelName]:
        """See `ModelsFolder`."""
        with os_errors():
            return await anyio.to_thread.run_sync(self._names)

    async def read(self, name: ModelName) -> TagFile | None:
        """See `ModelsFolder`."""
        with os_errors():
            return await anyio.to_thread.run_sync(self._read, name)

    def holds(self, file: TagFile) -> bool:
        """See `ModelsFolder`."""
        try:
            return self._path(file.name).read_bytes() == file.body
        except OSError:
            return False

    def _names(self) -> list[ModelName]:
        found = (Path(path).relative_to(self._root).parts for path in _below(self._root, _DEPTH))
        names = (ModelName(*parts) for parts in found)
        return [name for name in names if name.is_valid]

    def _read(self, name: ModelName) -> TagFile | None:
        try:
            with self._path(name).open("rb") as file:
                body = file.read(_MAX_BYTES + 1)
                modified_at = os.fstat(file.fileno()).st_mtime_ns
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        return TagFile(name, body, modified_at) if len(body) <= _MAX_BYTES else None

    def _path(self, name: ModelName) -> Path:
        return self._root / name.file_path  # safe: four checked parts, none hidden


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    for folder in list(path.parents)[:3]:
        with contextlib.suppress(OSError):  # not empty: another tag lives there
            os.rmdir(folder)  # noqa: PTH106 - Path.rmdir is the same call


def _below(folder: Path | str, depth: int) -> Iterator[str]:
    """The plain files `depth` levels down. Links are not followed."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):  # a tag that goes takes its folders along
        return
    for entry in entries:
        if depth > 1 and entry.is_dir(follow_symlinks=False):
            yield from _below(entry.path, depth - 1)
        elif depth == 1 and entry.is_file(follow_symlinks=False):
            yield entry.path
