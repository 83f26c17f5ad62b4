"""A lease behind llama-server's HTTP, played on a socket: every answer, every way to break."""

import asyncio
import base64
import json
import struct
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from registry.adapters.llama_http import LlamaRunning
from registry.adapters.runner_wire import RunnerWire
from registry.core.errors import (
    OperationFailed,
    PromptTooLong,
    RegistryError,
    RequestInvalid,
    Unavailable,
    Unsupported,
    WorkerLost,
)
from registry.ports.workers import Dialect, Piece, Stop, Timings, ToolPiece
from tests.support.runner_server import Script, chunked, runner, whole

pytestmark = pytest.mark.anyio
TIMINGS = {"cache_n": 1, "prompt_n": 2, "prompt_ms": 3.0, "predicted_n": 4, "predicted_ms": 5.0}
MEANT = Timings(3, 3.0, 4, 5.0)


def event(**frame: Any) -> bytes:
    return b"data: " + json.dumps(frame).encode() + b"\n\n"


END = event(content="", tokens=[], stop=True, stop_type="eos", timings=TIMINGS)


def lease(wire: RunnerWire, given: list[float | None] | None = None) -> LlamaRunning:
    async def give_back(keep_alive_s: float | None) -> None:
        if given is not None:
            given.append(keep_alive_s)

    return LlamaRunning(wire, "w", 7, give_back)


async def completed(
    folder: Path, script: Script, body: dict[str, Any] | None = None
) -> list[Piece]:
    async with runner(folder, script) as wire:
        return [piece async for piece in lease(wire).complete(body or {"prompt": "x"})]


async def chatted(folder: Path, script: Script) -> list[Piece]:
    async with runner(folder, script) as wire:
        return [piece async for piece in lease(wire).chat({"messages": []})]


def sent(script: Script) -> Any:
    return json.loads(script.asked[-1].partition(b"\r\n\r\n")[2])


async def test_a_completion_comes_in_pieces_whatever_the_packets(tmp_path: Path) -> None:
    stream = event(content="a", tokens=[1]) + b": ping\n\n" + event(content="é", tokens=[2]) + END
    expected = [
        Piece("a", tokens=(1,)),
        Piece("é", tokens=(2,)),
        Piece(stop=Stop(False, "", MEANT)),
    ]
    assert await completed(tmp_path, chunked(stream)) == expected
    bits = [stream[at : at + 5] for at in range(0, len(stream), 5)]
    assert await completed(tmp_path, chunked(*bits)) == expected


async def test_what_streaming_needs_is_asked_for_whatever_the_body_says(tmp_path: Path) -> None:
    script = chunked(END)
    await completed(tmp_path, script, {"prompt": "x", "stream": False, "seed": 1})
    assert sent(script) == {
        "prompt": "x",
        "seed": 1,
        "stream": True,
        "return_tokens": True,
        "cache_prompt": True,
    }
    assert b"Authorization: Bearer secret" in script.asked[0]


async def test_only_a_long_prompt_is_reported_on(tmp_path: Path) -> None:
    for length, wanted in ((100, None), (2000, True)):
        script = chunked(END)
        await completed(tmp_path, script, {"prompt": "x" * length})
        assert sent(script).get("return_progress") is wanted


async def test_reports_on_the_way_through_a_prompt_are_no_pieces(tmp_path: Path) -> None:
    progress = event(content="", prompt_progress={"processed": 1})
    assert len(await completed(tmp_path, chunked(progress, END))) == 1
    progress = event(choices=[{"delta": {"content": None}}], prompt_progress={"processed": 1})
    end = event(choices=[{"delta": {}, "finish_reason": "stop"}], timings=TIMINGS)
    assert len(await chatted(tmp_path, chunked(progress, end))) == 1


async def test_a_chat_tells_text_thoughts_and_tool_calls_apart(tmp_path: Path) -> None:
    def delta(**values: Any) -> bytes:
        return event(choices=[{"index": 0, "delta": values, "finish_reason": None}])

    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}
    script = chunked(
        delta(role="assistant", content=None),
        delta(reasoning_content="hm"),
        delta(content="text"),
        delta(tool_calls=[call]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}]),
        event(choices=[], usage={}),
        event(choices=[{"delta": {}, "finish_reason": "length"}], timings=TIMINGS),
        b"data: [DONE]\n\n",
    )
    assert await chatted(tmp_path, script) == [
        Piece(),
        Piece(reasoning="hm"),
        Piece("text"),
        Piece(tool_calls=(ToolPiece(0, "c1", "f"),)),
        Piece(tool_calls=(ToolPiece(0, arguments='{"a"'),)),
        Piece(stop=Stop(True, "", MEANT)),
    ]


