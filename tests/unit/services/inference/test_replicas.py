"""Processes of one library find one another, and say what they see of workers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.ports.fleet import Replica
from registry.services.inference.fleet import Fleet
from registry.services.inference.replicas import BEAT_S, Replicas
from registry.services.inference.routing import Router
from tests.support.fake_worker import FakeWorker, spec_of
from tests.support.library import Library, library

pytestmark = pytest.mark.anyio
NS = 10**9


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path) as made:
        yield made


def replica(lib: Library, url: str = "", router: Router | None = None) -> Replicas:
    return Replicas(lib.catalog, router or Router(), url, lib.clock)


async def rows(lib: Library) -> list[Replica]:
    return await lib.catalog.read(lambda tx: tx.replicas())


async def test_two_find_each_other_and_one_that_leaves_is_gone(lib: Library) -> None:
    one, two = replica(lib, "http://one"), replica(lib, "http://two")
    for item in (one, two, one):
        await item.look()
    assert one.ids() == [one.id, two.id]
    assert two.ids() == [two.id, one.id]
    assert one.url_of(two.id) == "http://two"
    assert (one.url_of("no"), one.url_of(one.id)) == ("", "")
    two.start()
    await two.close()
    await one.look()
    assert one.ids() == [one.id]


async def test_one_that_shows_no_sign_of_life_is_gone_whatever_its_clock_says(
    lib: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    one = replica(lib)
    skewed = Replica("skewed", "http://x", 1, lib.clock() + 3600 * NS, "[]")
    for passed, alive in ((0, True), (40, True), (60, False)):
        now = 1000.0 + passed
        await lib.catalog.write(lambda tx: tx.put_replica(skewed))
        await one.look()
        assert ("skewed" in one.ids()) is alive, passed


async def test_a_row_is_written_when_something_changed_and_now_and_then(
    lib: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    router, worker = Router(), FakeWorker("gpu")
    one = replica(lib, router=router)
    beats = []
    for change in (None, None, "worker", None, "loaded", "free", "wait"):
        if change == "worker":
            router.add(worker)
        if change == "loaded":
            await (await worker.acquire(spec_of())).release(None)
        if change == "free":
            worker.change(memory_free=5)
        if change == "wait":
            now += BEAT_S
        await one.look()
        beats.append((await rows(lib))[0].beat)
    assert beats == [1, 1, 2, 2, 3, 3, 4]
    (seen,) = await Fleet(lib.catalog, lib.clock).seen()
    assert (seen.replica, seen.state["name"], seen.state["reachable"]) == (one.id, "gpu", True)
    assert seen.state["running"] == [{"model": "tiny:latest", "slots": 1, "busy": 0}]
    later = lib.clock() + 60 * NS
    assert await Fleet(lib.catalog, lambda: later).seen() == []


async def test_rows_of_the_day_before_yesterday_are_forgotten(lib: Library) -> None:
    old = Replica("old", "", 1, lib.clock() - 2 * 86_400 * NS, "[]")
    await lib.catalog.write(lambda tx: tx.put_replica(old))
    await replica(lib).look()
    assert "old" not in {row.id for row in await rows(lib)}
