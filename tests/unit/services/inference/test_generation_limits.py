"""Formats, prompts that are too long, images."""

import base64
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from registry.core.errors import (
    OperationFailed,
    PromptTooLong,
    RegistryError,
    RequestInvalid,
)
from registry.core.generation import End, Reason, Rendered
from registry.core.gguf import Kind
from registry.core.gojson import Raw
from registry.core.wishes import ChatWish, GenerateWish, Message
from registry.ports.workers import Dialect, Embedded, Piece, Running
from registry.services.inference.formats import ANY_OBJECT
from tests.support.desk import TOOL, USER, Desk, desk, model_shelf, saying, text_of
from tests.support.fake_worker import FakeRunning, FakeWorker
from tests.support.gguf import field, gguf
from tests.support.library import Library

pytestmark = pytest.mark.anyio

SCHEMA = Raw(b'{"type":"object"}')
STRICT = {"type": "object", "x-guidance": {"whitespace_flexible": False}}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def lib(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Library]:
    async with model_shelf(tmp_path_factory.mktemp("library") / "data") as made:
        yield made


# --- formats --------------------------------------------------------------------------------------


async def test_a_format_goes_along_as_a_schema(lib: Library) -> None:
    asked = desk(lib)
    await asked.events(GenerateWish(model="plain", prompt="x", format=SCHEMA))
    assert asked.body("complete")["json_schema"] == STRICT
    await asked.events(ChatWish(model="native", messages=(USER,), format=Raw(b'"json"')))
    form = asked.body("chat")["response_format"]
    assert form == {
        "type": "json_schema",
        "json_schema": {"name": "schema", "schema": ANY_OBJECT},
    }


async def test_a_format_waits_until_the_model_has_done_with_thinking(lib: Library) -> None:
    asked = desk(lib, *saying("<think>", "I see", "</think>\n", "\nYes", " no"))
    wish = ChatWish(model="go", messages=(USER,), format=SCHEMA)
    events = await asked.events(wish)
    first, second = [body for what, body in asked.asked if what == "complete"]
    assert "json_schema" not in first
    assert second["json_schema"] == STRICT
    assert second["prompt"] == first["prompt"] + "<think>I see</think>\n\n"
    thinking, content = text_of(events)
    assert thinking == "I see"
    assert content == "<think>I see</think>\n\nYes no"  # of the second run, thoughts are over
    end = events[-1]
    assert isinstance(end, End)
    assert end.metrics is not None
    assert end.metrics.eval_count == 5 + 4


async def test_a_model_that_does_not_think_after_all_is_held_to_the_format_too(
    lib: Library,
) -> None:
    asked = desk(lib, *saying("Yes", " no"))
    await asked.events(ChatWish(model="go", messages=(USER,), format=SCHEMA))
    first, second = [body for what, body in asked.asked if what == "complete"]
    assert (first["prompt"], second["json_schema"]) == (second["prompt"], STRICT)


async def test_a_format_applies_at_once_without_thinking(lib: Library) -> None:
    asked = desk(lib)
    await asked.events(ChatWish(model="go", messages=(USER,), format=SCHEMA, think=False))
    assert [what for what, _ in asked.asked] == ["complete"]
    assert asked.body("complete")["json_schema"] == STRICT


async def test_thoughts_without_an_answer_end_the_answer(lib: Library) -> None:
    asked = desk(lib, *saying("<think>", "I see"))
    events = await asked.events(ChatWish(model="go", messages=(USER,), format=SCHEMA))
    assert text_of(events) == ("I see", "")
    assert isinstance(events[-1], End)
    assert len(asked.asked) == 1


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (b'"yaml"', OperationFailed, "invalid format:"),
        (b"[]", OperationFailed, "invalid format:"),
        (b'{"type":"nope"}', RequestInvalid, "Invalid type: nope"),
        (b'{"$ref":"#/nope"}', RequestInvalid, "Pointer '/nope' does not exist"),
        (b'{"not":{}}', RequestInvalid, "Unimplemented keys"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, RequestInvalid, "nested deeper than 64"),
        (b'{"a":"' + b"x" * 70_000 + b'"}', RequestInvalid, "larger than 65536"),
        (b'{"maximum":' + b"1" * 5000 + b"}", RequestInvalid, "cannot be read"),
    ],
)
async def test_what_no_engine_can_keep_to_is_refused_before_it_is_asked(
    lib: Library, given: bytes, error: type[RegistryError], message: str
) -> None:
    asked = desk(lib)
    with pytest.raises(error, match=message):
        await asked.events(GenerateWish(model="plain", prompt="x", format=Raw(given)))
    assert not asked.worker.leases


