"""Shared work: of equal work one piece is done, in one of two processes, as long as one waits."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from registry.core.digest import Digest
from registry.core.errors import (
    Conflict,
    NotFound,
    OperationFailed,
    RegistryError,
    StorageFull,
    Unavailable,
)
from registry.ports.catalog import Catalog, Transaction
from registry.ports.jobs import Job
from registry.services.sharing import efforts
from registry.services.sharing.efforts import Asking, Effort, Pace, Progress, What
from registry.services.sharing.job_desk import JobDesk
from registry.services.sharing.sharing import Share, Sharing
from tests.support.backends import BACKENDS

pytestmark = pytest.mark.anyio

WHAT = What("convert", "convert a", "a")
PACE = Pace(beat_s=0.02, dead_s=0.4, closed_s=1.0)


class Task:
    """Work that goes on until it is told to end, and counts how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.stopped = 0
        self.go_on = asyncio.Event()
        self.progress = Progress(0, 10)
        self.error: RegistryError | None = None

    async def __call__(self, effort: Effort) -> str:
        self.begun += 1
        effort.look = lambda: self.progress
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        if self.error is not None:
            raise self.error
        return "made"


class Process:
    """A process that shares work, over the database of others."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.sharing = Sharing(catalog, lambda: 7, PACE)
        self.desk = JobDesk(self.sharing)
        self.task = Task()

    def join(self, holder: str = "h", subject: str = "") -> AsyncIterator[Share]:
        return self.sharing.join(WHAT, Asking(holder, subject, "m"), self.task)  # type: ignore[return-value]

    async def die(self) -> None:
        """End as by kill -9: nothing is told to the database."""
        keeper = self.sharing._keeper
        assert keeper is not None
        keeper.cancel()


@asynccontextmanager
async def process(folder: Path) -> AsyncIterator[Process]:
    catalog = BACKENDS.catalog(folder)
    made = Process(catalog)
    try:
        yield made
    finally:
        await made.sharing.close()
        await catalog.close()


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Process]:
    async with process(tmp_path) as made:
        yield made


@pytest.fixture
async def two(one: Process, tmp_path: Path) -> AsyncIterator[Process]:
    async with process(tmp_path) as made:
        yield made


async def result(share: Share) -> str:
    while (found := await share.wait(1)) is None:
        pass
    return found


async def rows(place: Process) -> list[Job]:
    return await place.catalog.read(lambda tx: tx.jobs(9))


async def until(place: Process, state: str) -> Job:
    for _ in range(500):
        found = await rows(place)
        if found and found[0].state == state:
            return found[0]
        await asyncio.sleep(0.01)
    raise AssertionError(found)


async def test_work_is_done_for_who_asks(one: Process) -> None:
    one.task.go_on.set()
    async with one.sharing.join(WHAT, Asking("h", "ann", "m"), one.task) as share:
        assert await result(share) == "made"
        assert share.mine
    (job,) = await rows(one)
    assert (job.kind, job.title, job.model, job.subject) == ("convert", "a", "m", "ann")
    assert (job.state, job.done, job.total, job.finished_at) == ("done", 10, 10, 7)
    assert await one.catalog.read(lambda tx: tx.asking_from(one.sharing.process)) == []


async def test_two_of_one_process_share_it(one: Process) -> None:
    other = Task()
    async with (
        one.sharing.join(WHAT, Asking("h"), one.task) as first,
        one.sharing.join(WHAT, Asking("i"), other) as second,
    ):
        assert await first.wait(0.01) is None
        one.task.go_on.set()
        assert [await result(first), await result(second)] == ["made", "made"]
        assert (first.mine, second.mine) == (True, False)
    assert (one.task.begun, other.begun) == (1, 0)
    assert len(await rows(one)) == 1


async def test_two_processes_share_it_and_both_see_how_far_it_is(
    one: Process, two: Process
) -> None:
    async with (
        one.sharing.join(WHAT, Asking("h"), one.task) as first,
        two.sharing.join(WHAT, Asking("i"), two.task) as second,
    ):
        one.task.progress = Progress(4, 10, "F16")
        while second.progress.done != 4:
            assert await second.wait(0.1) is None
        assert first.progress == second.progress == Progress(4, 10, "F16")
        one.task.progress = Progress(2, 10, "F16", queued=True)
        while not second.progress.queued:
            assert await second.wait(0.1) is None
        assert (first.progress.done, second.progress.done) == (4, 4)  # neither falls back
        one.task.go_on.set()
        assert await result(second) == "made"
        assert not second.mine
    assert (one.task.begun, two.task.begun) == (1, 0)


async def test_the_work_goes_on_when_its_own_asker_leaves_and_another_waits(
    one: Process, two: Process
) -> None:
    async with two.sharing.join(WHAT, Asking("never"), Task()):
        pass
    async with AsyncExitStack() as stack:
        async with one.sharing.join(WHAT, Asking("h"), one.task):
            second = await stack.enter_async_context(two.sharing.join(WHAT, Asking("i"), two.task))
        assert await second.wait(0.1) is None
        one.task.go_on.set()
        assert await result(second) == "made"
    assert (one.task.stopped, two.task.begun) == (0, 0)


async def test_the_last_to_leave_stops_it_wherever_it_is_done(one: Process, two: Process) -> None:
    async with AsyncExitStack() as stack:
        second = two.sharing.join(WHAT, Asking("i"), two.task)
        async with one.sharing.join(WHAT, Asking("h"), one.task):
            await stack.enter_async_context(second)
    job = await until(one, "cancelled")
    assert job.error == "nobody waited for it any longer"
    while not one.task.stopped:
        await asyncio.sleep(0.01)


async def test_whoever_comes_then_begins_anew(one: Process) -> None:
    async with one.sharing.join(WHAT, Asking("h"), one.task):
        await asyncio.sleep(0.05)
    one.task.go_on.set()
    async with one.sharing.join(WHAT, Asking("h"), one.task) as share:
        assert await result(share) == "made"
    assert [job.state for job in await rows(one)].count("cancelled") == 1


@pytest.mark.parametrize(
    ("error", "seen"),
    [(StorageFull("no space"), StorageFull), (Conflict("odd"), OperationFailed)],
)
async def test_a_failure_is_told_to_all(
    one: Process, two: Process, error: RegistryError, seen: type[Exception]
) -> None:
    one.task.error = error
    async with (
        one.sharing.join(WHAT, Asking("h"), one.task) as first,
        two.sharing.join(WHAT, Asking("i"), two.task) as second,
    ):
        one.task.go_on.set()
        with pytest.raises(type(error), match=str(error)):
            await result(first)
        with pytest.raises(seen, match=str(error)):
            await result(second)
    (job,) = await rows(one)
    assert (job.state, job.error) == ("failed", str(error))


async def test_the_work_of_a_dead_process_is_taken_over_by_one_that_waits(
    one: Process, two: Process
) -> None:
    two.task.go_on.set()
    async with (
        one.sharing.join(WHAT, Asking("h"), one.task),
        two.sharing.join(WHAT, Asking("i"), two.task) as second,
    ):
        await asyncio.sleep(0.1)
        await one.die()
        assert await result(second) == "made"
        assert second.mine
    assert (await rows(one))[0].state == "done"


async def test_a_process_that_only_seemed_dead_lets_go(one: Process, two: Process) -> None:
    async with (
        one.sharing.join(WHAT, Asking("h"), one.task) as first,
        two.sharing.join(WHAT, Asking("i"), two.task) as second,
    ):
        await one.die()
        while not two.task.begun:
            assert await second.wait(0.05) is None
        await one.sharing.beat()
        assert one.task.stopped == 1
        assert await first.wait(0.05) is None
        two.task.go_on.set()
        assert [await result(first), await result(second)] == ["made", "made"]
        assert not first.mine


async def test_a_process_that_ends_hands_over_at_once(one: Process, two: Process) -> None:
    two.task.go_on.set()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(one.sharing.join(WHAT, Asking("h"), one.task))
        second = await stack.enter_async_context(two.sharing.join(WHAT, Asking("i"), two.task))
        await one.sharing.close()
        with pytest.raises(OperationFailed, match="was stopped"):
            await result(first)
        assert await result(second) == "made"


async def test_what_nobody_else_waits_for_is_closed_when_the_process_ends(
    one: Process, two: Process
) -> None:
    async with one.sharing.join(WHAT, Asking("h"), one.task):
        await one.sharing.close()
        assert (await until(two, "cancelled")).error.startswith("the server that did this")


async def test_a_job_of_a_dead_process_that_nobody_waits_for_is_closed(
    one: Process, two: Process
) -> None:
    watching = asyncio.create_task(two.desk.watch())
    async with one.sharing.join(WHAT, Asking("h"), one.task):
        await asyncio.sleep(1.5)
        assert (await rows(two))[0].state == "running"  # it lives
        await one.die()
        assert (await until(two, "failed")).error.startswith("the server that did this went away")
    watching.cancel()


async def test_askers_of_a_dead_process_do_not_keep_work_going(one: Process, two: Process) -> None:
    async with AsyncExitStack() as stack:
        async with one.sharing.join(WHAT, Asking("h"), one.task):
            await stack.enter_async_context(two.sharing.join(WHAT, Asking("i"), two.task))
            await asyncio.sleep(0.1)
            await two.die()
        await until(one, "cancelled")
        assert one.task.stopped == 1


async def test_an_asker_that_is_cancelled_while_it_comes_leaves_nothing(one: Process) -> None:
    for turn in range(5):

        async def come() -> None:
            async with one.sharing.join(WHAT, Asking("h"), one.task):
                await asyncio.sleep(9)

        coming = asyncio.create_task(come())
        for _ in range(turn):
            await asyncio.sleep(0)
        coming.cancel()
        await asyncio.wait({coming})
    assert {job.state for job in await rows(one)} <= {"cancelled"}
    assert await one.catalog.read(lambda tx: tx.asking_from(one.sharing.process)) == []


async def test_blobs_that_go_in_are_kept_for_who_asks(one: Process) -> None:
    digest = Digest.of(b"weights")
    await one.catalog.write(lambda tx: tx.put_blob(digest, 7, "k", 1))

    def is_here(tx: Transaction) -> bool:
        tx.free([digest], 9)
        return tx.blob(digest) is not None

    async with one.sharing.join(WHAT, Asking("h", needs=[digest]), one.task):
        assert await one.catalog.write(is_here)
    await one.catalog.write(lambda tx: tx.release("h"))
    assert not await one.catalog.write(is_here)


async def test_a_result_is_made_visible_with_the_end_of_the_job(one: Process) -> None:
    holders: list[str] = []

    async def work(effort: Effort) -> str:
        await one.task.go_on.wait()
        holders.extend(await one.catalog.write(lambda tx: effort.conclude(tx, "there")))
        return "there"

    async with (
        one.sharing.join(WHAT, Asking("h"), work) as first,
        one.sharing.join(WHAT, Asking("i"), one.task) as second,
    ):
        one.task.go_on.set()
        assert [await result(first), await result(second)] == ["there", "there"]
    assert holders == ["h", "i"]
    assert (await rows(one))[0].result == "there"


class TestDesk:
    async def test_jobs_are_seen_by_those_they_concern(self, one: Process, two: Process) -> None:
        async with one.sharing.join(WHAT, Asking("h", "ann"), one.task):
            async with two.sharing.join(WHAT, Asking("i", "bob"), two.task):
                one.task.progress = Progress(3, 10)
                for subject in ("ann", "bob", None):
                    (job,) = await one.desk.jobs(9, subject)
                    assert job.done == 3
                    assert (await one.desk.job(job.id, subject)).title == "a"
                assert await one.desk.jobs(9, "eve") == []
                with pytest.raises(NotFound):
                    await one.desk.job(job.id, "eve")
                with pytest.raises(NotFound):
                    await one.desk.cancel(job.id, "eve", "eve")
            with pytest.raises(NotFound):
                await one.desk.job("none")

    @pytest.mark.parametrize("at", [0, 1])
    async def test_cancelling_ends_it_for_all(self, one: Process, two: Process, at: int) -> None:
        async with (
            one.sharing.join(WHAT, Asking("h", "ann"), one.task) as first,
            two.sharing.join(WHAT, Asking("i", "bob"), two.task) as second,
        ):
            (job,) = await one.desk.jobs(9)
            await (one, two)[at].desk.cancel(job.id, "root")
            for share in (first, second):
                with pytest.raises(OperationFailed, match="cancelled by root"):
                    await result(share)
            assert one.task.stopped == 1
            with pytest.raises(Conflict, match="over: cancelled"):
                await one.desk.cancel(job.id, "root")

    async def test_one_of_two_accounts_takes_back_its_own(self, one: Process, two: Process) -> None:
        async with (
            one.sharing.join(WHAT, Asking("h", "ann"), one.task) as first,
            two.sharing.join(WHAT, Asking("i", "bob"), two.task) as second,
        ):
            (job,) = await one.desk.jobs(9)
            await two.desk.cancel(job.id, "ann", "ann")
            with pytest.raises(OperationFailed, match="cancelled"):
                await result(first)
            one.task.go_on.set()
            assert await result(second) == "made"

    async def test_old_jobs_are_forgotten(self, one: Process) -> None:
        one.task.go_on.set()
        async with one.sharing.join(WHAT, Asking("h"), one.task) as share:
            await result(share)
        one.sharing.clock = lambda: 2 * 86_400 * 10**9
        await one.desk.trim()
        assert await rows(one) == []


class Unsteady:
    """A catalog that cannot be reached for a while."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.is_away = False

    def __getattr__(self, name: str) -> object:
        if self.is_away:
            raise Unavailable("the database cannot be reached")
        return getattr(self._catalog, name)


