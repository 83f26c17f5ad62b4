"""Files without names: big things on their way that nobody can find, gone when they are closed."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

from registry.adapters.os_errors import os_errors
from registry.core.errors import StorageFull

_PIECE = 1 << 20


class Nameless:
    """Such a file: a `Sink` first, then an `Opened`. A context manager, which closes it."""

    def __init__(self, folder: Path, size: int = 0) -> None:
        """Make one that will have `size` bytes.

        Raises:
            StorageFull: there is no space for them.
        """
        if shutil.disk_usage(folder).free < size:
            raise StorageFull("no space left in the store")
        self._buffer = bytearray(_PIECE)
        with os_errors():
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - we close it

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

    # Sink

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

    # Opened

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


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
