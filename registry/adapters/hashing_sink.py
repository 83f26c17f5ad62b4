"""A sink that keeps nothing: for bytes that may be those that are here already."""

import asyncio
import hashlib
import mmap

from registry.ports.blobs import Body, Incoming

_BUFFER = 1 << 20


class HashingSink:
    """Takes a body's bytes only to hash them, going on from `state` if there is one."""

    def __init__(self, state: "hashlib._Hash | None" = None) -> None:
        self._hasher = hashlib.sha256() if state is None else state.copy()
        self._buffer: memoryview | None = None

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Hash `data`."""
        await asyncio.to_thread(self._hasher.update, data)

    async def borrow(self) -> memoryview:
        """A page-aligned buffer of 1 MiB."""
        if self._buffer is None:
            self._buffer = memoryview(mmap.mmap(-1, _BUFFER))
        return self._buffer

    async def fill(self, size: int) -> None:
        """Hash what was put into the buffer."""
        await self.write((await self.borrow())[:size])

    def hexdigest(self) -> str:
        """The sha256 of everything so far."""
        return self._hasher.hexdigest()


async def is_same(body: Body, incoming: Incoming, start: int) -> bool:
    """Whether a body is what was written earlier, from `start` to the end."""
    said, kept = HashingSink(), HashingSink()
    await body.feed(said)
    for offset in range(start, incoming.size, _BUFFER):
        await kept.write(await incoming.read(offset, min(offset + _BUFFER, incoming.size)))
    return said.hexdigest() == kept.hexdigest()