async def test_a_database_that_is_away_for_a_while_costs_nobody_anything(
    one: Process, two: Process
) -> None:
    unsteady = [Unsteady(place.catalog) for place in (one, two)]
    for place, catalog in zip((one, two), unsteady, strict=True):
        place.sharing.catalog = catalog  # type: ignore[assignment]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(one.sharing.join(WHAT, Asking("h"), one.task))
        second = await stack.enter_async_context(two.sharing.join(WHAT, Asking("i"), two.task))
        for catalog in unsteady:
            catalog.is_away = True
        assert await second.wait(0.1) is None
        assert await second.wait(0.1) is None
        for catalog in unsteady:
            catalog.is_away = False
        one.task.go_on.set()
        assert await result(second) == "made"
    assert two.task.begun == 0


async def test_who_leaves_while_the_database_is_away_is_taken_off_later(one: Process) -> None:
    unsteady = Unsteady(one.catalog)
    one.sharing.catalog = unsteady  # type: ignore[assignment]
    async with one.sharing.join(WHAT, Asking("h"), one.task):
        await asyncio.sleep(0.05)
        unsteady.is_away = True
    assert one.task.stopped == 1
    unsteady.is_away = False
    job = await until(one, "cancelled")
    assert replace(job, beat=0, state="running", finished_at=0, error="").owner


