"""A node with the real engine: loading, answers, slots, room, and everything that can break."""

import asyncio
import itertools
import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from registry.core.errors import (
    CannotRun,
    OperationFailed,
    PromptTooLong,
    RequestInvalid,
    Unavailable,
    Unsupported,
    WorkerLost,
)
from registry.ports.workers import RunnerOptions, Running
from registry.workers import machine
from registry.workers.engine import Engine
from registry.workers.node import BUSY, Node
from tests.support.nodes import Shelf, node, pieces, said, with_options
from tests.support.scripted_model import embedding_model, endless, random_model, scripted_model

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

SCRIPT = ["Hello", " there", ", how", " are you", "?"]
MODEL = scripted_model(SCRIPT)
LOOP = endless([f" w{number}" for number in range(40)])
VECTORS = RunnerOptions(num_ctx=128, embedding=True)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def names(worker: Node) -> list[str]:
    return [item.name.model for item in worker.facts().loaded]


def runner_pid(worker: Node) -> int:
    (held,) = worker._held.values()
    assert held.child is not None
    return held.child.pid


async def is_processing(worker: Node) -> bool:
    (held,) = worker._held.values()
    assert held.wire is not None
    reply = await held.wire.send("GET", "/slots")
    return bool(json.loads(await reply.read(1 << 20))[0]["is_processing"])


async def eventually(check: object, within_s: float = 3.0) -> None:
    assert callable(check)
    until = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < until
        await asyncio.sleep(0.01)


# --- answers


async def test_a_model_is_loaded_once_and_answers_piece_by_piece(shelf: Shelf) -> None:
    spec = shelf.put("m", MODEL)
    async with node(shelf) as worker:
        running = await worker.acquire(spec)
        assert running.load_ns > 0
        answer = await pieces(running)
        assert [piece.content for piece in answer[:5]] == SCRIPT
        assert [piece.tokens for piece in answer[:2]] == [(259,), (260,)]
        stop = answer[-1].stop
        assert stop is not None and not stop.limit and not stop.stopped_by
        assert (stop.timings.prompt_tokens, stop.timings.tokens) == (3, 6)
        await running.release(None)
        again = await worker.acquire(spec)
        assert again.load_ns == 0
        await again.release(None)
        assert len(MODEL) < worker.facts().loaded[0].size < spec.memory  # told by the engine


async def test_chats_are_rendered_by_the_engine(shelf: Shelf) -> None:
    async with node(shelf) as worker:
        running = await worker.acquire(shelf.put("m", MODEL))
        body = {"messages": [{"role": "user", "content": "x"}], "temperature": 0}
        answer = [piece async for piece in running.chat(body)]
        assert "".join(piece.content for piece in answer) == "".join(SCRIPT)
        assert answer[-1].stop is not None
        assert answer[-1].stop.timings.prompt_tokens == 20
        rendered = await running.apply_template({"messages": body["messages"]})
        assert rendered == "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"


async def test_limits_and_stop_sequences_end_an_answer_and_are_told_apart(shelf: Shelf) -> None:
    async with node(shelf) as worker:
        running = await worker.acquire(shelf.put("m", MODEL))
        limited = await pieces(running, n_predict=2)
        assert "".join(piece.content for piece in limited) == "Hello there"
        assert limited[-1].stop is not None and limited[-1].stop.limit
        stopped = await pieces(running, stop=[" are"])
        assert "".join(piece.content for piece in stopped) == "Hello there, how"
        assert stopped[-1].stop is not None
        assert (stopped[-1].stop.limit, stopped[-1].stop.stopped_by) == (False, " are")


