"""Which worker answers; what happens when it goes away; leases that are given back."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest
from prometheus_client import generate_latest

from registry.core.errors import CannotRun, RequestInvalid, Unavailable, WorkerLost
from registry.core.placement import Placement
from registry.ports.workers import Crash, Dialect, LoadSpec, Running
from registry.services.inference import choosing, routing
from registry.services.inference.metering import Meter, Use
from registry.services.inference.routing import Router
from registry.services.inference.waiting import Errand, QueueLimits
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


class Crowd:
    """Requests that run at once, each in a task; what became of them."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.tasks: list[asyncio.Task[str]] = []

    def ask(self, count: int = 1, name: str = "tiny", errand: Errand | None = None) -> None:
        for _ in range(count):
            self.tasks.append(asyncio.create_task(self._one(name, errand or Errand())))

    async def _one(self, name: str, errand: Errand) -> str:
        items = self.router.stream(spec_of(name), None, text, errand)
        return "".join([item async for item in items])

    async def results(self) -> list[str | BaseException]:
        return await asyncio.gather(*self.tasks, return_exceptions=True)


async def settle(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def leased(worker: FakeWorker, count: int) -> bool:
    return len(worker.leases) == count


async def test_requests_for_one_runner_are_served_in_the_order_they_came() -> None:
    worker = FakeWorker(script=Script(pause_s=0.002))
    crowd = Crowd(router_over(worker))
    crowd.ask(10)
    assert await crowd.results() == ["Hello"] * 10
    assert crowd.router.waiting == 0
    assert not crowd.router.is_used("fake")


async def test_no_more_than_one_request_is_sent_ahead_to_a_busy_runner() -> None:
    worker = FakeWorker(script=Script(pause_s=30))
    crowd = Crowd(router_over(worker))
    crowd.ask(10)
    await settle(lambda: worker.acquires == 2)
    await asyncio.sleep(0.02)
    assert worker.acquires == 2
    assert crowd.router.waiting == 8
    for task in crowd.tasks:
        task.cancel()
    await crowd.results()
    assert crowd.router.waiting == 0
    assert not crowd.router.is_used("fake")


@pytest.mark.parametrize("limits", [QueueLimits(total=2), QueueLimits(per_model=2)])
async def test_a_full_queue_is_told_in_the_real_servers_words(limits: QueueLimits) -> None:
    worker = FakeWorker(script=Script(pause_s=30))
    router = Router(limits)
    router.add(worker)
    crowd = Crowd(router)
    crowd.ask()
    await settle(lambda: worker.leases)
    crowd.ask(3)
    await settle(lambda: router.waiting == 2)
    with pytest.raises(Unavailable) as caught:
        await answer(router)
    assert str(caught.value) == (
        "server busy, please try again.  maximum pending requests exceeded"
    )
    assert caught.value.retry_after_s == 5
    crowd.tasks[-1].cancel()
    await settle(lambda: router.waiting == 1)
    crowd.ask()
    await settle(lambda: router.waiting == 2)
    for task in crowd.tasks:
        task.cancel()
    await crowd.results()


async def test_the_wait_has_an_end() -> None:
    worker = FakeWorker(script=Script(pause_s=30))
    router = Router(QueueLimits(wait_s=0.05))
    router.add(worker)
    crowd = Crowd(router)
    crowd.ask(3)
    await settle(lambda: crowd.tasks[2].done())
    assert isinstance(crowd.tasks[2].exception(), Unavailable)
    assert router.waiting == 0
    for task in crowd.tasks:
        task.cancel()
    await crowd.results()


async def test_a_worker_that_has_no_time_is_asked_again_and_others_before_it() -> None:
    first, second = pair(Script(refusal=Unavailable("busy", 3)))
    router = router_over(first, second)
    assert await answer(router) == "Hello"
    assert (first.acquires, len(second.leases)) == (1, 1)
    alone = FakeWorker("alone", Script(refusal=Unavailable("busy", 3)))
    router = router_over(alone)
    task = asyncio.create_task(answer(router))
    await settle(lambda: alone.acquires == 1)
    alone.script.refusal = None
    assert await task == "Hello"


async def test_a_worker_that_cannot_run_the_model_is_not_asked_again() -> None:
    first, second = pair(Script(refusal=CannotRun("unknown model architecture: 'x'")))
    router = router_over(first, second)
    assert [await answer(router) for _ in range(3)] == ["Hello"] * 3
    assert first.acquires == 1
    router.remove("second")
    with pytest.raises(CannotRun, match="unknown model architecture: 'x'"):
        await answer(router)
    assert first.acquires == 1


async def test_an_error_of_the_runner_is_not_tried_elsewhere() -> None:
    first, second = pair(Script(complaint=RequestInvalid("exceeds the context")))
    with pytest.raises(RequestInvalid, match="exceeds the context"):
        await answer(router_over(first, second))
    assert second.acquires == 0
    assert first.leases[0].released == [300.0]


async def test_three_workers_are_tried_and_not_a_fourth() -> None:
    workers = [FakeWorker(name, Script(dies_at=0)) for name in "abcd"]
    with pytest.raises(WorkerLost):
        await answer(router_over(*workers))
    assert sum(worker.acquires for worker in workers) == 3


async def test_a_worker_lost_while_loading_is_replaced() -> None:
    first, second = pair(Script(load_s=30))
    router = router_over(first, second)
    task = asyncio.create_task(answer(router))
    await settle(lambda: first.acquires)
    first.die()
    assert await task == "Hello"
    assert len(second.leases) == 1


async def test_requests_queued_at_a_worker_that_is_lost_go_to_another() -> None:
    first, second = pair(Script(pause_s=30))
    crowd = Crowd(router_over(first))
    crowd.ask(8)
    await settle(lambda: len(first.leases) == 1 and crowd.router.waiting == 6)
    crowd.router.add(second)
    first.change(reachable=False)
    first.die()
    assert await crowd.results() == ["Hello"] * 8


async def test_when_the_last_worker_goes_those_who_wait_are_told() -> None:
    worker = FakeWorker(script=Script(pause_s=30))
    crowd = Crowd(router_over(worker))
    crowd.ask(4)
    await settle(lambda: worker.acquires == 2)
    crowd.router.remove("fake")
    worker.die()
    kinds = [type(item) for item in await crowd.results()]
    assert kinds == [WorkerLost, WorkerLost, Unavailable, Unavailable]


async def test_a_model_that_crashes_everywhere_rests() -> None:
    router = router_over(FakeWorker("a"), FakeWorker("b"))
    for worker in "aba":
        assert await answer(router) == "Hello"
        router.crashed(worker, Crash(SPEC.model.digest, "tiny", "GGML_ASSERT"))
    with pytest.raises(CannotRun, match=r"3 times within ten minutes.*GGML_ASSERT"):
        await answer(router)
    assert await anext(router.stream(spec_of("other"), None, text)) == "Hel"


async def test_a_worker_that_is_lost_does_not_speak_against_the_model() -> None:
    worker = FakeWorker(script=Script(dies_at=0))
    router = router_over(worker)
    for _ in range(4):
        with pytest.raises(WorkerLost):
            await answer(router)
        worker.revive()
    assert router.quarantine.models() == ()


class Phoenix(FakeWorker):
    """A worker whose runner dies at the first piece, and comes anew, so often."""

    deaths = 1

    async def acquire(self, spec: LoadSpec) -> Running:
        if self._dead.is_set():
            self.deaths -= 1
            self.revive()
        self.script.dies_at = 0 if self.deaths else None
        return await super().acquire(spec)


async def test_the_only_worker_gets_a_second_chance_with_a_fresh_runner() -> None:
    worker = Phoenix()
    assert await answer(router_over(worker)) == "Hello"
    assert worker.acquires == 2
    worker = Phoenix()
    worker.deaths = 2
    with pytest.raises(WorkerLost, match="model runner has unexpectedly stopped"):
        await answer(router_over(worker))
    assert worker.acquires == 2


async def test_so_does_the_only_one_of_several_that_can_run_the_model() -> None:
    worker, other = Phoenix("able"), FakeWorker("other", Script(refusal=CannotRun("no")))
    other.change(cached=frozenset(blob.digest for blob in SPEC.blobs))
    assert await answer(router_over(worker, other)) == "Hello"
    assert (worker.acquires, other.acquires) == (2, 1)


async def test_two_libraries_share_a_worker_that_arbitrates() -> None:
    worker = FakeWorker(script=Script(pause_s=0.002), slots=2)
    crowds = [Crowd(router_over(worker)), Crowd(router_over(worker))]
    for crowd in crowds:
        crowd.ask(20)
    for crowd in crowds:
        assert await crowd.results() == ["Hello"] * 20
    assert all(lease.released == [None] for lease in worker.leases)


async def test_a_model_that_others_crowd_out_gets_room_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choosing, "PATIENCE_S", 0.05)
    monkeypatch.setattr(routing, "_LOOK_S", 0.01)
    worker = FakeWorker(script=Script(pause_s=0.005), memory=1500)
    crowd = Crowd(router_over(worker))
    crowd.ask(5)
    await settle(lambda: worker.leases)
    crowd.ask(1, "other")
    late = crowd.tasks[-1]
    await asyncio.sleep(0)
    crowd.ask(40)
    assert await late == "Hello"
    assert sum(task.done() for task in crowd.tasks) < 30
    assert await crowd.results() == ["Hello"] * 46


