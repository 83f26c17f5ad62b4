"""Rows that no request waits for: collected, and written together by one task in the background.

What is not written when the process is killed is lost, so this is for the audit and for times of
last use, not for anything that was acknowledged.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import structlog

from registry.core.errors import RegistryError

T = TypeVar("T")

_BATCH = 500

log = structlog.get_logger()


class WriteBehind(Generic[T]):
    """A bounded queue and the task that empties it while there is something in it.

    The first item is written at once, what comes within `pause_s` after it in one more write, and
    so on: a burst costs few writes, and quiet times none.
    """

    def __init__(
        self,
        write: Callable[[Sequence[T]], Awaitable[None]],
        what: str,
        pause_s: float,
        capacity: int,
    ) -> None:
        self._write = write
        self._what = what
        self._pause_s = pause_s
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._lost = 0
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._lock = asyncio.Lock()

    def add(self, item: T) -> None:
        """Hand an item over; it is dropped, and the loss logged, if the queue is full."""
        if len(self._items) >= self._capacity:
            self._lost += 1
            return
        self._items.append(item)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def flush(self) -> None:
        """Return when everything handed over so far is written, or cannot be."""
        while await self._once():
            pass

    async def close(self) -> None:
        """Write what is left. Nothing may be added afterwards."""
        self._closing.set()
        if self._task is not None:
            await self._task
        await self.flush()

    async def _run(self) -> None:
        while self._items and not self._closing.is_set():
            await self._once()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._pause_s)

    async def _once(self) -> bool:
        """Write one batch; whether there was one. If it fails it stays in the queue."""
        async with self._lock:
            batch = [self._items.popleft() for _ in range(min(_BATCH, len(self._items)))]
            if not batch:
                return False
            try:
                await self._write(batch)
            except RegistryError as error:
                self._items.extendleft(reversed(batch))
                log.warning("not written yet", what=self._what, rows=len(batch), error=str(error))
                return False
        if self._lost:
            log.error("rows lost: the queue was full", what=self._what, rows=self._lost)
            self._lost = 0
        return True
