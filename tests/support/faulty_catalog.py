"""A catalog that is another one, but for calls that go wrong."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from registry.ports.catalog import Catalog, Reader, Transaction
from tests.support.faults import Faults, of_database

T = TypeVar("T")


class FaultyCatalog:
    """`Catalog`. A write whose answer is lost is committed: the connection broke after COMMIT."""

    def __init__(self, real: Catalog, faults: Faults) -> None:
        self._real = real
        self._faults = faults

    def read(self, work: Callable[[Reader], T]) -> Awaitable[T]:
        """See `Catalog`."""
        return self._faults.run("catalog.read", lambda: self._real.read(work), of_database)

    def scan(self, work: Callable[[Reader], T]) -> Awaitable[T]:
        """See `Catalog`."""
        return self._faults.run("catalog.scan", lambda: self._real.scan(work), of_database)

    def write(self, work: Callable[[Transaction], T]) -> Awaitable[T]:
        """See `Catalog`."""
        return self._faults.run("catalog.write", lambda: self._real.write(work), of_database)

    def version(self) -> int:
        """See `Catalog`."""
        return self._faults.run_here("catalog.version", self._real.version, of_database)

    def now(self) -> int:
        """See `Catalog`."""
        return self._real.now()

    async def job_change(self, timeout_s: float) -> None:
        """See `Catalog`: it may miss changes anyway."""
        await self._real.job_change(timeout_s)

    async def check(self) -> None:
        """See `Catalog`."""
        await self._faults.run("catalog.check", self._real.check, of_database)

    async def close(self) -> None:
        """See `Catalog`."""
        await self._real.close()
