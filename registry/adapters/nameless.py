"""Files of this machine beside the store: by a path, and without any name."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Self

from registry.adapters.fs_files import free_bytes
from registry.adapters.os_errors import os_errors
from registry.core.errors import StorageFull

_PIECE = 1 << 20


class LocalFile:
    """A file of this machine as an `Opened`. A context manager, which closes it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    @classmethod
    def opened(cls, path: Path) -> Self:
        """Open one for reading.

        Raises:
            OperationFailed: it cannot be.
        """
        with os_errors():
            return cls(path.open("rb"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return os.fstat(self._file.fileno()).st_size

    def fileno(self) -> int:
        """Its descriptor."""
        return self._file.fileno()

    async def read(self, start: int, stop: int) -> bytes:
        """See `Opened`."""
        with os_errors():
            return await asyncio.to_thread(os.pread, self.fileno(), stop - start, start)

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """See `Opened`."""
        for at in range(start, stop, _PIECE):
            yield await self.read(at, min(at + _PIECE, stop))

    async def close(self) -> None:
        """See `Opened`."""
        self._file.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class Nameless(LocalFile):
    """A big thing on its way that nobody can find, gone when it is closed. A `Sink` first."""

    def __init__(self, folder: Path, size: int = 0) -> None:
        """Make one that will have `size` bytes.

        Raises:
            StorageFull: there is no space for them.
        """
        if free_bytes(folder) < size:
            raise StorageFull("no space left in the store")
        self._buffer = bytearray(_PIECE)
        with os_errors():
            super().__init__(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - we close it

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """See `Sink`."""
        with os_errors():
            await asyncio.to_thread(_write_all, self.fileno(), memoryview(data))

    async def borrow(self) -> memoryview:
        """See `Sink`."""
        return memoryview(self._buffer)

    async def fill(self, size: int) -> None:
        """See `Sink`."""
        await self.write(memoryview(self._buffer)[:size])


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