@pytest.mark.parametrize("given", [b"null", b'""', b" null "])
async def test_no_format_is_none(lib: Library, given: bytes) -> None:
    asked = desk(lib)
    await asked.events(GenerateWish(model="plain", prompt="x", format=Raw(given)))
    assert "json_schema" not in asked.body("complete")


async def test_engines_take_no_format_with_tools(lib: Library) -> None:
    wish = ChatWish(model="native", messages=(USER,), tools=(TOOL,), format=SCHEMA)
    with pytest.raises(RequestInvalid, match="format and tools cannot be combined"):
        await desk(lib).events(wish)


# --- too long -------------------------------------------------------------------------------------


class Narrow(FakeWorker):
    """Its runners hold so many code points, as an engine holds tokens."""

    def __init__(self, holds: int, dialect: Dialect = Dialect.LLAMA) -> None:
        super().__init__(dialect=dialect)
        self.holds = holds

    async def acquire(self, spec: Any) -> Running:
        running = await super().acquire(spec)
        assert isinstance(running, FakeRunning)
        return _NarrowRunning(running, self.holds)


class _NarrowRunning(Running):
    def __init__(self, running: FakeRunning, holds: int) -> None:
        self._running = running
        self._holds = holds

    def native(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
        return self._running.native(path, body)

    async def embed(self, texts: Any, *, normalize: bool = True) -> Embedded:
        return await self._running.embed(texts, normalize=normalize)

    dialect = property(lambda self: self._running.dialect)
    worker = property(lambda self: self._running.worker)
    load_ns = property(lambda self: 0)

    async def complete(self, body: Mapping[str, Any]) -> AsyncIterator[Piece]:
        self._check(len(body["prompt"]) + (isinstance(body["prompt"], str)))
        async for piece in self._running.complete(body):
            yield piece

    async def chat(self, body: Mapping[str, Any]) -> AsyncIterator[Piece]:
        rendered = await self._running.apply_template(body)
        self._check(len(rendered) + 1)
        async for piece in self._running.chat(body):
            yield piece

    async def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        return await self._running.tokenize(text, special=special)

    async def detokenize(self, tokens: Any) -> str:
        return await self._running.detokenize(tokens)

    async def apply_template(self, body: Mapping[str, Any]) -> str:
        return await self._running.apply_template(body)

    async def release(self, keep_alive_s: float | None) -> None:
        await self._running.release(keep_alive_s)

    def _check(self, tokens: int) -> None:
        if tokens >= self._holds:
            raise PromptTooLong("too long", tokens, self._holds)


def long_chat(model: str, count: int, **given: Any) -> ChatWish:
    """A system message among many, the last of which is `z`."""
    turns = [Message(("user", "assistant")[i % 2], f"{i:03}") for i in range(count)]
    messages = (turns[0], Message("system", "S"), *turns[1:], Message("user", "z"))
    return ChatWish(model=model, messages=messages, options={"num_ctx": 60}, **given)


async def test_the_oldest_messages_make_room_but_for_those_of_the_system(lib: Library) -> None:
    asked = Desk(lib, Narrow(60), None)
    await asked.events(long_chat("go", 50))
    prompt = asked.body("complete")["prompt"]
    assert prompt == "<system>S<user>048<assistant>049<user>z<assistant>"
    asked = Desk(lib, Narrow(60), None)
    await asked.events(long_chat("native", 50))
    sent = [message["content"] for message in asked.body("chat")["messages"]]
    assert sent == ["S", "047", "048", "049", "z"]


async def test_a_message_that_alone_is_too_long_loses_its_middle(lib: Library) -> None:
    asked = Desk(lib, Narrow(60), None)
    text = "".join(chr(0x100 + i) for i in range(100))
    wish = GenerateWish(model="plain", prompt=text, options={"num_ctx": 60, "num_keep": 9})
    events = await asked.events(wish)
    sent = asked.body("complete")["prompt"]
    assert sent == [1, *map(ord, text[:9]), *map(ord, text[-25:])]
    end = events[-1]
    assert isinstance(end, End)
    assert end.context == (*sent, 3, 4)


@pytest.mark.parametrize(
    "wish",
    [
        long_chat("go", 50, truncate=False),
        long_chat("native", 50, truncate=False),
        GenerateWish(model="plain", prompt="x" * 100, options={"num_ctx": 60}, truncate=False),
        GenerateWish(model="plain", prompt="x" * 100, options={"num_ctx": 60}, shift=False),
        ChatWish(model="native", messages=(Message("user", "x" * 100),), options={"num_ctx": 60}),
    ],
)
async def test_what_may_not_be_cut_is_refused(lib: Library, wish: GenerateWish | ChatWish) -> None:
    with pytest.raises(PromptTooLong):
        await Desk(lib, Narrow(60), None).events(wish)


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "sense"), [(b"\x89PNG\r\n\x1a\n", "vision"), (b"RIFF....WAVE", "audio")]
)
async def test_images_need_a_model_that_sees(lib: Library, data: bytes, sense: str) -> None:
    for wish in (
        GenerateWish(model="plain", prompt="x", images=(data,)),
        ChatWish(model="native", messages=(Message("user", "x", images=(None, data)),)),
    ):
        with pytest.raises(RequestInvalid, match=f"{wish.model}:latest does not support {sense}"):
            await desk(lib).events(wish)


