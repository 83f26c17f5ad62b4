"""Clients that leave: what was made for them ends a few at a time.

A thousand may go in one moment, as when a proxy is stopped. Ending the work of one takes a fraction
of a millisecond, so others have their turn in between.
"""

import asyncio
from collections import deque
from collections.abc import Callable

_AT_ONCE = 8


class Farewells:
    """Calls that are due, in order, over the turns of an event loop."""

    def __init__(self) -> None:
        self._due: deque[Callable[[], None]] = deque()

    def add(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        """Call it soon."""
        self._due.append(call)
        if len(self._due) == 1:
            loop.call_soon(self._some, loop)

    def _some(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(min(_AT_ONCE, len(self._due))):
            self._due.popleft()()
        if self._due:
            loop.call_soon(self._some, loop)