async def test_an_answer_longer_than_its_slot_goes_on_where_contexts_shift(shelf: Shelf) -> None:
    spec = shelf.put("m", LOOP, RunnerOptions(num_ctx=256))
    async with node(shelf) as worker:
        shifting = await pieces(await worker.acquire(spec), n_predict=600)
        assert shifting[-1].stop is not None
        assert shifting[-1].stop.timings.tokens == 600
        ending = await pieces(await worker.acquire(with_options(spec, shift=False)), n_predict=600)
        assert ending[-1].stop is not None
        assert ending[-1].stop.limit
        assert ending[-1].stop.timings.tokens < 256


async def test_logprobs_come_with_each_token(shelf: Shelf) -> None:
    async with node(shelf) as worker:
        running = await worker.acquire(shelf.put("m", MODEL))
        answer = await pieces(running, n_predict=1, n_probs=2)
        (logprob,) = answer[0].logprobs
        assert (logprob.chosen.token, logprob.chosen.logprob) == ("Hello", 0.0)
        assert bytes(logprob.chosen.bytes) == b"Hello"
        assert len(logprob.top) == 2


async def test_an_answer_can_be_made_to_fit_a_schema(shelf: Shelf) -> None:
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer"}},
        "required": ["age"],
        "additionalProperties": False,
        "x-guidance": {"whitespace_flexible": False},
    }
    model = scripted_model(['{"age"', ": ", ":", "4", "2", "}"])
    async with node(shelf) as worker:
        running = await worker.acquire(shelf.put("m", model))
        answer = await said(running, json_schema=schema, n_predict=40, seed=1)
        assert isinstance(json.loads(answer)["age"], int)


async def test_texts_become_tokens_and_back(shelf: Shelf) -> None:
    async with node(shelf) as worker:
        running = await worker.acquire(shelf.put("m", MODEL))
        assert await running.tokenize("a<|im_end|>") == [97, 258]
        assert len(await running.tokenize("a<|im_end|>", special=False)) == 11
        assert await running.detokenize([259, 260]) == "Hello there"
        with pytest.raises(RequestInvalid, match="not in the model's vocabulary"):
            await running.detokenize([99_999_999])


async def test_texts_become_vectors_in_their_order(shelf: Shelf) -> None:
    async with node(shelf) as worker:
        running = await worker.acquire(shelf.put("e", embedding_model(), VECTORS))
        texts = [f"the cat {'sat ' * number}" for number in range(20)]
        together = await running.embed(texts)
        alone = [(await running.embed([text])).vectors[0] for text in texts]
        for one, other in zip(together.vectors, alone, strict=True):
            assert one == pytest.approx(other, abs=2e-3)
            assert sum(number * number for number in one) == pytest.approx(1, abs=1e-4)
        assert together.prompt_tokens == sum(4 + number for number in range(20))
        raw = (await running.embed(texts[:1], normalize=False)).vectors[0]
        assert sum(number * number for number in raw) > 2


async def test_what_a_runner_refuses_is_told_in_its_words(shelf: Shelf) -> None:
    async with node(shelf) as worker:
        running = await worker.acquire(shelf.put("m", MODEL))
        with pytest.raises(PromptTooLong, match="exceeds the available context") as caught:
            await said(running, "x" * 5000)
        assert (caught.value.tokens, caught.value.num_ctx) == (5000, 4096)
        with pytest.raises(RequestInvalid, match="failed to parse grammar"):
            await said(running, grammar="root ::= (((")
        with pytest.raises(Unsupported, match="does not support embeddings"):
            await running.embed(["x"])
        assert await said(running) == "".join(SCRIPT)  # it lives on
        vectors = await worker.acquire(shelf.put("e", embedding_model(), VECTORS))
        with pytest.raises(PromptTooLong, match="the input length exceeds the context length"):
            await vectors.embed(["cat " * 300])
        with pytest.raises(OperationFailed):
            await said(vectors)


# --- what breaks