PNG, GIF = b"\x89PNG\r\n\x1a\n1", b"GIF89a2"


async def test_some_models_take_one_image_at_a_time(lib: Library) -> None:
    model = gguf(
        field("general.architecture", Kind.STRING, "mllama"),
        field("mllama.block_count", Kind.U32, 1),
        field("mllama.vision.block_count", Kind.U32, 1),
    )
    await lib.make("one-eyed", files={"m.gguf": await lib.put(model)})
    wish = ChatWish(model="one-eyed", messages=(Message("user", "a", images=(PNG, GIF)),))
    with pytest.raises(RequestInvalid, match="only supports one image"):
        await desk(lib).events(wish)


async def test_a_rendered_prompt_names_its_images(lib: Library) -> None:
    asked = desk(lib)
    wish = ChatWish(
        model="eyes",
        messages=(Message("user", "a", images=(PNG,)), Message("user", "[img]b", images=(GIF,))),
        options={"num_ctx": 10},
    )
    await asked.events(wish)
    assert asked.body("complete")["prompt"] == {
        "prompt_string": "<user>[img-0]a\n\n[img-1]b<assistant>",
        "multimodal_data": [base64.b64encode(PNG).decode(), base64.b64encode(GIF).decode()],
    }
    assert asked.worker.leases[-1].spec.options.num_ctx == 100  # images need 2048, 100 are trained
    (rendered,) = await asked.events(replace(wish, debug_render_only=True))
    assert rendered == Rendered("<user>[img-0]a\n\n[img-1]b<assistant>", 2)


async def test_raw_and_direct_prompts_take_images_too(lib: Library) -> None:
    for given in ({"raw": True}, {"template": "{{ .Prompt }}"}):
        asked = desk(lib)
        wish = GenerateWish(model="eyes", prompt="[img-0]x", images=(PNG,), **given)
        await asked.events(wish)
        assert asked.body("complete")["prompt"]["multimodal_data"]


