"""Shared work that tells events: all who ask hear the same, and it outlives its process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from registry.adapters import migrate
from registry.adapters.catalog_sql import open_catalog, resolve
from registry.core.errors import OperationFailed, RegistryError, StorageFull
from registry.core.events import Count, Done, Event, Events, Status
from registry.ports.jobs import Job
from registry.services.sharing.broadcast import Run, broadcast
from registry.services.sharing.efforts import Pace, Process, What
from registry.services.sharing.sharing import Sharing

pytestmark = pytest.mark.anyio

WHAT = What("gc", "gc", "what nothing needs")


class Tale:
    """Work that tells what it is handed, until it is handed Done or an error."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[Event | RegistryError] = asyncio.Queue()
        self.runs: list[Run] = []
        self.left_at: list[str] = []

    def tell(self, *events: Event | RegistryError) -> None:
        for event in events:
            self.lines.put_nowait(event)

    async def begin(self, run: Run) -> Events:
        self.runs.append(run)
        self.left_at.append(run.mark)
        while not isinstance(event := await self.lines.get(), Done):
            if isinstance(event, RegistryError):
                raise event
            yield event
        run.result = "well"


class Listener:
    """Who asks, and what it hears."""

    def __init__(self, place: Sharing, tale: Tale, subject: str = "") -> None:
        self.heard: list[Event] = []
        self.result = ""
        self.events = broadcast(place, WHAT, subject, tale.begin, self._take)
        self.task = asyncio.create_task(self._listen())

    def _take(self, result: str) -> None:
        self.result = result

    async def _listen(self) -> None:
        async for event in self.events:
            self.heard.append(event)

    async def hears(self, *events: Event) -> None:
        for _ in range(1000):
            if self.heard == list(events):
                return
            if self.task.done():
                await self.task
            await asyncio.sleep(0.01)
        raise AssertionError(self.heard)

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


@asynccontextmanager
async def process(folder: Path, gone: set[str]) -> AsyncIterator[Sharing]:
    """A process that nobody takes for dead but who knows it to be `gone`."""
    migrate.upgrade(resolve("", folder / "registry.db"))
    catalog = open_catalog("", folder / "registry.db")
    own = Process(is_gone=gone.__contains__)
    made = Sharing(catalog, pace=Pace(0.02, 60, 180), process=own)
    try:
        yield made
    finally:
        await made.close()
        await catalog.close()


@pytest.fixture
def gone() -> set[str]:
    return set()


@pytest.fixture
async def one(tmp_path: Path, gone: set[str]) -> AsyncIterator[Sharing]:
    async with process(tmp_path, gone) as made:
        yield made


@pytest.fixture
async def two(one: Sharing, tmp_path: Path, gone: set[str]) -> AsyncIterator[Sharing]:
    async with process(tmp_path, gone) as made:
        yield made


async def rows(place: Sharing) -> list[Job]:
    return await place.catalog.read(lambda tx: tx.jobs(9))


async def until(place: Sharing, state: str) -> Job:
    for _ in range(1000):
        found = await rows(place)
        if found and found[0].state == state:
            return found[0]
        await asyncio.sleep(0.01)
    raise AssertionError(found)


async def test_all_hear_the_same_and_the_result(one: Sharing, two: Sharing) -> None:
    tale, other = Tale(), Tale()
    first = Listener(one, tale, "ann")
    tale.tell(Status("collecting"))
    await first.hears(Status("collecting"))
    beside, elsewhere = Listener(one, other), Listener(two, other, "bob")
    for listener in (beside, elsewhere):
        await listener.hears(Status("collecting"))
    tale.tell(Count("uploads", 1, 5), Count("uploads", 2, 9), Done())
    every = (first, beside, elsewhere)
    await asyncio.gather(*(listener.task for listener in every))
    for listener in every:
        assert listener.heard == [Status("collecting"), Count("uploads", 2, 9), Done()]
        assert listener.result == "well"
    assert (len(tale.runs), len(other.runs)) == (1, 0)
    (job,) = await rows(one)
    assert (job.kind, job.title, job.subject, job.state) == ("gc", WHAT.title, "ann", "done")


async def test_bytes_are_the_jobs_progress(one: Sharing) -> None:
    tale = Tale()
    listener = Listener(one, tale)
    tale.tell(Status("a"))
    await listener.hears(Status("a"))
    tale.runs[0].done, tale.runs[0].total = 7, 0
    tale.tell(Done())
    await listener.task
    (job,) = await rows(one)
    assert (job.done, job.total) == (7, 7)


@pytest.mark.parametrize(
    ("error", "kind"), [(StorageFull("no room"), StorageFull), (OperationFailed("1 of 2"), None)]
)
async def test_before_a_failure_all_hear_what_was_told(
    one: Sharing, two: Sharing, error: RegistryError, kind: type[RegistryError] | None
) -> None:
    tale = Tale()
    tale.tell(Status("importing a"))
    listeners = [Listener(one, tale), Listener(two, tale)]
    for listener in listeners:
        await listener.hears(Status("importing a"))
    tale.tell(Status("left out a"), error)
    for listener in listeners:
        with pytest.raises(kind or OperationFailed, match=str(error)):
            await listener.task
        assert listener.heard == [Status("importing a"), Status("left out a")]
        assert listener.result == ""


async def test_it_ends_when_the_last_has_left(one: Sharing, two: Sharing) -> None:
    tale = Tale()
    first, second = Listener(one, tale), Listener(two, tale)
    tale.tell(Status("a"))
    for listener in (first, second):
        await listener.hears(Status("a"))
    await first.leave()
    tale.tell(Status("b"))
    await second.hears(Status("a"), Status("b"))
    await second.leave()
    assert (await until(one, "cancelled")).error == "nobody waited for it any longer"


async def test_a_survivor_begins_anew_where_it_was_left(
    one: Sharing, two: Sharing, gone: set[str]
) -> None:
    tale, other = Tale(), Tale()
    first = Listener(one, tale)
    tale.tell(Status("a"), Status("b"))
    await first.hears(Status("a"), Status("b"))
    tale.runs[0].mark = "half way"
    second = Listener(two, other)
    await second.hears(Status("a"), Status("b"))
    while "half way" not in (await rows(two))[0].note:
        await asyncio.sleep(0.01)
    gone.add(one.process)
    other.tell(Status("c"), Done())
    await second.hears(Status("a"), Status("b"), Status("c"), Done())
    assert (tale.left_at, other.left_at) == ([""], ["half way"])
    await first.leave()
