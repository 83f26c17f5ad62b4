"""The models folder on a file system: `manifests/<host>/<namespace>/<model>/<tag>`, and `records/`.

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
from registry.core.records import RecordName
from registry.ports.catalog import FolderChange
from registry.ports.folder import RecordFile, TagFile

_DEPTH = 4  # host, namespace, model, tag
_RECORD_DEPTH = 2  # repository, tag or manifest
_TRIES = 16
_MAX_BYTES = 4 << 20
_MAX_RECORD = 8 << 20  # a manifest, and what it names by sha512


class FolderOnDisk:
    """`ModelsFolder` below a data folder."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._root = data / "manifests"
        self._records = data / "records"
        self._incoming = data / "incoming"

    def apply(self, changes: Sequence[FolderChange]) -> None:
        """See `ModelsFolder.apply`. Names that Ollama cannot have are left out."""
        with os_errors():
            for change in changes:
                if not _is_kept(change.name):
                    continue
                path = self._path(change.name)
                if change.body is None:
                    self._remove(path)
                else:
                    self._write(path, change.body)

    def _write(self, path: Path, body: bytes) -> None:
        for rest in reversed(range(_TRIES)):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, body, self._incoming / f"manifest-{secrets.token_hex(16)}")
            except FileNotFoundError:  # another process removed the last tag beside it, and folders
                if not rest:
                    raise
            else:
                return

    def sync(self, changes: Sequence[FolderChange]) -> None:
        """See `ModelsFolder.sync`: the files, then each folder above them once."""
        with os_errors():
            if not sync_file_system(self._incoming):
                paths = [self._path(change.name) for change in changes if _is_kept(change.name)]
                above = [folder for path in paths for folder in self._above(path)]
                sync_each(dict.fromkeys([*paths, *above, self._data]))

    async def names(self) -> list[ModelName]:
        """See `ModelsFolder`."""
        with os_errors():
            return await anyio.to_thread.run_sync(self._names)

    async def read(self, name: ModelName) -> TagFile | None:
        """See `ModelsFolder`."""
        with os_errors():
            return await anyio.to_thread.run_sync(self._read, name)

    async def records(self) -> list[str]:
        """See `ModelsFolder`."""
        with os_errors():
            return await anyio.to_thread.run_sync(self._places)

    async def read_record(self, place: str) -> RecordFile | None:
        """See `ModelsFolder`."""
        with os_errors():
            found = await anyio.to_thread.run_sync(_read, self._records / place, _MAX_RECORD)
        return found and RecordFile(place, *found)

    def holds(self, file: TagFile | RecordFile) -> bool:
        """See `ModelsFolder`."""
        try:
            if isinstance(file, RecordFile):
                return (self._records / file.place).read_bytes() == file.body
            return self._path(file.name).read_bytes() == file.body
        except OSError:
            return False

    def _names(self) -> list[ModelName]:
        found = (Path(path).relative_to(self._root).parts for path in _below(self._root, _DEPTH))
        names = (ModelName(*parts) for parts in found)
        return [name for name in names if name.is_valid]

    def _places(self) -> list[str]:
        found = _below(self._records, _RECORD_DEPTH)
        return [Path(path).relative_to(self._records).as_posix() for path in found]

    def _read(self, name: ModelName) -> TagFile | None:
        found = _read(self._path(name), _MAX_BYTES)
        return found and TagFile(name, *found)

    def _path(self, name: ModelName | RecordName) -> Path:
        # safe: four checked parts, none hidden; or two that are made of hashes and a checked tag
        root = self._records if isinstance(name, RecordName) else self._root
        return root / name.file_path

    def _above(self, path: Path) -> Iterator[Path]:
        """The folders above a file, up to the data folder's own."""
        for folder in path.parents:
            if folder == self._data:
                return
            yield folder

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        for folder in list(self._above(path))[:-1]:
            with contextlib.suppress(OSError):  # not empty: another tag lives there
                os.rmdir(folder)  # noqa: PTH106 - Path.rmdir is the same call


def _is_kept(name: ModelName | RecordName) -> bool:
    return isinstance(name, RecordName) or name.is_valid


def _read(path: Path, limit: int) -> tuple[bytes, int] | None:
    """The content of a file that is not longer, and when it was written."""
    try:
        with path.open("rb") as file:
            body = file.read(limit + 1)
            modified_at = os.fstat(file.fileno()).st_mtime_ns
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    return (body, modified_at) if len(body) <= limit else None


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