async def test_a_runner_that_is_killed_loses_its_answer_and_is_loaded_anew(shelf: Shelf) -> None:
    spec = shelf.put("m", LOOP)
    async with node(shelf) as worker:
        running = await worker.acquire(spec)
        with pytest.raises(WorkerLost, match="model runner has unexpectedly stopped"):
            async for piece in running.complete({"prompt": "Hi\n", "temperature": 0}):
                if "w3" in piece.content:
                    os.kill(runner_pid(worker), signal.SIGKILL)
        assert names(worker) == []  # at once: no other gets a lease on a dead one
        await running.release(None)
        again = await worker.acquire(spec)
        assert again.load_ns > 0
        assert await said(again, n_predict=2) == " w0 w1"


@pytest.mark.parametrize(
    ("number", "blamed"),
    [
        (signal.SIGABRT, True),
        (signal.SIGSEGV, True),
        (signal.SIGKILL, False),
        (signal.SIGTERM, False),
    ],
)
async def test_a_crash_is_told_and_an_end_that_somebody_made_is_none(
    shelf: Shelf, number: signal.Signals, blamed: bool
) -> None:
    spec = shelf.put("m", MODEL)
    async with node(shelf) as worker:
        await (await worker.acquire(spec)).release(None)
        os.kill(runner_pid(worker), number)
        await eventually(lambda: names(worker) == [])
        await asyncio.sleep(0)
        assert [(crash.model, crash.name) for crash in shelf.crashes] == (
            [(spec.model.digest, "m:latest")] if blamed else []
        )


async def stopped_at_load(shelf: Shelf, worker: Node) -> Running:
    """A lease whose runner was killed while it loaded the model."""
    worker._starter._devices = ()  # whose process would be the first
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    others = set(children.read_text().split())  # servers of the session
    loading = asyncio.create_task(worker.acquire(shelf.put("m", MODEL)))
    await eventually(lambda: set(children.read_text().split()) - others)
    (runner,) = set(children.read_text().split()) - others
    os.kill(int(runner), signal.SIGKILL)
    return await loading


async def test_a_runner_that_somebody_stops_while_it_loads_is_started_anew(shelf: Shelf) -> None:
    async with node(shelf) as worker:
        assert await said(await stopped_at_load(shelf, worker)) == "".join(SCRIPT)


async def test_a_runner_for_which_there_was_no_memory_is_told_of_in_words(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = itertools.count()  # the kernel has ended another one each time one looks
    monkeypatch.setattr(machine, "memory_kills", lambda: next(counts))
    async with node(shelf) as worker:
        with pytest.raises(CannotRun, match="error loading model: memory ran out while the engine"):
            await stopped_at_load(shelf, worker)
    assert shelf.crashes == []


async def test_whoever_waits_for_a_slot_of_a_dead_runner_gets_one_of_the_next(shelf: Shelf) -> None:
    spec = shelf.put("m", MODEL)
    async with node(shelf) as worker:
        first = await worker.acquire(spec)
        second = asyncio.create_task(worker.acquire(spec))
        await eventually(lambda: worker.facts().loaded[0].waiting == 1)
        os.kill(runner_pid(worker), signal.SIGKILL)
        running = await second
        assert await said(running) == "".join(SCRIPT)
        with pytest.raises(WorkerLost):
            await said(first)
        await first.release(None)
        assert worker.facts().loaded[0].busy == 1  # the dead one's slot was not the new one's


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"garbage", "failed to load model"),
        (MODEL[:500_000], "data is not within the file bounds, model is corrupted or incomplete"),
        (MODEL.replace(b"llama", b"lambo"), "unknown model architecture: 'lambo'"),
    ],
)
async def test_a_file_that_cannot_be_loaded_is_refused_with_the_reason(
    shelf: Shelf, data: bytes, reason: str
) -> None:
    async with node(shelf) as worker:
        with pytest.raises(CannotRun, match=reason) as caught:
            await worker.acquire(shelf.put("m", data))
        assert str(shelf.folder) not in str(caught.value)
        assert names(worker) == []
        running = await worker.acquire(shelf.put("good", MODEL))
        assert await said(running) == "".join(SCRIPT)