class TestOwnersThatAreGone:
    """Of a process of the same machine it is known at once that it has ended."""

    @pytest.fixture
    async def survivor(self, one: Process, tmp_path: Path) -> AsyncIterator[Process]:
        async with process(tmp_path) as made:
            known = efforts.Process(is_gone=lambda name: name == one.sharing.process)
            pace = Pace(beat_s=0.02, dead_s=60, closed_s=60)
            made.sharing = Sharing(made.catalog, lambda: 7, pace, known)
            made.desk = JobDesk(made.sharing)
            yield made

    async def test_their_work_is_taken_over_at_once(self, one: Process, survivor: Process) -> None:
        survivor.task.go_on.set()
        async with one.sharing.join(WHAT, Asking("h"), one.task):
            await one.die()
            async with survivor.sharing.join(WHAT, Asking("i"), survivor.task) as share:
                watching = asyncio.create_task(survivor.desk.watch())
                async with asyncio.timeout(5):
                    assert await result(share) == "made"
                watching.cancel()

    async def test_their_rows_are_closed_at_once(self, one: Process, survivor: Process) -> None:
        async with one.sharing.join(WHAT, Asking("h"), one.task):
            await one.die()
            watching = asyncio.create_task(survivor.desk.watch())
            assert "went away" in (await until(survivor, "failed")).error
            watching.cancel()


