"""Wishes become requests to a worker, and its pieces the events of an answer."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from registry.core.duration import LONGEST
from registry.core.errors import OperationFailed, RequestInvalid
from registry.core.generation import Choice, Delta, End, Logprob, Metrics, Reason, Rendered
from registry.core.wishes import ChatWish, GenerateWish, Message, ToolCall
from registry.ports.workers import Dialect, Piece, Stop, Timings, ToolPiece
from registry.settings import Worker
from tests.support.desk import GO, LLAMA, TOOL, USER, Desk, desk, model_shelf, saying, text_of
from tests.support.fake_worker import FakeWorker, Script
from tests.support.library import Library

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def lib(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Library]:
    async with model_shelf(tmp_path_factory.mktemp("library") / "data") as made:
        yield made


# --- prompts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "prompt"),
    [
        (GenerateWish(model="plain", prompt="hi"), "hi"),
        (GenerateWish(model="plain", prompt="hi", system="x"), "hi"),
        (GenerateWish(model="plain", prompt=" r ", raw=True), " r "),
        (GenerateWish(model="system", prompt="hi"), "Be kind.|hi|"),
        (GenerateWish(model="system", prompt="hi", system="Be brief."), "Be brief.|hi|"),
        (GenerateWish(model="system", prompt="hi", raw=True), "hi"),
        (GenerateWish(model="system", prompt="hi", template="{{ .Prompt }}!"), "hi!"),
        (GenerateWish(model="fill", prompt="a", suffix="b"), "<P>a<S>b<M>"),
        (GenerateWish(model="go", prompt="hi"), "<user>hi<assistant>"),
        (GenerateWish(model="go", prompt="hi", context=(65, 66)), "AB<user>hi<assistant>"),
        (GenerateWish(model="native", prompt="hi"), "user>hi"),  # the mark comes by itself
        (ChatWish(model="go", messages=(USER,)), "<user>hi<assistant>"),
        (ChatWish(model="system", messages=(USER,)), "Be kind.|hi|"),
        (ChatWish(model="system", messages=(Message("system", "S"), USER)), "S|hi|"),
        (
            ChatWish(model="system", messages=(USER, Message("system", "S"), Message("user", "b"))),
            "Be kind.|hi|S|b|",
        ),
        (
            ChatWish(
                model="go", messages=(USER, Message("user", "you"), Message("assistant", "a"))
            ),
            "<user>hi\n\nyou<assistant>a<assistant>",
        ),
    ],
)
async def test_prompts(lib: Library, wish: GenerateWish | ChatWish, prompt: str) -> None:
    asked = desk(lib)
    await asked.events(wish)
    assert asked.body("complete")["prompt"] == prompt
    (rendered,) = await asked.events(replace(wish, debug_render_only=True))
    assert rendered == Rendered(prompt)


async def test_the_engine_makes_the_prompts_of_chats_where_its_template_is_the_better(
    lib: Library,
) -> None:
    asked = desk(lib)
    call = ToolCall("add", {"b": 1.0}, "call_1")
    messages = (
        USER,
        Message("assistant", "", thinking="hm", tool_calls=(call,)),
        Message("tool", "3", tool_name="add", tool_call_id="call_1"),
    )
    properties = {"properties": {"n": {"type": ("integer",)}, "m": {"type": ("a", "b")}}}
    tool = {"function": {"name": "add", "parameters": properties}}
    await asked.events(ChatWish(model="native", messages=messages, tools=(tool,), think="low"))
    body = asked.body("chat")
    assert body["messages"] == [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "reasoning_content": "hm",
            "tool_calls": [
                {
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"b":1}'},
                    "id": "call_1",
                }
            ],
            "content": "",
        },
        {"role": "tool", "tool_call_id": "call_1", "name": "add", "content": "3"},
    ]
    assert body["tools"][0]["type"] == "function"  # engines want it, clients leave it out
    types = body["tools"][0]["function"]["parameters"]["properties"]
    assert types == {"n": {"type": "integer"}, "m": {"type": ["a", "b"]}}
    assert body["chat_template_kwargs"] == {"enable_thinking": True, "reasoning_effort": "low"}


async def test_a_tool_that_no_engine_reads_is_refused_in_words(lib: Library) -> None:
    asked = desk(lib)
    wish = ChatWish(model="native", messages=(USER,), tools=(TOOL, {}))
    with pytest.raises(RequestInvalid, match="invalid tool at 1: its function has no name"):
        await asked.events(wish)
    with pytest.raises(RequestInvalid, match="invalid tool at 1"):
        await asked.events(replace(wish, debug_render_only=True))
    assert asked.asked == []
    await asked.events(replace(wish, model="go"))  # a text is made of it, whatever it is


@pytest.mark.parametrize(
    ("go_template", "model", "way"),
    [
        ("auto", "go", "complete"),
        ("off", "go", "chat"),
        ("on", "go", "complete"),
        ("auto", "native", "chat"),
        ("on", "native", "chat"),
        ("auto", "plain", "chat"),
    ],
)
async def test_who_renders(lib: Library, go_template: Any, model: str, way: str) -> None:
    asked = desk(lib, settings=Worker(go_template=go_template))
    await asked.events(ChatWish(model=model, messages=(USER,)))
    assert asked.asked[-1][0] == way
    assert asked.worker.leases[-1].spec.options.jinja is (way == "chat")


async def test_gaps_are_filled_by_the_go_template_even_where_it_is_off(lib: Library) -> None:
    asked = desk(lib, settings=Worker(go_template="off"))
    await asked.events(GenerateWish(model="fill", prompt="a", suffix="b"))
    assert asked.body("complete")["prompt"] == "<P>a<S>b<M>"


@pytest.mark.parametrize("token", [-1, 1 << 40])
async def test_a_context_is_made_of_tokens(lib: Library, token: int) -> None:
    with pytest.raises(RequestInvalid, match="not in the model's vocabulary"):
        await desk(lib).events(GenerateWish(model="plain", prompt="x", context=(65, token)))


async def test_what_is_wrong_with_a_template_is_told(lib: Library) -> None:
    with pytest.raises(OperationFailed, match="Nope"):
        await desk(lib).events(ChatWish(model="broken", messages=(USER,)))
    with pytest.raises(OperationFailed, match="template: :1: unclosed action"):
        await desk(lib).events(GenerateWish(model="plain", prompt="x", template="{{ .A"))


async def test_a_renderer_of_ollamas_own_needs_an_ollama_server(lib: Library) -> None:
    with pytest.raises(RequestInvalid, match='renderer "qwen3-coder" is not supported'):
        await desk(lib).events(ChatWish(model="named", messages=(USER,)))
    frames = [{"message": {"content": "x"}, "done": False}, {"done": True, "done_reason": "length"}]
    worker = FakeWorker(script=Script(frames=frames), dialect=Dialect.OLLAMA)
    events = await Desk(lib, worker, None).events(ChatWish(model="named", messages=(USER,)))
    assert events[0] == Delta("x")


# --- options --------------------------------------------------------------------------------------


async def test_options_of_the_request_win_over_those_of_the_model(lib: Library) -> None:
    asked = desk(lib)
    options = {"top_k": 7.9, "seed": 5, "odd": 1, "min_p": None}
    await asked.events(GenerateWish(model="set", prompt="x", options=options))
    body = asked.body("complete")
    assert (body["top_k"], body["seed"], body["min_p"], body["stop"]) == (7, 5, 0.0, ["x"])
    assert body["n_predict"] == 500
    assert asked.worker.leases[-1].spec.options.num_ctx == 50


@pytest.mark.parametrize(
    ("given", "default", "num_ctx"),
    [({}, 0, 100), ({}, 30, 30), ({"num_ctx": 60}, 30, 60), ({"num_ctx": 1e9}, 0, 100)],
)
async def test_the_size_of_the_context(
    lib: Library, given: dict[str, Any], default: int, num_ctx: int
) -> None:
    asked = desk(lib, settings=Worker(context_length=default, parallel=3))
    await asked.events(GenerateWish(model="plain", prompt="x", options=given))
    options = asked.worker.leases[-1].spec.options
    assert (options.num_ctx, options.num_batch, options.parallel) == (num_ctx, num_ctx, 3)


@pytest.mark.parametrize(
    ("keep_alive", "seconds"),
    [(None, 300.0), (0, 0.0), (2_500_000_000, 2.5), (LONGEST, None)],
)
async def test_how_long_a_model_stays(
    lib: Library, keep_alive: int | None, seconds: float | None
) -> None:
    asked = desk(lib)
    await asked.events(GenerateWish(model="plain", prompt="x", keep_alive=keep_alive))
    assert asked.worker.leases[-1].released == [seconds]


@pytest.mark.parametrize(("shift", "shifts"), [(None, True), (True, True), (False, False)])
async def test_an_answer_may_go_on_when_its_context_is_full_unless_told_otherwise(
    lib: Library, shift: bool | None, shifts: bool
) -> None:
    asked = desk(lib)
    await asked.events(GenerateWish(model="plain", prompt="x", shift=shift))
    assert asked.worker.leases[-1].spec.options.shift is shifts


# --- answers --------------------------------------------------------------------------------------


async def test_an_answer_ends_with_its_numbers(lib: Library) -> None:
    asked = desk(lib, *saying("Hel", "", "lo", stop=Stop(True, "", Timings(7, 1.5, 2, 2.5))))
    events = await asked.events(GenerateWish(model="plain", prompt="hi"))
    assert events[:-1] == [Delta("Hel"), Delta("lo")]
    end = events[-1]
    assert isinstance(end, End)
    assert end.metrics is not None
    assert end.metrics.load_duration > 0
    assert end.metrics.total_duration > end.metrics.load_duration
    numbers = replace(end.metrics, load_duration=0, total_duration=0)
    assert numbers == Metrics(0, 0, 7, 1_500_000, 2, 2_500_000)
    assert end.reason is Reason.LENGTH
    assert end.context == (1, ord("h"), ord("i"), 0, 1, 2)


async def test_raw_answers_and_chats_have_no_context(lib: Library) -> None:
    for wish in (
        GenerateWish(model="plain", prompt="hi", raw=True),
        ChatWish(model="go", messages=(USER,)),
    ):
        end = (await desk(lib).events(wish))[-1]
        assert isinstance(end, End)
        assert end.context is None


async def test_nothing_to_say_loads_and_zero_unloads(lib: Library) -> None:
    asked = desk(lib)
    assert await asked.events(GenerateWish(model="plain")) == [End(Reason.LOAD)]
    assert await asked.events(ChatWish(model="plain", messages=())) == [End(Reason.LOAD)]
    assert asked.asked == []
    assert await asked.events(ChatWish(model="plain", keep_alive=0)) == [End(Reason.UNLOAD)]
    assert asked.worker.unloaded == [asked.worker.leases[-1].spec.model.digest]


async def test_thoughts_are_told_apart_only_where_they_are_wanted(lib: Library) -> None:
    pieces = saying("<thi", "nk>I ", "see</think>", " Yes")
    wish = ChatWish(model="go", messages=(USER,))
    assert text_of(await desk(lib, *pieces).events(wish)) == ("I see", "Yes")
    told = text_of(await desk(lib, *pieces).events(replace(wish, think=False)))
    assert told == ("", "<think>I see</think> Yes")


async def test_what_was_held_back_is_told_at_the_end(lib: Library) -> None:
    wish = ChatWish(model="go", messages=(USER,))
    assert text_of(await desk(lib, *saying("<think>a</th")).events(wish)) == ("a</th", "")
    tools = replace(wish, tools=(TOOL,))
    assert text_of(await desk(lib, *saying("yes <ca")).events(tools)) == ("", "yes <ca")


async def test_tool_calls_come_whole(lib: Library) -> None:
    pieces = saying("Sure.", "<call>", '{"name": "add", ', '"arguments": {"a": 1}}')
    wish = ChatWish(model="go", messages=(USER,), tools=(TOOL,))
    events = await desk(lib, *pieces).events(wish)
    said, called, end = events
    assert said == Delta("Sure.")
    assert isinstance(called, Delta)
    assert isinstance(end, End)
    (call,) = called.tool_calls
    assert (call.name, call.arguments, call.index) == ("add", {"a": 1}, 0)
    assert call.id.startswith("call_")
    assert len(call.id) == 13
    assert end.made_tool_calls


@pytest.mark.parametrize(
    ("marker", "marks"),
    [("<call>", ["<call>"]), ("[CALLS] [", ["[CALLS]"]), ("call:", ["call:"]), ("[", [])],
)
async def test_the_engine_must_print_what_tells_a_call(
    lib: Library, marker: str, marks: list[str]
) -> None:
    template = GO.replace("<call>", marker)
    await lib.make("marked", files={"m.gguf": await lib.put(LLAMA)}, template=template)
    asked = desk(lib)
    wish = ChatWish(model="marked", messages=(USER,), tools=(TOOL,), think=False)
    await asked.events(wish)
    assert asked.body("complete").get("preserved_tokens", []) == marks
    await asked.events(replace(wish, think=True, tools=None))
    assert asked.body("complete")["preserved_tokens"] == ["<think>", "</think>"]


async def test_an_engine_that_tells_tool_calls_apart_gives_them_in_pieces(lib: Library) -> None:
    pieces = [
        Piece(reasoning="hm"),
        Piece("Sure."),
        Piece(tool_calls=(ToolPiece(0, "id0", "add"),)),
        Piece(tool_calls=(ToolPiece(0, arguments='{"a"'), ToolPiece(1, "", "sub"))),
        Piece(tool_calls=(ToolPiece(0, arguments=": 1}"),)),
        Piece(stop=Stop()),
    ]
    wish = ChatWish(model="native", messages=(USER,), tools=(TOOL,))
    events = await desk(lib, *pieces).events(wish)
    assert events[:2] == [Delta(thinking="hm"), Delta("Sure.")]
    assert isinstance(events[2], Delta)
    first, second = events[2].tool_calls
    assert first == ToolCall("add", {"a": 1}, "id0", 0)
    assert (second.name, second.arguments, second.index) == ("sub", {}, 1)
    assert second.id.startswith("call_")


@pytest.mark.parametrize("arguments", ['{"a"', "[1]"])
async def test_a_broken_call_is_an_error_unless_the_limit_broke_it(
    lib: Library, arguments: str
) -> None:
    pieces = [Piece(tool_calls=(ToolPiece(0, "id", "add", arguments),))]
    wish = ChatWish(model="native", messages=(USER,), tools=(TOOL,))
    with pytest.raises(OperationFailed, match="'add' is not valid JSON"):
        await desk(lib, *pieces, Piece(stop=Stop())).events(wish)
    if arguments.startswith("{"):
        events = await desk(lib, *pieces, Piece(stop=Stop(limit=True))).events(wish)
        assert len(events) == 1


async def test_an_answer_that_repeats_itself_is_ended(lib: Library) -> None:
    pieces = [*[Piece(" la", tokens=(1,))] * 100, Piece(stop=Stop())]
    events = await desk(lib, *pieces).events(GenerateWish(model="plain", prompt="x"))
    end = events[-1]
    assert isinstance(end, End)
    assert (len(events), end.reason) == (33, Reason.LENGTH)
    assert end.metrics is not None
    assert end.metrics.eval_count == 32


async def test_as_many_likely_tokens_as_were_asked_for(lib: Library) -> None:
    top = (Choice("a", -0.1), Choice("b", -2.0), Choice("c", -3.0))
    pieces = [Piece("a", logprobs=(Logprob(top[0], top),)), Piece(stop=Stop())]
    for model, key in (("plain", "n_probs"), ("native", "top_logprobs")):
        for count, sent in ((0, 1), (2, 2)):
            asked = desk(lib, *pieces)
            likely: dict[str, Any] = {"model": model, "logprobs": True, "top_logprobs": count}
            chat = ChatWish(messages=(USER,), **likely)
            wish = chat if model == "native" else GenerateWish(prompt="x", **likely)
            events = await asked.events(wish)
            assert events[0] == Delta("a", logprobs=(Logprob(top[0], top[:count]),))
            assert asked.asked[0][1][key] == sent
