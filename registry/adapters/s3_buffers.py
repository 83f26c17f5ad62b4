"""Memory for bytes on their way into an object store: one budget for all transfers.

A part's bytes stay in memory until the store has them, so memory is what bounds how many transfers
go on at once. A part begins in a small piece of memory, out of a share for small ones, and moves
once to its full size: whoever has that needs no more to finish, so nobody waits in a circle. Who
has a full one and gets no bytes gives it up to who waits: the beginning goes to the store.
"""

import asyncio
import time
from collections import deque
from typing import Protocol

from registry.adapters.s3_sessions import Rest
from registry.core.multipart import FIRST_PART, Coverage, Part

SMALL = 256 << 10
_SMALL_BYTES = 32 << 20
_LARGE_BYTES = 128 << 20
_KEPT = 4  # freed buffers kept for the next part: fresh memory is cleared page by page
_LOOK_S = 0.25
_IDLE_S = 1.0


class Holder(Protocol):
    """Who has buffers and can do without them for a while."""

    def spare(self, now_s: float) -> None:
        """Give up buffers that got no bytes for a while."""


class Budget:
    """Bytes that may be out at once. The first who waits is the first who gets."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._left = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.holders: dict[Holder, None] = {}

    async def take(self, count: int) -> None:
        """Wait until `count` bytes are free; of more than there are, all."""
        count = min(count, self.size)
        if not self._waiting and count <= self._left:
            self._left -= count
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        try:
            while not turn.done():
                for holder in list(self.holders):
                    holder.spare(time.monotonic())
                await asyncio.wait({turn}, timeout=_LOOK_S)
        except asyncio.CancelledError:
            if turn.done():
                self.give(count)
            turn.cancel()
            raise

    def give(self, count: int) -> None:
        """Bytes that are free again."""
        self._left += min(count, self.size)
        while self._waiting:
            wanted, turn = self._waiting[0]
            if not turn.done():
                if wanted > self._left:
                    return
                self._left -= wanted
                turn.set_result(None)
            self._waiting.popleft()


class Memory:
    """The two budgets, and buffers to be used again."""

    def __init__(self, large_bytes: int = _LARGE_BYTES, small_bytes: int = _SMALL_BYTES) -> None:
        self.small = Budget(small_bytes)
        self.large = Budget(large_bytes)
        self._free: list[bytearray] = []

    async def acquire(self, size: int) -> bytearray:
        """A buffer of exactly so many bytes, of any contents."""
        if size == SMALL:
            await self.small.take(size)
            return bytearray(size)
        await self.large.take(size)
        if self._free and size == FIRST_PART:
            return self._free.pop()
        return bytearray(size)

    def release(self, buffer: bytearray) -> None:
        """Take a buffer back."""
        if len(buffer) == SMALL:
            self.small.give(SMALL)
            return
        self.large.give(len(buffer))
        if len(buffer) == FIRST_PART and len(self._free) < _KEPT:
            self._free.append(buffer)


class PartBuffer:
    """A part that is not full yet. Its bytes are in `data`, or their beginning elsewhere."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.data: bytearray | None = None
        self.coverage = Coverage()
        self.rest: Rest | None = None  # an object with the beginning
        self.head = b""  # the beginning, where no object has it
        self.lock = asyncio.Lock()  # memory comes and goes under it
        self.is_lent = False  # somebody is about to write into it
        self.used_s = time.monotonic()

    @property
    def end(self) -> int:
        """Where the bytes end that are there without a gap."""
        return self.coverage.reach(self.part.start)

    @property
    def is_full(self) -> bool:
        """Whether every byte of the part is there."""
        return self.end == self.part.stop

    @property
    def is_whole(self) -> bool:
        """Whether the bytes are there without a gap: the beginning says all."""
        return len(self.coverage.ranges) <= 1 and self.end > self.part.start

    def is_idle(self, now_s: float) -> bool:
        """Whether its memory can be had: no byte came for a while, and there is no gap."""
        return self.is_whole and not self.is_lent and now_s - self.used_s >= _IDLE_S

    def view(self) -> memoryview:
        """The bytes of the beginning, in memory."""
        assert self.data is not None
        return memoryview(self.data)[: self.end - self.part.start]
