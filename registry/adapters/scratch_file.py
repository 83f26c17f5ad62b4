"""`Scratch` as files without names: whatever ends the process, the system takes them back."""

import asyncio
import os
import tempfile
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

from registry.adapters.os_errors import os_errors

_PIECE = 256 << 10


class ScratchFile:
    """`Scratch` in a folder."""

    def __init__(self, folder: Path) -> None:
        """Make it, empty.

        Raises:
            StorageFull, OperationFailed: it cannot be made.
        """
        with os_errors():
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def write(self, data: bytes) -> None:
        """See `Scratch`."""
        with os_errors():
            while data:  # a disk that fills up takes a part
                data = data[self._file.write(data) :]

    async def chunks(self) -> AsyncIterator[bytes]:
        """See `Scratch`."""
        offset = 0
        while piece := await asyncio.to_thread(self._read, offset):
            offset += len(piece)
            yield piece

    def _read(self, offset: int) -> bytes:
        with os_errors():
            return os.pread(self._file.fileno(), _PIECE, offset)
