"""OpenAI-compatible servers and llama-server as workers: what is found out, sent and read."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from registry.adapters.worker_http import Site
from registry.adapters.workers_external import External
from registry.adapters.workers_openai import OpenAIWorker
from registry.core.errors import (
    CannotRun,
    OperationFailed,
    RegistryError,
    RequestInvalid,
    Unavailable,
    Unsupported,
    WorkerLost,
)
from registry.ports.workers import Dialect, Piece, Running
from tests.support.fake_worker import spec_of
from tests.support.foreign import (
    Answer,
    Foreign,
    ForeignLlama,
    ForeignOpenAI,
    chat_events,
    sse,
    whole,
)

pytestmark = pytest.mark.anyio
SPEC = spec_of("tiny")
NAME = str(SPEC.name)


@asynccontextmanager
async def worker_of(server: Foreign, **values: object) -> AsyncIterator[OpenAIWorker]:
    """A worker that has looked once."""
    given = {"models": {NAME: "*"}, **values}
    external = External("vllm", Site.parse(server.url, "s3cret"), **given)  # type: ignore[arg-type]  # the test's own
    worker = OpenAIWorker(external)
    await worker.look()
    try:
        yield worker
    finally:
        await worker.close()


async def pieces(running: Running) -> list[Piece]:
    return [piece async for piece in running.chat({"messages": [], "min_p": 1, "top_p": 0.5})]


async def test_a_server_without_props_chats_with_what_strict_ones_know() -> None:
    async with ForeignOpenAI("Qwen/Qwen3") as server, worker_of(server) as worker:
        assert worker.dialect is Dialect.OPENAI
        assert worker.facts().models == frozenset({NAME})
        running = await worker.acquire(SPEC)
        made = await pieces(running)
        await running.release(None)
    assert [piece.content for piece in made] == ["Hel", "lo", ""]
    assert made[-1].stop is not None
    assert made[-1].stop.timings.prompt_tokens == 7
    assert made[-1].stop.timings.tokens == 2
    assert made[-1].stop.timings.prompt_ms > 0
    asked = server.calls("/v1/chat/completions")[0]
    assert asked.headers["authorization"] == "Bearer s3cret"
    assert asked.body == {
        "model": "Qwen/Qwen3",
        "messages": [],
        "top_p": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_a_llama_server_takes_rendered_prompts_and_tells_its_slots() -> None:
    async with ForeignLlama("any", slots=3) as server, worker_of(server) as worker:
        assert worker.dialect is Dialect.LLAMA
        running = await worker.acquire(SPEC)
        assert worker.facts().loaded[0].slots == 3
        assert worker.facts().loaded[0].busy == 1
        made = [piece async for piece in running.complete({"prompt": "hi"})]
        await running.release(None)
        assert worker.facts().loaded[0].busy == 0
        assert worker.facts().version == "b1"
    assert "".join(piece.content for piece in made) == "Hello"


@pytest.mark.parametrize(
    ("models", "served"),
    [
        ({"*": "*"}, {"registry.ollama.ai/library/a:1", "registry.ollama.ai/ns/b:latest"}),
        ({NAME: "ns/b"}, {NAME}),
        ({NAME: "c"}, set()),
        ({NAME: "*"}, {NAME}),
    ],
)
async def test_models_are_mapped_by_name(models: dict[str, str], served: set[str]) -> None:
    server = ForeignOpenAI("a:1", "ns/b", "!!")
    async with server, worker_of(server, models=models) as worker:
        assert set(worker.facts().models or ()) == served
        if NAME not in served:
            with pytest.raises(CannotRun, match="does not serve tiny:latest"):
                await worker.acquire(SPEC)


async def test_embeddings_come_in_order_and_are_counted() -> None:
    async with ForeignOpenAI("a") as server, worker_of(server) as worker:
        running = await worker.acquire(SPEC)
        made = await running.embed(["x", "y"])
        assert made.vectors == [[0.6, 0.8], [0.6, 0.8]]
        assert made.prompt_tokens == 3
        server.answers["/v1/embeddings"] = whole({"data": []})
        with pytest.raises(OperationFailed, match="another number"):
            await running.embed(["x"])
        server.answers["/v1/embeddings"] = whole({"data": [{"index": 0, "embedding": "x"}]})
        with pytest.raises(OperationFailed, match="cannot be read"):
            await running.embed(["x"])


async def test_what_such_a_server_cannot_do_is_told() -> None:
    async with ForeignOpenAI("a") as server, worker_of(server) as worker:
        running = await worker.acquire(SPEC)
        with pytest.raises(Unsupported, match="it only chats and embeds"):
            running.complete({})
        with pytest.raises(Unsupported):
            running.native("/api/chat", {})
        with pytest.raises(Unsupported):
            await running.tokenize("x")
        with pytest.raises(Unsupported):
            await running.detokenize([1])
        with pytest.raises(Unsupported):
            await running.apply_template({})


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (Answer(pieces=sse(*chat_events("Hel"))[:1]), WorkerLost, "stopped"),
        (Answer(pieces=sse(*chat_events("Hel"))[:1], cut=True), WorkerLost, "broke"),
        (Answer(b'{"error":{"message":"no"}}', 400), RequestInvalid, "no"),
        (Answer(b'{"error":{"message":"bad key"}}', 401), OperationFailed, "bad key"),
        (Answer(b"{}", 302, headers="Location: http://127.0.0.1:1/\r\n"), RequestInvalid, "302"),
        (Answer(b"busy", 503), Unavailable, "busy"),
        (Answer(pieces=[b"data: nonsense\n\n"]), OperationFailed, "not JSON"),
        (Answer(pieces=[b"data: []\n\n"]), OperationFailed, "no JSON object"),
        (Answer(pieces=[b'data: {"error":{"message":"out"}}\n\n']), OperationFailed, "out"),
    ],
)
async def test_what_goes_wrong_in_an_answer_is_an_error(
    answer: Answer, error: type[RegistryError], message: str
) -> None:
    async with ForeignOpenAI("a") as server, worker_of(server) as worker:
        server.answers["/v1/chat/completions"] = answer
        running = await worker.acquire(SPEC)
        with pytest.raises(error, match=message):
            await pieces(running)
        await running.release(None)
        assert worker.facts().loaded[0].busy == 0


async def test_lines_that_end_in_two_characters_are_read() -> None:
    text = b"".join(sse(*chat_events("Hel", "lo"))).replace(b"\n", b"\r\n")
    async with ForeignOpenAI("a") as server, worker_of(server) as worker:
        server.answers["/v1/chat/completions"] = Answer(
            pieces=[text[at : at + 7] for at in range(0, len(text), 7)]
        )
        made = await pieces(await worker.acquire(SPEC))
    assert "".join(piece.content for piece in made) == "Hello"


async def test_a_server_that_goes_away_gets_no_requests_until_it_answers() -> None:
    changes: list[bool] = []
    async with ForeignOpenAI("a") as server:
        external = External("x", Site.parse(server.url), models={NAME: "*"})
        worker = OpenAIWorker(external, lambda: changes.append(worker.facts().reachable))
        await worker.look()
        running = await worker.acquire(SPEC)
        await server.kill()
        with pytest.raises(WorkerLost):
            await pieces(running)
        assert not worker.facts().reachable
        with pytest.raises(Unavailable, match="the worker x does not answer"):
            await worker.acquire(SPEC)
        await worker.look()
        await server.revive()
        await worker.look()
        await worker.acquire(SPEC)
        assert changes == [True, False, True]
        await worker.close()


async def test_it_is_asked_again_and_again_while_it_runs() -> None:
    async with ForeignOpenAI("a") as server:
        worker = OpenAIWorker(External("x", Site.parse(server.url), models={NAME: "*"}))
        worker.start()
        async with asyncio.timeout(5):
            while not worker.facts().reachable:
                await asyncio.sleep(0.01)
        await worker.close()
        assert len(server.calls("/v1/models")) == 1


async def test_closing_an_answer_closes_its_connection() -> None:
    async with ForeignOpenAI("a") as server, worker_of(server) as worker:
        server.answers["/v1/chat/completions"] = Answer(
            pieces=sse(*chat_events(*["x"] * 1000)), pause_s=0.01
        )
        running = await worker.acquire(SPEC)
        answer = running.chat({"messages": []})
        await anext(answer)
        await running.release(None)
        async with asyncio.timeout(1):
            while server._writers:
                await asyncio.sleep(0.01)


def test_a_key_is_not_shown() -> None:
    assert "s3cret" not in repr(Site.parse("http://gpu", "s3cret"))
    assert json.dumps(str(Site.parse("http://gpu", "s3cret"))).count("s3cret") == 0