async def test_counts_of_usage_stand_in_for_timings(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 4, "completion_tokens": 2}
    script = chunked(event(choices=[{"delta": {}, "finish_reason": "stop"}], usage=usage))
    (piece,) = await chatted(tmp_path, script)
    assert piece.stop == Stop(False, "", Timings(prompt_tokens=4, tokens=2))


@pytest.mark.parametrize(
    "script",
    [
        chunked(event(content="a")),  # a runner that is killed may end its body as one that is done
        chunked(event(content="a"), cut=True),
        Script([b"HTTP/1.1 200 OK\r\n"]),
        Script([]),
        Script([b"\x00\x01 this is not HTTP\r\n\r\n"]),
        whole(event(content="a")[:-9]),
    ],
)
async def test_an_answer_without_its_last_frame_is_a_lost_one(
    tmp_path: Path, script: Script
) -> None:
    with pytest.raises(WorkerLost):
        await completed(tmp_path, script)
    with pytest.raises(WorkerLost):
        await chatted(tmp_path, script)


async def test_nobody_there_is_a_lost_worker_and_told_to_its_owner(tmp_path: Path) -> None:
    told: list[int] = []
    wire = RunnerWire(str(tmp_path / "none.sock"), "", lambda: told.append(1))
    with pytest.raises(WorkerLost):
        await lease(wire).tokenize("x")
    assert told == [1]


@pytest.mark.parametrize(
    ("status", "body", "error", "text"),
    [
        (400, {"error": {"message": "bad grammar"}}, RequestInvalid, "bad grammar"),
        (400, {"error": "plain words"}, RequestInvalid, "plain words"),
        (400, "no JSON", RequestInvalid, "no JSON"),
        (400, {"error": {}}, RequestInvalid, "the runner answered with status 400"),
        (500, {"error": {"message": "in /home/u/blobs/x"}}, OperationFailed, "in the file"),
        (501, {"error": {"message": "no embeddings"}}, Unsupported, "no embeddings"),
        (503, {"error": {"message": "Loading model"}}, Unavailable, "Loading model"),
        (404, {"error": {"message": "File Not Found"}}, OperationFailed, "File Not Found"),
    ],
)
async def test_refusals_keep_their_words_and_their_kind(
    tmp_path: Path, status: int, body: Any, error: type[RegistryError], text: str
) -> None:
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    script = whole(raw, f"{status} Reason")
    for ask in (completed, chatted):
        with pytest.raises(error) as caught:
            await ask(tmp_path, script)
        assert type(caught.value) is error
        assert str(caught.value) == text


async def test_a_prompt_that_is_too_long_says_by_how_much(tmp_path: Path) -> None:
    refusal = {
        "message": "too many",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 9,
        "n_ctx": 8,
    }
    with pytest.raises(PromptTooLong, match="too many") as caught:
        await completed(tmp_path, whole(json.dumps({"error": refusal}).encode(), "400 Bad"))
    assert (caught.value.tokens, caught.value.num_ctx) == (9, 8)


@pytest.mark.parametrize(
    "frame",
    [
        b'error: {"message":"it broke","code":500}\n\n',
        b'data: {"error":{"message":"it broke","code":500}}\n\n',
        b'data: {"error":"it broke"}\n\n',
    ],
)
async def test_a_failure_in_mid_answer_is_raised_after_what_came_before(
    tmp_path: Path, frame: bytes
) -> None:
    seen = []
    async with runner(tmp_path, chunked(event(content="a"), frame)) as wire:
        with pytest.raises(OperationFailed, match="it broke"):
            async for piece in lease(wire).complete({"prompt": "x"}):
                seen.append(piece.content)  # noqa: PERF401  # what came before the error counts
    assert seen == ["a"]