async def test_the_engine_gets_images_with_their_messages(lib: Library) -> None:
    asked = desk(lib)
    message = Message("user", "a", images=(PNG,))
    wish = ChatWish(model="native-eyes", messages=(message,))
    await asked.events(wish)
    (sent,) = asked.body("chat")["messages"]
    assert [part["type"] for part in sent["content"]] == ["text", "image_url"]
    assert await asked.events(replace(wish, debug_render_only=True)) == [
        Rendered("user>[img-0]a", 1)
    ]


async def test_old_images_make_room_as_if_they_were_many_words(lib: Library) -> None:
    asked = Desk(lib, Narrow(1365), None)
    seen = Message("user", "see[img]", images=(PNG,))
    messages = (seen, *[USER] * 170)  # 1360 tokens and the image's 768
    await asked.events(ChatWish(model="native-eyes", messages=messages, options={"num_ctx": 2048}))
    assert len(asked.body("chat")["messages"]) == 170


async def test_a_prompt_with_images_is_not_cut_in_the_middle(lib: Library) -> None:
    asked = desk(lib, complaint=PromptTooLong("too long", 5, 1))
    wish = ChatWish(model="eyes", messages=(Message("user", "x" * 300, images=(PNG,)),))
    with pytest.raises(PromptTooLong):
        await asked.events(wish)


async def test_a_text_far_too_long_is_counted_only_as_far_as_it_can_be_kept(
    lib: Library,
) -> None:
    asked = Desk(lib, Narrow(60), None)
    text = "a" * 5000 + "b" * 5000
    await asked.events(GenerateWish(model="plain", prompt=text, options={"num_ctx": 60}))
    counted = [len(body) for what, body in asked.asked if what == "tokenize"]
    assert counted[0] == 2 * 59 * 64
    sent = asked.body("complete")["prompt"]
    assert "".join(map(chr, sent[1:])) == "aaaa" + "b" * (len(sent) - 5)


async def test_many_messages_that_are_far_too_long_are_not_counted(lib: Library) -> None:
    asked = Desk(lib, Narrow(60), None)
    messages = [Message(("user", "assistant")[i % 2], "x" * 2000) for i in range(40)]
    wish = ChatWish(model="go", messages=(*messages, Message("user", "z")), options={"num_ctx": 60})
    await asked.events(wish)
    assert asked.body("complete")["prompt"] == "<user>z<assistant>"
    assert max(len(body) for what, body in asked.asked if what == "tokenize") < 60 * 64


async def test_long_conversations_are_rendered_beside_the_event_loop(lib: Library) -> None:
    asked = desk(lib)
    messages = [Message(("user", "assistant")[i % 2], "x") for i in range(2000)]
    await asked.events(ChatWish(model="go", messages=tuple(messages)))
    assert asked.body("complete")["prompt"].count("<user>") == 1000


async def test_a_format_after_thoughts_on_a_prompt_that_was_cut(lib: Library) -> None:
    worker = Narrow(60)
    worker.script.pieces = saying("<think>", "a", "</think>", "b")
    asked = Desk(lib, worker, None)
    wish = ChatWish(
        model="go", messages=(Message("user", "x" * 100),), format=SCHEMA, options={"num_ctx": 60}
    )
    with pytest.raises(PromptTooLong):  # what was thought did not leave room enough
        worker.holds = 40
        await asked.events(wish)
    worker.holds = 80
    await asked.events(replace(wish, messages=(Message("user", "x" * 200),)))
    first, second = [body["prompt"] for what, body in asked.asked if what == "complete"][-2:]
    assert isinstance(first, list)
    assert second == "".join(map(chr, first[1:])) + "<think>a</think>"


async def test_thinking_in_circles_is_ended(lib: Library) -> None:
    asked = desk(lib, *saying("<think>", *[" la"] * 100))
    events = await asked.events(ChatWish(model="go", messages=(USER,), format=SCHEMA))
    end = events[-1]
    assert isinstance(end, End)
    assert (end.reason, len(asked.asked)) == (Reason.LENGTH, 1)
