"""Workers that go away, and servers that cannot do everything or do it their own way."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from registry.core.errors import (
    OperationFailed,
    Unavailable,
    Unsupported,
    WorkerLost,
)
from registry.core.generation import Choice, Delta, End, Logprob, Reason, Rendered
from registry.core.gojson import Raw
from registry.core.wishes import ChatWish, GenerateWish, ToolCall
from registry.ports.workers import Dialect, Piece
from tests.support.desk import TOOL, USER, Desk, desk, model_shelf, text_of
from tests.support.fake_worker import FakeWorker, Script
from tests.support.library import Library

pytestmark = pytest.mark.anyio

SCHEMA = Raw(b'{"type":"object"}')
OTHER = Raw(b'{"required":["a"]}')


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def lib(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Library]:
    async with model_shelf(tmp_path_factory.mktemp("library") / "data") as made:
        yield made


async def test_without_a_worker_there_is_no_answer(lib: Library) -> None:
    asked = desk(lib)
    asked.router.remove(asked.worker.name)
    with pytest.raises(Unavailable, match="no inference worker is connected"):
        await asked.events(GenerateWish(model="plain", prompt="x"))


@pytest.mark.parametrize("dying", ["fake", "second"])
async def test_a_worker_lost_at_once_is_replaced_with_nothing_told_twice(
    lib: Library, dying: str
) -> None:
    asked = desk(lib)
    second = FakeWorker("second")
    asked.router.add(second)
    (asked.worker if dying == "fake" else second).script.dies_at = 0
    wish = ChatWish(model="go", messages=(USER,))
    assert text_of(await asked.events(wish)) == ("", "Hello")


async def test_one_lost_in_mid_answer_is_told(lib: Library) -> None:
    asked = desk(lib, dies_at=1)
    asked.router.add(FakeWorker("second", Script(dies_at=1)))
    answer = await asked.answer(ChatWish(model="go", messages=(USER,)))
    assert await anext(answer) == Delta("Hel")
    with pytest.raises(WorkerLost):
        await anext(answer)


@pytest.mark.parametrize("model", ["go", "native"])
async def test_an_answer_without_its_end_is_lost(lib: Library, model: str) -> None:
    for format_ in (None, SCHEMA):
        with pytest.raises(WorkerLost):
            await desk(lib, Piece("<think>a")).events(
                ChatWish(model=model, messages=(USER,), format=format_)
            )


async def test_a_client_that_leaves_gives_the_slot_back(lib: Library) -> None:
    asked = desk(lib, pause_s=0.01)
    answer = await asked.answer(ChatWish(model="go", messages=(USER,), keep_alive=0))
    await anext(answer)
    await answer.aclose()
    assert asked.worker.leases[-1].released == [0.0]


async def test_a_server_that_only_chats_gets_a_chat_in_its_words(lib: Library) -> None:
    worker = FakeWorker(dialect=Dialect.OPENAI)
    asked = Desk(lib, worker, None)
    options = {"temperature": 0.5, "top_k": 3, "num_predict": 9, "stop": ["x"]}
    wish = GenerateWish(
        model="go", prompt="hi", system="S", options=options, think="high", format=OTHER
    )
    assert text_of(await asked.events(wish)) == ("", "Hello")
    assert asked.body("chat") == {
        "messages": [
            {"role": "system", "content": "S"},
            {"role": "user", "content": "hi"},
        ],
        "temperature": 0.5,
        "max_tokens": 9,
        "stop": ["x"],
        "reasoning_effort": "high",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "schema", "schema": {"required": ["a"]}},
        },
    }
    await asked.events(replace(wish, format=Raw(b'"json"')))
    assert asked.body("chat")["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"raw": True}, "raw"),
        ({"context": (1,)}, "context"),
        ({"suffix": "b"}, "suffix"),
        ({"template": "x"}, "template"),
    ],
)
async def test_a_server_that_only_chats_cannot_do_the_rest(
    lib: Library, given: dict[str, Any], named: str
) -> None:
    asked = Desk(lib, FakeWorker(dialect=Dialect.OPENAI), None)
    with pytest.raises(Unsupported, match=f"it does not know {named}"):
        await asked.events(GenerateWish(model="fill", prompt="a", **given))


def ollama(lib: Library, *frames: Mapping[str, Any]) -> Desk:
    return Desk(lib, FakeWorker(script=Script(frames=frames), dialect=Dialect.OLLAMA), None)


async def test_an_ollama_server_gets_the_request_as_it_came(lib: Library) -> None:
    top = [{"token": "a", "logprob": -0.5, "bytes": [97]}]
    frames: list[dict[str, Any]] = [
        {"response": "a", "logprobs": [{**top[0], "top_logprobs": top}]},
        {"response": "", "thinking": "t"},
        {"response": "", "done": True, "done_reason": "length", "context": [1, 2], "eval_count": 3},
    ]
    asked = ollama(lib, *frames)
    wish = GenerateWish(
        model="go", prompt="p", system="s", images=(b"abc",), context=(1,), format=SCHEMA,
        options={"seed": 1}, logprobs=True,
    )  # fmt: skip
    wish = replace(wish, images=None)
    first, second, end = await asked.events(wish)
    choice = Choice("a", -0.5, (97,))
    assert first == Delta("a", logprobs=(Logprob(choice, (choice,)),))
    assert second == Delta(thinking="t")
    assert isinstance(end, End)
    assert (end.reason, end.context) == (Reason.LENGTH, (1, 2))
    assert end.metrics is not None
    assert end.metrics.eval_count == 3
    assert end.metrics.total_duration > 0
    assert asked.asked[0] == (
        "/api/generate",
        {
            "model": "go:latest",
            "stream": True,
            "format": {"type": "object"},
            "options": {"seed": 1},
            "think": True,
            "logprobs": True,
            "prompt": "p",
            "system": "s",
            "context": [1],
        },
    )


async def test_tool_calls_of_an_ollama_server(lib: Library) -> None:
    function = {"index": 1, "name": "add", "arguments": {"a": 1}}
    message = {"role": "assistant", "tool_calls": [{"id": "x", "function": function}]}
    asked = ollama(lib, {"message": message}, {"message": {}, "done": True})
    called, end = await asked.events(ChatWish(model="go", messages=(USER,), tools=(TOOL,)))
    assert called == Delta(tool_calls=(ToolCall("add", {"a": 1}, "x", 1),))
    assert isinstance(end, End)
    assert end.made_tool_calls
    assert asked.asked[0][1]["messages"] == [{"role": "user", "content": "hi"}]


async def test_what_an_ollama_server_would_render(lib: Library) -> None:
    asked = ollama(lib, {"_debug_info": {"rendered_template": "abc", "image_count": 1}})
    wish = ChatWish(model="go", messages=(USER,), debug_render_only=True)
    assert await asked.events(wish) == [Rendered("abc", 1)]


@pytest.mark.parametrize(
    "frame",
    [
        {"message": {"tool_calls": [{}]}},
        {"message": {"tool_calls": [{"function": {"name": "a", "arguments": 5}}]}},
        {"message": {}, "logprobs": [{"token": "a"}]},
        {"message": {"tool_calls": 5}},
    ],
)
async def test_frames_that_are_none(lib: Library, frame: dict[str, Any]) -> None:
    with pytest.raises(OperationFailed, match="cannot be read"):
        await ollama(lib, frame).events(ChatWish(model="go", messages=(USER,)))


async def test_an_ollama_server_that_stops_in_mid_answer_is_lost(lib: Library) -> None:
    with pytest.raises(WorkerLost):
        await ollama(lib, {"message": {"content": "a"}}).events(
            ChatWish(model="go", messages=(USER,))
        )


async def test_a_server_that_only_chats_is_passed_over_for_what_it_cannot_do(lib: Library) -> None:
    asked = Desk(lib, FakeWorker("a", dialect=Dialect.OPENAI), None)
    other = FakeWorker("b")
    asked.router.add(other)
    await asked.events(GenerateWish(model="fill", prompt="a", suffix="b"))
    assert (asked.worker.leases, len(other.leases)) == ([], 1)
    chat = ChatWish(model="go", messages=(USER,), debug_render_only=True)
    assert await asked.events(chat) == [Rendered("<user>hi<assistant>")]
    asked.router.remove("b")
    with pytest.raises(Unsupported, match="_debug_render_only"):
        await asked.events(chat)