@pytest.mark.parametrize(
    "frame",
    [
        b"data: {nonsense\n\n",
        b'data: {"tokens": 5}\n\n',
        b'data: {"stop": true, "timings": {"prompt_n": "x"}}\n\n',
        b'data: {"completion_probabilities": [5]}\n\n',
    ],
)
async def test_frames_that_mean_nothing_fail_in_one_sentence(tmp_path: Path, frame: bytes) -> None:
    with pytest.raises(OperationFailed, match="the runner's answer"):
        await completed(tmp_path, chunked(frame))


@pytest.mark.parametrize(
    "frame", [b'data: {"choices": [5]}\n\n', b'data: {"choices": {"a":1}}\n\n']
)
async def test_so_do_those_of_chats(tmp_path: Path, frame: bytes) -> None:
    with pytest.raises(OperationFailed, match="the runner's answer"):
        await chatted(tmp_path, chunked(frame))


async def test_a_frame_without_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.adapters.llama_http._EVENT_BYTES", 1000)
    with pytest.raises(OperationFailed, match="has no end"):
        await completed(tmp_path, chunked(*[b"data: {" + b"x" * 400] * 9))


async def test_closing_an_answer_closes_its_connection(tmp_path: Path) -> None:
    script = chunked(*[event(content="a")] * 1000, pause_s=0.005)
    async with runner(tmp_path, script) as wire:
        running = lease(wire)
        async with aclosing(running.complete({"prompt": "x"})) as answer:
            async for _ in answer:
                break
        assert await gone(script)


async def test_giving_the_lease_back_closes_what_still_runs(tmp_path: Path) -> None:
    script = chunked(*[event(content="a")] * 1000, pause_s=0.005)
    given: list[float | None] = []
    told: list[int] = []
    async with runner(tmp_path, script, told) as wire:
        running = lease(wire, given)
        answer = running.complete({"prompt": "x"})
        await anext(answer)
        await running.release(3.0)
        assert await gone(script)
        await answer.aclose()
    assert given == [3.0]
    assert told == []  # it was us


async def gone(script: Script) -> bool:
    for _ in range(200):
        if script.left:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_silence_for_too_long_is_the_end(tmp_path: Path) -> None:
    script = chunked(event(content="a"), event(content="b"), pause_s=3.0)
    told: list[int] = []
    async with runner(tmp_path, script, told, stall_s=0.05) as wire:
        with pytest.raises(WorkerLost):
            async for _ in lease(wire).complete({"prompt": "x"}):
                pass
    assert told == [1]


@pytest.mark.parametrize("script", [chunked(event(content="a"), cut=True), Script([])])
async def test_an_answer_that_breaks_off_is_told_to_the_runners_owner(
    tmp_path: Path, script: Script
) -> None:
    told: list[int] = []
    async with runner(tmp_path, script, told) as wire:
        with pytest.raises(WorkerLost):
            async for _ in lease(wire).complete({"prompt": "x"}):
                pass
    assert told == [1]


async def test_a_slow_reader_is_waited_for(tmp_path: Path) -> None:
    many = [event(content="x" * 1000, tokens=[n]) for n in range(2000)]
    async with runner(tmp_path, chunked(*many, END)) as wire:
        count = 0
        async for piece in lease(wire).complete({"prompt": "x"}):
            count += len(piece.tokens)
            if count % 500 == 0:
                await asyncio.sleep(0.01)
    assert count == 2000


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


