"""Where export writes: a folder, or one tar archive. `Target` of `ports/carriage.py`."""

import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from anyio import to_thread

from registry.adapters.fs_files import sync_file_system
from registry.adapters.os_errors import os_errors
from registry.adapters.tar_file import TarWriter
from registry.core.errors import OperationFailed


class ExportFolder:
    """Files in a folder. Paths are ours: made of checked names and digests."""

    def __init__(self, folder: Path, *, empty: bool) -> None:
        """Make the folder; with `empty` it must hold nothing yet.

        Raises:
            OperationFailed: it holds something, or cannot be written.
        """
        with os_errors():
            folder.mkdir(parents=True, exist_ok=True)
            if empty and next(folder.iterdir(), None) is not None:
                raise OperationFailed("the folder is not empty; name another")
        self._folder = folder
        self._part = folder / f".part-{secrets.token_hex(8)}"

    def has(self, path: str, size: int) -> bool:
        """See `Target`."""
        try:
            return path.startswith("blobs/") and (self._folder / path).stat().st_size == size
        except OSError:
            return False

    async def put(self, path: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        """See `Target`."""
        with os_errors():
            target = self._folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._part.open("wb") as file:
                async for chunk in chunks:
                    await to_thread.run_sync(file.write, chunk)
            self._part.replace(target)

    async def finish(self) -> None:
        """See `Target`."""
        with os_errors():
            if not await to_thread.run_sync(sync_file_system, self._folder):
                await to_thread.run_sync(os.sync)

    async def discard(self) -> None:
        """See `Target`. Files that are whole stay."""
        with os_errors():
            self._part.unlink(missing_ok=True)


class ExportArchive:
    """Files in one tar archive, which has its name once it is whole."""

    def __init__(self, path: Path) -> None:
        """Begin the archive.

        Raises:
            OperationFailed: it cannot be written.
        """
        self._path = path
        self._part = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        with os_errors():
            self._writer = TarWriter(self._part)

    def has(self, path: str, size: int) -> bool:
        """See `Target`."""
        return False

    async def put(self, path: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        """See `Target`. What fails half-way leaves an archive that is not to be finished."""
        with os_errors():
            await to_thread.run_sync(self._writer.begin, path, size)
            async for chunk in chunks:
                await to_thread.run_sync(self._writer.write, chunk)

    async def finish(self) -> None:
        """See `Target`."""
        with os_errors():
            await to_thread.run_sync(lambda: self._writer.close(whole=True))
            self._part.replace(self._path)

    async def discard(self) -> None:
        """See `Target`."""
        with os_errors():
            self._writer.close(whole=False)
            self._part.unlink(missing_ok=True)
