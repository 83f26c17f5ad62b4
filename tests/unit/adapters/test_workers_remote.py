"""A worker over a link: both ends, over real HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from registry.adapters.llama_http import LlamaRunning
from registry.core.digest import Digest
from registry.core.errors import (
    CannotRun,
    OperationFailed,
    PromptTooLong,
    RegistryError,
    Unavailable,
    UpstreamBusy,
    WorkerLost,
)
from registry.ports.links import Member
from registry.ports.workers import Crash
from registry.web import worker_link
from registry.workers.library import LinkRefused
from tests.support.fake_worker import spec_of
from tests.support.linked import Place, Script, ScriptedNode, answer_of, said, taking_workers

pytestmark = pytest.mark.anyio

SPEC = spec_of()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with taking_workers(tmp_path) as place:
        yield place


@pytest.fixture
async def node() -> ScriptedNode:
    return ScriptedNode()


async def texts(answer: AsyncIterator[Any]) -> str:
    return "".join([piece.content async for piece in answer])


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_model_runs_on_a_worker_that_called_in(place: Place, node: ScriptedNode) -> None:
    node.script = Script(said("Hel", "lo"))
    place.link(node, await place.enrol())
    worker = await place.worker()
    assert (worker.name, worker.facts().engine) == ("gpu", "scripted")
    running = await worker.acquire(SPEC)
    assert (running.worker, running.load_ns) == ("gpu", 5)
    assert node.specs == [SPEC]
    assert worker.facts().loaded[0].key == SPEC.key  # known with the lease, not with the next beat
    assert await texts(answer_of(running, {"prompt": "hi ✓"})) == "Hello"
    method, path, body = node.asked[0]
    assert (method, path) == ("POST", "/completion")
    assert "hi ✓".encode() in body
    await running.release(7.5)
    assert node.released == [7.5]
    await worker.unload(SPEC.model.digest)
    assert node.unloaded == [SPEC.model.digest]


async def test_many_requests_run_side_by_side(place: Place, node: ScriptedNode) -> None:
    node.script = Script([*said("a")[:1], 0.05, *said("b")])
    place.link(node, await place.enrol())
    worker = await place.worker()

    async def one() -> str:
        running = await worker.acquire(SPEC)
        try:
            return await texts(answer_of(running))
        finally:
            await running.release(None)

    async with asyncio.timeout(5):
        assert await asyncio.gather(*(one() for _ in range(20))) == ["ab"] * 20
    assert len(node.released) == 20


@pytest.mark.parametrize(
    "error", [CannotRun("no such op"), Unavailable("busy", 9), OperationFailed("it broke")]
)
async def test_what_a_worker_refuses_is_told_as_it_says_it(
    place: Place, node: ScriptedNode, error: RegistryError
) -> None:
    node.refusal = error
    place.link(node, await place.enrol())
    worker = await place.worker()
    with pytest.raises(type(error)) as caught:
        await worker.acquire(SPEC)
    assert str(caught.value) == str(error)


async def test_what_a_runner_refuses_is_told_too(place: Place, node: ScriptedNode) -> None:
    text = b'{"error":{"code":400,"message":"too long","type":"exceed_context_size_error"}}'
    node.script = Script([text], status=400)
    place.link(node, await place.enrol())
    running = await (await place.worker()).acquire(SPEC)
    with pytest.raises(PromptTooLong):
        await texts(answer_of(running))


async def test_an_answer_that_breaks_off_is_never_complete(
    place: Place, node: ScriptedNode
) -> None:
    node.script = Script([*said("Hel")[:1], WorkerLost()])
    place.link(node, await place.enrol())
    running = await (await place.worker()).acquire(SPEC)
    with pytest.raises(WorkerLost):
        await texts(answer_of(running))


async def test_a_reader_that_leaves_stops_the_runner(place: Place, node: ScriptedNode) -> None:
    node.script = Script([*said("Hel")[:1], 60.0])
    place.link(node, await place.enrol())
    running = await (await place.worker()).acquire(SPEC)
    assert isinstance(running, LlamaRunning)
    async with aclosing(running.complete({"prompt": "hi"})) as answer:
        assert (await anext(answer)).content == "Hel"
    async with asyncio.timeout(1):
        await node.replies[0].closed.wait()
    await running.release(None)


async def test_a_slow_reader_holds_the_sender_back(place: Place, node: ScriptedNode) -> None:
    node.script = Script([said("x" * 60_000)[0]] * 400 + said("end"))  # 24 MB
    place.link(node, await place.enrol())
    running = await (await place.worker()).acquire(SPEC)
    assert isinstance(running, LlamaRunning)
    async with aclosing(running.complete({"prompt": "hi"})) as answer:
        await anext(answer)
        await asyncio.sleep(0.3)
        assert node.replies[0].sent < 300
        rest = [piece async for piece in answer]
    assert len(rest) == 401


async def test_a_prompt_of_megabytes_arrives(place: Place, node: ScriptedNode) -> None:
    place.link(node, await place.enrol())
    running = await (await place.worker()).acquire(SPEC)
    prompt = "0123456789" * 2_000_000
    async with asyncio.timeout(10):
        assert await texts(answer_of(running, {"prompt": prompt})) == "Hello"
    assert json.loads(node.asked[0][2])["prompt"] == prompt


async def test_whoever_waits_for_a_load_and_leaves_gives_the_lease_back(
    place: Place, node: ScriptedNode
) -> None:
    node.load_s = 0.2
    place.link(node, await place.enrol())
    worker = await place.worker()
    asking = asyncio.create_task(worker.acquire(SPEC))
    await until(lambda: node.specs)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(0.3)
    assert node.known.loaded == () or node.released  # stopped, or given back


async def test_a_worker_reads_what_it_was_told_to_run_and_nothing_else(
    place: Place, node: ScriptedNode
) -> None:
    place.link(node, await place.enrol())
    worker = await place.worker()
    member = Member("gpu", "s1")
    assert not place.remotes.may_read(member, SPEC.model.digest)
    await worker.acquire(SPEC)
    assert place.remotes.may_read(member, SPEC.model.digest)
    assert not place.remotes.may_read(member, Digest.of(b"other"))
    assert not place.remotes.may_read(Member("other", "s1"), SPEC.model.digest)


# --- lines that break ----------------------------------------------------------------------------


async def break_line(place: Place) -> None:
    """Cut the worker's line, as a network would."""
    place.tasks[-1].cancel()
    await asyncio.gather(*place.tasks, return_exceptions=True)
    await until(lambda: not place.workers["gpu"].facts().reachable)