async def test_vectors_come_in_the_order_of_their_texts(tmp_path: Path) -> None:
    data = [{"index": 1, "embedding": packed(0.5, 0.25)}, {"index": 0, "embedding": [1, 2]}]
    script = whole(json.dumps({"data": data, "usage": {"prompt_tokens": 9}}).encode())
    async with runner(tmp_path, script) as wire:
        found = await lease(wire).embed(["a", "b"], normalize=False)
    assert (found.vectors, found.prompt_tokens) == ([[1.0, 2.0], [0.5, 0.25]], 9)
    assert sent(script) == {"input": ["a", "b"], "encoding_format": "base64", "embd_normalize": -1}


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        ("200 OK", {"data": [{"index": 0, "embedding": "?"}]}, OperationFailed),
        ("200 OK", {"data": 5}, OperationFailed),
        ("200 OK", [1], OperationFailed),
        ("200 OK", {"data": [{"index": 0, "embedding": "QQ=="}], "usage": {}}, OperationFailed),
        ("500 E", {"error": {"message": "input is too large to process"}}, PromptTooLong),
        ("400 E", {"error": {"message": "exceeds the context size"}}, PromptTooLong),
        ("400 E", {"error": {"message": "other"}}, RequestInvalid),
    ],
)
async def test_vectors_that_cannot_be_had_are_told_in_words(
    tmp_path: Path, status: str, body: Any, error: type[RegistryError]
) -> None:
    async with runner(tmp_path, whole(json.dumps(body).encode(), status)) as wire:
        with pytest.raises(error):
            await lease(wire).embed(["a"])


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("#/properties/a: unrecognized type x", "at properties.a: unrecognized type x"),
        ("#: must not be empty", "at its root: must not be empty"),
    ],
)
async def test_the_schema_of_a_tool_is_at_fault_in_words(
    tmp_path: Path, told: str, message: str
) -> None:
    long = f"Unable to generate parser for this template. Failed: JSON schema error at {told}"
    answer = json.dumps({"error": {"message": long, "code": 400}}).encode()
    async with runner(tmp_path, whole(answer, "400 Bad Request")) as wire:
        with pytest.raises(RequestInvalid, match=f"^invalid JSON schema of a tool, {message}$"):
            await lease(wire).apply_template({})


async def test_tokens_texts_and_prompts(tmp_path: Path) -> None:
    answer = {"tokens": [1, 2], "content": "ab", "prompt": "<ab>"}
    script = whole(json.dumps(answer).encode())
    async with runner(tmp_path, script) as wire:
        running = lease(wire)
        assert (running.worker, running.load_ns, running.dialect) == ("w", 7, Dialect.LLAMA)
        assert await running.tokenize("ab", special=False) == [1, 2]
        assert sent(script) == {"content": "ab", "add_special": False, "parse_special": False}
        assert await running.detokenize((1, 2)) == "ab"
        assert await running.apply_template({"messages": []}) == "<ab>"
        with pytest.raises(Unsupported):
            running.native("/api/chat", {})
        with pytest.raises(RequestInvalid, match="not valid JSON"):
            await running.apply_template({"messages": object()})


async def test_tokens_that_are_none(tmp_path: Path) -> None:
    async with runner(tmp_path, whole(b'{"tokens": ["a"]}')) as wire:
        with pytest.raises(OperationFailed, match="tokens cannot be read"):
            await lease(wire).tokenize("x")


@pytest.mark.parametrize(
    ("message", "error"), [("_M_range_check: n", RequestInvalid), ("else", OperationFailed)]
)
async def test_token_ids_of_no_token(
    tmp_path: Path, message: str, error: type[RegistryError]
) -> None:
    body = json.dumps({"error": {"message": message}}).encode()
    async with runner(tmp_path, whole(body, "500 E")) as wire:
        with pytest.raises(error):
            await lease(wire).detokenize([9])


async def test_images_are_put_where_the_text_names_them(tmp_path: Path) -> None:
    props = json.dumps({"media_marker": "<MARK>"}).encode()
    both = Script([*whole(props).pieces])

    class Wire:
        """Properties first, then the answer."""

        def __init__(self, wire: RunnerWire) -> None:
            self.wire = wire

        async def send(self, method: str, path: str, body: bytes = b"") -> Any:
            both.pieces = whole(props).pieces if method == "GET" else chunked(END).pieces
            return await self.wire.send(method, path, body)

    async with runner(tmp_path, both) as wire:

        async def give_back(keep_alive_s: float | None) -> None:
            return

        running = LlamaRunning(Wire(wire), "w", 0, give_back)
        prompt = {"prompt_string": "[img-0] and [img-1] not [img-7]", "multimodal_data": ["a", "b"]}
        at_the_end = {"prompt_string": "x [img-0]", "multimodal_data": ["a"]}
        async for _ in running.complete({"prompt": at_the_end}):
            pass
        last = sent(both)["prompt"]["prompt_string"]
        async for _ in running.complete({"prompt": prompt}):
            pass
    assert sent(both)["prompt"] == {
        "prompt_string": "<MARK> and <MARK> not [img-7]",
        "multimodal_data": ["a", "b"],
    }
    assert last == "x <MARK>\n"  # the engine dies where nothing comes after an image