async def test_a_template_without_end_holds_nobody_else_up(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.workers.processes._READY_S", 0.3)
    many = "{% for a in range(100000) %}"
    endless = f"{many}{many}{{% set b = a %}}{{% endfor %}}{{% endfor %}}{{{{ messages }}}}"
    async with node(shelf) as worker:
        spec = shelf.put("loops", scripted_model(SCRIPT, chat_template=endless))
        loading = asyncio.create_task(worker.acquire(spec))
        await eventually(lambda: names(worker) == ["loops"])
        running = await worker.acquire(shelf.put("good", MODEL))
        assert await said(running) == "".join(SCRIPT)
        with pytest.raises(CannotRun, match="chat template does not come to an end"):
            await loading


async def test_a_reader_who_leaves_stops_the_engine_within_a_second(shelf: Shelf) -> None:
    spec = shelf.put("m", LOOP, RunnerOptions(num_ctx=1 << 16))
    async with node(shelf) as worker:
        running = await worker.acquire(spec)
        answer = running.complete({"prompt": "Hi\n", "temperature": 0})
        async with aclosing(answer) as some:  # type: ignore[type-var]  # a generator, as the node's are
            async for piece in some:
                if piece.content:
                    break
        until = time.monotonic() + 1
        while await is_processing(worker):
            assert time.monotonic() < until
            await asyncio.sleep(0.05)


async def test_no_engine_is_told_as_the_reason(shelf: Shelf) -> None:
    async with node(shelf, Engine("none", problem="no engine here")) as worker:
        with pytest.raises(CannotRun, match="no engine here"):
            await worker.acquire(shelf.put("m", MODEL))


async def test_many_come_and_go_and_runners_die_and_nothing_stays_taken(shelf: Shelf) -> None:
    chance = random.Random(7)
    specs = [
        shelf.put(f"m{n}", scripted_model([f"H{n}", "ello"]), RunnerOptions(parallel=1 + n % 2))
        for n in range(3)
    ]
    ends: Counter[str] = Counter()

    async def visitor(worker: Node) -> None:
        number = chance.randrange(3)
        await asyncio.sleep(chance.random() * 1.5)
        try:
            async with asyncio.timeout(chance.choice([0.05, 60, 60, 60])):
                running = await worker.acquire(specs[number])
                try:
                    assert await said(running) == f"H{number}ello"
                finally:
                    await running.release(chance.choice([0, 0.05, 60, None]))
            ends["answered"] += 1
        except TimeoutError:
            ends["left"] += 1
        except WorkerLost:
            ends["lost"] += 1

    async def death(worker: Node) -> None:
        while True:
            await asyncio.sleep(0.2)
            for held in [item for item in worker._held.values() if item.child][:1]:
                assert held.child is not None
                with suppress(ProcessLookupError):
                    os.kill(held.child.pid, signal.SIGKILL)

    async with node(shelf, max_loaded=2) as worker:
        killing = asyncio.create_task(death(worker))
        async with asyncio.timeout(60):
            await asyncio.gather(*[visitor(worker) for _ in range(100)])
        killing.cancel()
        assert ends.total() == 100
        assert ends["answered"] > 40
        assert all(item.busy == item.waiting == 0 for item in worker.facts().loaded)


# --- slots, room and time


async def test_two_leases_share_one_slot_in_turn(shelf: Shelf) -> None:
    spec = shelf.put("m", MODEL)
    async with node(shelf) as worker:
        first = await worker.acquire(spec)
        second = asyncio.create_task(worker.acquire(spec))
        await asyncio.sleep(0.05)
        assert not second.done()
        loaded = worker.facts().loaded[0]
        assert (loaded.slots, loaded.busy, loaded.waiting) == (1, 1, 1)
        await first.release(None)
        assert await said(await second) == "".join(SCRIPT)


async def test_two_slots_serve_two_at_once(shelf: Shelf) -> None:
    spec = with_options(shelf.put("m", MODEL), parallel=2)
    async with node(shelf) as worker:
        leases = [await worker.acquire(spec) for _ in range(2)]
        assert await asyncio.gather(*[said(lease) for lease in leases]) == ["".join(SCRIPT)] * 2


async def test_vectors_are_made_for_several_at_once(shelf: Shelf) -> None:
    spec = shelf.put("e", embedding_model(), VECTORS)
    async with node(shelf) as worker:
        leases = [await worker.acquire(spec) for _ in range(8)]
        assert worker.facts().loaded[0].slots == 8
        found = await asyncio.gather(*[lease.embed(["the cat", "sat"]) for lease in leases])
        assert all(one.vectors[0] == pytest.approx(found[0].vectors[0], abs=2e-3) for one in found)


async def test_one_who_leaves_the_queue_takes_no_slot_with_him(shelf: Shelf) -> None:
    spec = shelf.put("m", MODEL)
    async with node(shelf) as worker:
        first = await worker.acquire(spec)
        second = asyncio.create_task(worker.acquire(spec))
        await asyncio.sleep(0.02)
        second.cancel()
        await asyncio.wait([second])
        await first.release(None)
        async with asyncio.timeout(2):
            await worker.acquire(spec)


async def test_a_model_stays_for_as_long_as_it_was_told_to(shelf: Shelf) -> None:
    spec = shelf.put("m", MODEL)
    async with node(shelf) as worker:
        for keep_alive_s in (0.15, 0.0):
            running = await worker.acquire(spec)
            await said(running)
            assert names(worker) == ["m"]
            released = time.monotonic()
            await running.release(keep_alive_s)
            await eventually(lambda: names(worker) == [])
            assert time.monotonic() - released >= keep_alive_s
        running = await worker.acquire(spec)
        await running.release(None)
        assert worker.facts().loaded[0].expires_at is None
        await worker.unload(spec.model.digest)
        assert names(worker) == []


async def test_unloading_waits_for_what_runs(shelf: Shelf) -> None:
    spec = shelf.put("m", MODEL)
    async with node(shelf) as worker:
        running = await worker.acquire(spec)
        await worker.unload(spec.model.digest)
        assert await said(running) == "".join(SCRIPT)
        await running.release(0)
        assert names(worker) == []


async def test_a_model_unloaded_while_it_loads_serves_who_waits_and_goes(shelf: Shelf) -> None:
    spec = shelf.put("m", MODEL)
    async with node(shelf) as worker:
        waiting = asyncio.create_task(worker.acquire(spec))
        await asyncio.sleep(0)
        await worker.unload(spec.model.digest)
        running = await waiting
        assert await said(running) == "".join(SCRIPT)
        await running.release(60)
        assert names(worker) == []


async def test_an_idle_model_makes_room_for_another(shelf: Shelf) -> None:
    one, two = shelf.put("one", MODEL), shelf.put("two", LOOP)
    async with node(shelf, memory_bytes=one.memory + (8 << 20)) as worker:
        await (await worker.acquire(one)).release(60)
        await (await worker.acquire(two)).release(60)
        assert names(worker) == ["two"]


async def test_a_busy_model_is_let_finish_and_then_makes_room(shelf: Shelf) -> None:
    one, two = shelf.put("one", MODEL), shelf.put("two", LOOP)
    async with node(shelf, max_loaded=1) as worker:
        running = await worker.acquire(one)
        other = asyncio.create_task(worker.acquire(two))
        await asyncio.sleep(0.1)
        later = asyncio.create_task(worker.acquire(one))
        await asyncio.sleep(0.1)
        assert not other.done()
        assert await said(running) == "".join(SCRIPT)
        await running.release(60)
        async with asyncio.timeout(3):
            second = await other
        assert names(worker) == ["two", "one"]  # who came later waits for the other to go
        await second.release(60)
        async with asyncio.timeout(3):
            assert await said(await later) == "".join(SCRIPT)


async def test_a_pinned_model_makes_no_room(shelf: Shelf) -> None:
    one, two = shelf.put("one", MODEL), shelf.put("two", LOOP)
    async with node(shelf, max_loaded=1) as worker:
        await (await worker.acquire(replace(one, pinned=True))).release(60)
        waiting = asyncio.create_task(worker.acquire(two))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await worker.unload(one.model.digest)
        async with asyncio.timeout(3):
            await waiting


async def test_a_model_larger_than_the_machine_is_refused(shelf: Shelf) -> None:
    spec = replace(shelf.put("m", MODEL), memory=3 << 30)
    async with node(shelf, memory_bytes=1 << 30) as worker:
        with pytest.raises(CannotRun, match=r"more system memory \(3.0 GiB\) than is available"):
            await worker.acquire(spec)


async def test_memory_that_others_hold_is_not_there(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(10 << 30, 1 << 30))
    async with node(shelf) as worker:
        await eventually(lambda: worker.facts().memory_total)  # the engine was asked by then
        assert worker.facts().memory_total == 9 * (1 << 30)
        assert worker.facts().memory_free == 1 << 30
        with pytest.raises(Unavailable, match=r"\(3.0 GiB\) than others leave \(1.0 GiB\)"):
            await worker.acquire(replace(shelf.put("m", MODEL), memory=3 << 30))
        running = await worker.acquire(shelf.put("m", MODEL))
        assert worker.facts().memory_free == pytest.approx(1 << 30, rel=0.2)
        await running.release(0)


async def test_a_model_is_mapped_where_it_lies(shelf: Shelf) -> None:
    spec = shelf.put("m", MODEL)
    async with node(shelf) as worker:
        await worker.acquire(spec)
        maps = Path(f"/proc/{runner_pid(worker)}/maps").read_text()
        assert str(shelf.paths[spec.model.digest]) in maps


async def test_one_who_leaves_before_the_first_token_stops_the_engine_too(shelf: Shelf) -> None:
    slow = random_model(512, 8, 1024, context=1 << 15)
    options = RunnerOptions(num_ctx=1 << 14, num_batch=64)
    async with node(shelf) as worker:
        running = await worker.acquire(shelf.put("m", slow, options))
        asking = asyncio.create_task(pieces(running, "x" * 12_000))
        await asyncio.sleep(0.3)
        assert await is_processing(worker)
        asking.cancel()
        await asyncio.wait([asking])
        until = time.monotonic() + 3  # a step, on a busy machine
        while await is_processing(worker):
            assert time.monotonic() < until
            await asyncio.sleep(0.05)


async def test_more_than_may_wait_are_sent_away(shelf: Shelf) -> None:
    spec = shelf.put("m", MODEL)
    async with node(shelf, max_queue=1) as worker:
        await worker.acquire(spec)
        waiting = asyncio.create_task(worker.acquire(spec))
        await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match=BUSY):
            await worker.acquire(spec)
        waiting.cancel()


async def test_a_drained_node_lets_answers_end_and_takes_no_more(shelf: Shelf) -> None:
    spec = shelf.put("m", MODEL)
    async with node(shelf) as worker:
        running = await worker.acquire(spec)
        draining = asyncio.create_task(worker.drain())
        await asyncio.sleep(0.01)
        assert worker.facts().draining
        with pytest.raises(Unavailable):
            await worker.acquire(spec)
        assert await said(running) == "".join(SCRIPT)
        await running.release(60)
        async with asyncio.timeout(3):
            await draining
        assert names(worker) == []


async def test_a_closed_node_leaves_no_process(shelf: Shelf) -> None:
    async with node(shelf) as worker:
        await worker.acquire(shelf.put("m", random_model()))
        pid = runner_pid(worker)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