async def test_a_line_that_breaks_ends_what_waits(place: Place, node: ScriptedNode) -> None:
    node.load_s = 60.0
    place.link(node, await place.enrol())
    worker = await place.worker()
    asking = asyncio.create_task(worker.acquire(SPEC))
    await until(lambda: node.specs)
    place.tasks[-1].cancel()
    with pytest.raises(WorkerLost):
        await asking
    assert not worker.facts().reachable
    with pytest.raises(WorkerLost):
        await worker.acquire(SPEC)


async def test_leases_outlive_a_line_of_the_same_session(place: Place, node: ScriptedNode) -> None:
    agent = place.link(node, await place.enrol())
    worker = await place.worker()
    kept, lost = await worker.acquire(SPEC), await worker.acquire(SPEC)
    await break_line(place)
    with pytest.raises(WorkerLost):  # cannot be told now; at the next line it is
        await lost.release(None)
    place.tasks.append(asyncio.create_task(agent.run()))
    await until(lambda: worker.facts().reachable)
    await until(lambda: node.released == [60.0])
    assert await texts(answer_of(kept)) == "Hello"


async def test_a_new_session_ends_the_former(place: Place, node: ScriptedNode) -> None:
    credential = await place.enrol()
    place.link(node, credential, "s1")
    first = await place.worker()
    running = await first.acquire(SPEC)
    place.link(ScriptedNode(), credential, "s2")
    await until(lambda: place.workers.get("gpu") not in {None, first})
    with pytest.raises(WorkerLost):
        await texts(answer_of(running))
    assert not first.facts().reachable


async def test_a_worker_that_says_goodbye_is_gone_at_once(place: Place, node: ScriptedNode) -> None:
    agent = place.link(node, await place.enrol())
    running = await (await place.worker()).acquire(SPEC)
    await agent.leave()
    await place.gone()
    with pytest.raises(WorkerLost):
        await texts(answer_of(running))


async def test_an_answer_that_cannot_be_sent_is_lost_and_nobody_waits_for_it(
    place: Place, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.link(node, await place.enrol())
    running = await (await place.worker()).acquire(SPEC)
    answer, failures = place.libraries[-1].answer, iter([True, True, False])

    async def flaky(call: str, body: AsyncIterator[bytes]) -> None:
        if next(failures, False):
            raise UpstreamBusy("connection lost")
        await answer(call, body)

    monkeypatch.setattr(place.libraries[-1], "answer", flaky)
    async with asyncio.timeout(5):
        with pytest.raises(WorkerLost):
            await texts(answer_of(running))
        assert await texts(answer_of(running)) == "Hello"


async def test_crashes_are_told_with_the_next_report(place: Place, node: ScriptedNode) -> None:
    agent = place.link(node, await place.enrol())
    await place.worker()
    crash = Crash(SPEC.model.digest, "tiny:latest", "GGML_ASSERT")
    agent.crashed(crash)
    await until(lambda: place.crashes)
    await asyncio.sleep(0.6)
    assert place.crashes == [("gpu", crash)]


async def test_a_silent_worker_is_suspect_and_then_gone(tmp_path: Path, node: ScriptedNode) -> None:
    async with taking_workers(tmp_path, suspect_s=0.3, gone_s=1.5) as place:
        place.link(node, await place.enrol())  # its reports come every five seconds
        worker = await place.worker()
        node.script = Script([*said("Hel")[:1], 60.0])
        running = await worker.acquire(SPEC)
        answer = answer_of(running)
        assert (await anext(answer)).content == "Hel"
        await until(lambda: not worker.facts().reachable)
        with pytest.raises(WorkerLost):
            await anext(answer)
        await place.gone(within_s=4)


async def test_a_revoked_worker_is_sent_away(
    place: Place, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_link, "_CHECK_S", 0.0)
    place.link(node, await place.enrol())
    worker = await place.worker()
    await place.keys.revoke("gpu")
    with pytest.raises(WorkerLost):
        await worker.acquire(SPEC)  # the next line shows it
    await place.gone()
    with pytest.raises(LinkRefused, match="not enrolled here"):
        await asyncio.wait_for(place.tasks[-1], 5)


async def test_a_library_that_stops_ends_lines_once_nothing_runs(
    place: Place, node: ScriptedNode
) -> None:
    place.link(node, await place.enrol())
    worker = await place.worker()
    running = await worker.acquire(SPEC)
    place.remotes.leave()
    await asyncio.sleep(0.05)
    assert worker.facts().reachable
    assert await texts(answer_of(running)) == "Hello"
    await running.release(None)
    await until(lambda: not worker.facts().reachable)
