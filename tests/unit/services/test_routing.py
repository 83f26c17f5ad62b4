"""Which worker answers; what happens when it goes away; leases that are given back."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from registry.core.errors import Unavailable, WorkerLost
from registry.ports.workers import Running
from registry.services.routing import Router
from tests.support.fake_worker import FakeWorker, Script, spec_of

pytestmark = pytest.mark.anyio
SPEC = spec_of()


async def text(running: Running) -> AsyncGenerator[str, None]:
    async for piece in running.complete({"prompt": "hi"}):
        yield piece.content


def pair(script: Script) -> tuple[FakeWorker, FakeWorker]:
    """Two workers; the first plays the script and is asked first, for it has the model."""
    first, second = FakeWorker("first", script), FakeWorker("second")
    first.change(cached=frozenset(blob.digest for blob in SPEC.blobs))
    return first, second


def router_over(*workers: FakeWorker) -> Router:
    router = Router()
    for worker in workers:
        router.add(worker)
    return router


async def answer(router: Router, keep_alive_s: float | None = 300.0) -> str:
    return "".join([item async for item in router.stream(SPEC, keep_alive_s, text)])


async def test_an_answer_is_passed_on_and_the_lease_given_back() -> None:
    worker = FakeWorker()
    assert await answer(router_over(worker), 60.0) == "Hello"
    assert [lease.released for lease in worker.leases] == [[60.0]]


async def test_a_worker_that_has_the_model_loaded_is_preferred() -> None:
    first, second = FakeWorker("first"), FakeWorker("second")
    await (await second.acquire(SPEC)).release(None)
    await answer(router_over(first, second))
    assert first.leases == []


async def test_without_a_worker_it_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="no inference worker is connected") as caught:
        await answer(Router())
    assert caught.value.retry_after_s == 30


async def test_a_worker_lost_before_the_first_item_is_replaced() -> None:
    first, second = pair(Script(dies_at=0))
    assert await answer(router_over(first, second)) == "Hello"
    assert [lease.released for lease in first.leases + second.leases] == [[300.0], [300.0]]


async def test_a_worker_lost_in_mid_answer_is_told() -> None:
    first, second = pair(Script(dies_at=1))
    items = router_over(first, second).stream(SPEC, None, text)
    assert await anext(items) == "Hel"
    with pytest.raises(WorkerLost):
        await anext(items)
    assert second.leases == []
    assert first.leases[0].released == [None]


async def test_a_consumer_that_stops_gives_the_lease_back() -> None:
    worker = FakeWorker(script=Script(pause_s=0.01))
    items = router_over(worker).stream(SPEC, 5.0, text)
    assert await anext(items) == "Hel"
    await items.aclose()
    assert worker.leases[0].released == [5.0]


async def test_a_task_that_is_cancelled_gives_the_lease_back() -> None:
    worker = FakeWorker(script=Script(pause_s=30.0))
    router = router_over(worker)
    task = asyncio.create_task(answer(router))
    while not worker.leases:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await router.close()
    assert worker.leases[0].released == [300.0]


async def test_unloading_is_told_to_every_worker() -> None:
    workers = [FakeWorker("first"), FakeWorker("second")]
    await router_over(*workers).unload(SPEC.model.digest)
    assert [worker.unloaded for worker in workers] == [[SPEC.model.digest]] * 2