async def test_a_long_queue_gets_the_model_a_second_worker() -> None:
    first, second = pair(Script(pause_s=0.02))
    second.script.pause_s = 0.02
    crowd = Crowd(router_over(first, second))
    crowd.router._standing.took(SPEC.key, 5.0)
    crowd.ask(12)
    assert await crowd.results() == ["Hello"] * 12
    assert first.leases
    assert second.leases


async def test_labels_place_a_model() -> None:
    plain, gpu = FakeWorker("plain"), FakeWorker("gpu")
    gpu.change(labels=frozenset({"gpu"}))
    router = router_over(plain, gpu)
    router.place({SPEC.name: Placement(frozenset({"gpu"}))})
    await answer(router)
    assert (plain.acquires, gpu.acquires) == (0, 1)
    router.remove("gpu")
    with pytest.raises(Unavailable, match="no worker has what this model is placed on: gpu"):
        await answer(router)


async def test_a_pinned_model_stays_and_is_loaded_as_pinned() -> None:
    worker = FakeWorker()
    router = router_over(worker)
    router.place({SPEC.name: Placement(pinned=True)})
    assert await router.warm(SPEC, 60.0) == "fake"
    assert worker.leases[0].released == [None]
    assert worker.leases[0].spec.pinned


async def test_a_drained_worker_gets_nothing_new() -> None:
    first, second = pair(Script())
    router = router_over(first, second)
    router.drain(["first"])
    await answer(router)
    assert first.acquires == 0
    assert router.is_draining("first")
    router.drain(["first", "second"])
    with pytest.raises(Unavailable, match="no worker takes requests"):
        await answer(router)
    router.drain(["second"])
    await answer(router)
    assert (first.acquires, second.acquires) == (1, 1)


