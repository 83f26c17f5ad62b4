"""What is done once a day: by one of all processes, and again if that one dies or fails."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from registry.adapters import migrate
from registry.adapters.catalog_sql import open_catalog, resolve
from registry.core.errors import RegistryError, StorageFull
from registry.ports.catalog import Reader
from registry.services.sharing.efforts import Pace, Process
from registry.services.sharing.sharing import Sharing
from registry.services.upkeep.daily import Daily

pytestmark = pytest.mark.anyio
HOUR_NS = 3_600 * 10**9


class Replica:
    """A process with two duties, the first of which waits for a word."""

    def __init__(self, sharing: Sharing) -> None:
        self.sharing = sharing
        self.done: list[str] = []
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.error: RegistryError | None = None
        self.daily = Daily(sharing, {"retention": self._retention, "look": self._look})

    async def _retention(self) -> None:
        self.begun.set()
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        self.done.append("retention")

    async def _look(self) -> None:
        self.done.append("look")


class World:
    """Processes over one database, and the time."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "registry.db"
        self.now = 100 * HOUR_NS
        self.gone: set[str] = set()

    @asynccontextmanager
    async def replica(self) -> AsyncIterator[Replica]:
        migrate.upgrade(resolve("", self.file))
        catalog = open_catalog("", self.file)
        own = Process(is_gone=self.gone.__contains__)
        sharing = Sharing(catalog, lambda: self.now, Pace(0.02, 60, 180), own)
        try:
            yield Replica(sharing)
        finally:
            await sharing.close()
            await catalog.close()

    async def asked(self, replica: Replica, count: int) -> None:
        """Wait until so many wait for the first duty."""

        def look(tx: Reader) -> int:
            job = tx.job_under_way("daily retention")
            return len(tx.askers(job.id)) if job else 0

        while await replica.sharing.catalog.read(look) < count:
            await asyncio.sleep(0.01)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_of_two_that_start_together_one_does_it(world: World) -> None:
    async with world.replica() as one, world.replica() as two:
        first = asyncio.create_task(one.daily.run())
        await one.begun.wait()
        second = asyncio.create_task(two.daily.run())
        await world.asked(two, 2)
        one.go_on.set()
        two.go_on.set()
        await asyncio.gather(first, second)
        assert one.done.count("retention") + two.done.count("retention") == 1


async def test_the_next_day_it_is_done_once(world: World) -> None:
    async with world.replica() as one, world.replica() as two:
        for each in (one, two):
            each.go_on.set()
            await each.daily.run()
        assert one.done == two.done == ["retention", "look"]  # each at its start
        world.now += 24 * HOUR_NS
        await one.daily.run()
        world.now += HOUR_NS
        await two.daily.run()
        assert (len(one.done), len(two.done)) == (4, 2)
        world.now += 24 * HOUR_NS  # the first one is no more
        await two.daily.run()
        assert len(two.done) == 4


async def test_what_a_process_that_died_began_another_one_does(world: World) -> None:
    async with world.replica() as one, world.replica() as two:
        first = asyncio.create_task(one.daily.run())
        await one.begun.wait()
        second = asyncio.create_task(two.daily.run())
        await world.asked(two, 2)
        two.go_on.set()
        world.gone.add(one.sharing.process)
        await second
        assert two.done == ["retention", "look"]
        one.go_on.set()
        await first


async def test_one_that_fails_keeps_no_other_from_being_done_and_is_done_again(
    world: World,
) -> None:
    async with world.replica() as one:
        one.go_on.set()
        one.error = StorageFull("no room")
        with pytest.raises(StorageFull, match="no room"):
            await one.daily.run()
        assert one.done == ["look"]
        one.error = None
        world.now += HOUR_NS
        await one.daily.run()
        assert one.done == ["look", "retention"]