async def test_work_that_puts_things_away_is_not_broken_into(one: Process) -> None:
    put_away = asyncio.Event()

    async def work(effort: Effort) -> str:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.3)  # several beats, each of which sees the job cancelled
            put_away.set()
        return ""

    async with one.sharing.join(WHAT, Asking("h"), work) as share:
        await asyncio.sleep(0.05)
        await one.desk.cancel(share.job.id, "root")
    assert put_away.is_set()


class Crowd:
    """Askers at several processes, for work of three kinds that fails now and then."""

    def __init__(self, seed: int, places: list[Process]) -> None:
        self.dice = random.Random(seed)
        self.places = places
        self.outcomes: Counter[str] = Counter()

    async def work(self, effort: Effort) -> str:
        await asyncio.sleep(self.dice.random() / 5)
        if self.dice.random() < 0.2:
            raise StorageFull("no space")
        await self.places[0].catalog.write(lambda tx: effort.conclude(tx, "made"))
        return "made"

    async def ask(self, number: int) -> None:
        for turn in range(12):
            try:
                await self.ask_once(Asking(f"holder {number} {turn}"))
            except RegistryError as error:
                self.outcomes[type(error).__name__] += 1

    async def ask_once(self, asking: Asking) -> None:
        place = self.dice.choice(self.places)
        what = What("convert", f"key {self.dice.randrange(3)}", "a")
        async with place.sharing.join(what, asking, self.work) as share:
            if self.dice.random() < 0.1:
                await place.desk.cancel(share.job.id, "root")
            if self.dice.random() < 0.7:
                self.outcomes[await result(share)] += 1


@pytest.mark.parametrize("seed", range(3))
async def test_many_come_and_go_and_nothing_stays_under_way(tmp_path: Path, seed: int) -> None:
    """Four processes, of which one dies and one ends; askers that leave, and some that cancel."""
    async with AsyncExitStack() as stack:
        places = [await stack.enter_async_context(process(tmp_path)) for _ in range(4)]
        crowd = Crowd(seed, places)
        watching = [asyncio.create_task(place.desk.watch()) for place in places[2:]]
        async with asyncio.timeout(60):
            asking = [asyncio.create_task(crowd.ask(number)) for number in range(8)]
            await asyncio.sleep(0.5)
            await places[0].die()
            await places[1].sharing.close()
            await asyncio.gather(*asking)
            while await rows_under_way(places[3]):
                await asyncio.sleep(0.05)
        for task in watching:
            task.cancel()
    assert crowd.outcomes["made"] > 10, crowd.outcomes
    assert set(crowd.outcomes) <= {"made", "StorageFull", "OperationFailed", "Conflict"}


async def rows_under_way(place: Process) -> list[Job]:
    return await place.catalog.read(lambda tx: tx.jobs_under_way())