async def test_a_request_goes_to_workers_that_can_be_asked_in_its_way() -> None:
    fixed = FakeWorker("fixed", dialect=Dialect.OPENAI)
    fixed.change(models=frozenset({str(SPEC.name)}))
    router = router_over(fixed)
    crowd = Crowd(router)
    crowd.ask(1, errand=Errand(dialects=frozenset({Dialect.LLAMA})))
    crowd.ask(1, "unknown")
    assert [type(item) for item in await crowd.results()] == [CannotRun, CannotRun]
    assert await answer(router) == "Hello"


async def test_what_a_lease_used_is_written_up() -> None:
    told: list[tuple[Use, float]] = []
    router = Router(meter=Meter(lambda use, seconds: told.append((use, seconds))))
    router.add(FakeWorker())
    crowd = Crowd(router)
    crowd.ask(1, errand=Errand(account="ann"))
    await crowd.results()
    use, seconds = told[0]
    assert (use.worker, use.account, use.prompt_tokens, use.tokens) == ("fake", "ann", 5, 2)
    assert use.complete
    assert use.first_s is not None
    assert 0 < seconds < 1
    text_form = generate_latest(router.meter.registry).decode()
    assert 'registry_inference_requests_total{outcome="done",worker="fake"} 1.0' in text_form
    assert 'registry_inference_tokens_total{kind="answer",model="tiny:latest"} 2.0' in text_form
    assert "registry_inference_waiting 0.0" in text_form
