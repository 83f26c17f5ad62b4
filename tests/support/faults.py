"""Calls that go wrong: whoever wraps a port counts its calls here, and one of them fails.

`faulty_catalog.py` and `faulty_store.py` are the wrappers.
"""

import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from registry.core.errors import OperationFailed, RegistryError, StorageFull, Unavailable

T = TypeVar("T")

How = Literal["refused", "lost", "full", "slow", "left"]
"""`refused`: nothing happens but the error. `lost`: it happens, and yet there is the error. `full`:
nothing happens, because there is no room. `slow`: it takes a while, in which other things happen.
`left`: whoever waits for what is being done goes away during the call.
"""
PAUSE_S = 0.005

DATABASE = "the database cannot be reached"
DISK = "the store failed: Input/output error"
OBJECTS = "the object store does not answer"
FULL = "no space left in the store"


def of_database() -> RegistryError:
    """What a database that cannot be reached raises."""
    return Unavailable(DATABASE)


def of_disk() -> RegistryError:
    """What a folder raises whose disk is broken."""
    return OperationFailed(DISK)


def of_objects() -> RegistryError:
    """What an object store that cannot be reached raises."""
    return Unavailable(OBJECTS)


async def _nothing() -> None:
    """What happens meanwhile, unless said otherwise."""


@dataclass
class Faults:
    """Counts calls while armed; the one whose turn it is, the first being 1, goes wrong."""

    calls: list[str] = field(default_factory=list)
    fired: bool = False
    meanwhile: Callable[[], Awaitable[None]] = _nothing
    leave: Callable[[], object] = int
    _at: int = 0
    _how: How = "refused"
    _armed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arm(self, at: int, how: How) -> None:
        """Count from now on, and let the call number `at` go wrong; 0: none."""
        self.calls, self.fired, self._at, self._how, self._armed = [], False, at, how, True

    def disarm(self) -> None:
        """All goes well from now on."""
        self._armed = False

    @property
    def call(self) -> str:
        """The call that went wrong."""
        return self.calls[self._at - 1] if self.fired else "none"

    async def run(
        self, name: str, act: Callable[[], Awaitable[T]], error: Callable[[], RegistryError]
    ) -> T:
        """Do what a call does, or what goes wrong with it."""
        how = self.due(name)
        self.check_before(how, error)
        if how == "slow":
            await self.meanwhile()
        value = await act()
        if how == "lost":
            raise error()
        return value

    def run_here(self, name: str, act: Callable[[], T], error: Callable[[], RegistryError]) -> T:
        """The same for a call that blocks."""
        how = self.due(name)
        self.check_before(how, error)
        if how == "slow":
            time.sleep(PAUSE_S)
        value = act()
        if how == "lost":
            raise error()
        return value

    def due(self, name: str) -> How | None:
        """Count a call; how it goes wrong, if it does."""
        with self._lock:
            if not self._armed:
                return None
            self.calls.append(name)
            if len(self.calls) != self._at:
                return None
            self.fired = True
            return self._how

    def check_before(self, how: How | None, error: Callable[[], RegistryError]) -> None:
        """Raise what is raised instead of doing anything."""
        if how == "refused":
            raise error()
        if how == "full":
            raise StorageFull(FULL)
        if how == "left":
            self.leave()
