"""Events as the frames of the Ollama API: fields in order, types, what is left out, errors."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from registry.core.digest import Digest
from registry.core.errors import OperationFailed, RequestInvalid, WorkerLost
from registry.core.generation import (
    Choice,
    Delta,
    End,
    Logprob,
    Metrics,
    Reason,
    Rendered,
    Vectors,
)
from registry.core.gojson import dumps
from registry.core.names import ModelName
from registry.core.wishes import ToolCall
from registry.ports.workers import Loaded
from registry.services.inference.running import RunningModel
from registry.settings import Limits
from registry.web.inference_answers import Wording, running_model
from tests.support.answering import Sayings, answering
from tests.support.asgi import Answer, Caller
from tests.support.serving import serving

pytestmark = pytest.mark.anyio

UTF8 = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
METRICS = Metrics(1, 2, 3, 4, 5, 6)
NUMBERS = {
    "total_duration": 1,
    "load_duration": 2,
    "prompt_eval_count": 3,
    "prompt_eval_duration": 4,
    "eval_count": 5,
    "eval_duration": 6,
}
CALL = ToolCall("add", {"b": 1.0, "a": "<"}, "call_1", 0)
CALLED = {
    "id": "call_1",
    "function": {"index": 0, "name": "add", "arguments": {"b": 1.0, "a": "<"}},
}
LIKELY = Logprob(Choice("a", -0.5, (97,)), (Choice("a", -0.5, (97,)), Choice("", -2.0)))
LIKELY_JSON = {
    "token": "a",
    "logprob": -0.5,
    "bytes": [97],
    "top_logprobs": [
        {"token": "a", "logprob": -0.5, "bytes": [97]},
        {"token": "", "logprob": -2.0},
    ],
}
HEAD = {"model": "m", "created_at": "1970-01-01T00:00:01Z"}


@pytest.mark.parametrize(
    ("event", "generate", "chat"),
    [
        (
            Delta("hi"),
            {"response": "hi", "done": False},
            {"message": {"role": "assistant", "content": "hi"}, "done": False},
        ),
        (
            Delta(thinking="hm", logprobs=(LIKELY,)),
            {"response": "", "thinking": "hm", "done": False, "logprobs": [LIKELY_JSON]},
            {
                "message": {"role": "assistant", "content": "", "thinking": "hm"},
                "done": False,
                "logprobs": [LIKELY_JSON],
            },
        ),
        (
            Delta(tool_calls=(CALL,)),
            {"response": "", "done": False, "tool_calls": [CALLED]},
            {
                "message": {"role": "assistant", "content": "", "tool_calls": [CALLED]},
                "done": False,
            },
        ),
        (
            End(Reason.LENGTH, METRICS, (1, 2)),
            {
                "response": "",
                "done": True,
                "done_reason": "length",
                "context": [1, 2],
                **NUMBERS,
            },
            {
                "message": {"role": "assistant", "content": ""},
                "done": True,
                "done_reason": "length",
                **NUMBERS,
            },
        ),
        (
            End(Reason.STOP, Metrics(total_duration=7), ()),
            {"response": "", "done": True, "done_reason": "stop", "total_duration": 7},
            {
                "message": {"role": "assistant", "content": ""},
                "done": True,
                "done_reason": "stop",
                "total_duration": 7,
            },
        ),
        (
            Rendered("<p>", 2),
            {
                "response": "",
                "done": False,
                "_debug_info": {"rendered_template": "<p>", "image_count": 2},
            },
            {
                "message": {"role": "assistant", "content": ""},
                "done": False,
                "_debug_info": {"rendered_template": "<p>", "image_count": 2},
            },
        ),
    ],
)
def test_frames(event: Any, generate: dict[str, Any], chat: dict[str, Any]) -> None:
    for is_chat, expected in ((False, generate), (True, chat)):
        frame = Wording("m", is_chat, lambda: 10**9).frame(event)
        assert frame == {**HEAD, **expected}
        assert list(frame) == [*HEAD, *expected]


@pytest.mark.parametrize(
    "event",
    [Delta(), Delta('hi\n"<&\u2028\ud800'), Delta("hi", "hm"), Delta("hi", logprobs=(LIKELY,))],
)
@pytest.mark.parametrize("is_chat", [False, True])
def test_lines_are_the_frames_as_they_are_written(event: Delta, is_chat: bool) -> None:
    for ns in (10**9, 10**9 + 120, 2 * 10**9):
        wording = Wording('a "model"', is_chat, lambda: ns)  # noqa: B023
        assert wording.line(event) == dumps(wording.frame(event)) + b"\n"


def test_a_whole_answer_has_its_fields_in_order() -> None:
    said = Delta("hi", "hm", (CALL,), (LIKELY,))
    end = End(Reason.STOP, METRICS, (1,))
    assert list(Wording("m", False, lambda: 0).whole(said, end)) == [
        "model", "created_at", "response", "thinking", "done", "done_reason", "context",
        *NUMBERS, "tool_calls", "logprobs",
    ]  # fmt: skip
    chat = Wording("m", True, lambda: 0).whole(said, end)
    assert list(chat) == [
        "model", "created_at", "message", "done", "done_reason", "logprobs", *NUMBERS,
    ]  # fmt: skip
    assert list(chat["message"]) == ["role", "content", "thinking", "tool_calls"]


@pytest.mark.parametrize(("worker", "told"), [("local", {}), ("gpu-box", {"worker": "gpu-box"})])
def test_where_a_model_runs_is_told_unless_it_is_here(worker: str, told: dict[str, str]) -> None:
    loaded = Loaded(
        "key", ModelName.parse("team/m:v1"), Digest.of(b"m"), Digest.of(b"w"), 10, 4, 128
    )
    entry = running_model(RunningModel(loaded, worker, {"family": "llama"}, 10**9))
    assert entry["expires_at"].startswith("1970-01-01T")
    assert {**entry, "expires_at": ""} == {
        "name": "team/m:v1",
        "model": "team/m:v1",
        "size": 10,
        "digest": Digest.of(b"m").hex,
        "details": {"family": "llama"},
        "expires_at": "",
        "size_vram": 4,
        "context_length": 128,
        **told,
    }


# --- through the application ----------------------------------------------------------------------


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[tuple[Caller, Sayings]]:
    async with answering(tmp_path) as (app, sayings):
        yield Caller(app), sayings


async def ask(caller: Caller, path: str, **body: Any) -> Answer:
    content = {"prompt": "x"} if path == "/api/generate" else {"messages": [{"role": "user"}]}
    return await caller("POST", path, json.dumps({"model": "tiny", **content, **body}).encode())


PATHS = pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])


@PATHS
async def test_an_answer_is_streamed_unless_told_otherwise(
    place: tuple[Caller, Sayings], path: str
) -> None:
    caller, sayings = place
    sayings.scripts = [[Delta("a"), Delta("b"), End(metrics=METRICS)]]
    answer = await ask(caller, path)
    assert (answer.status, answer.headers["content-type"]) == (200, NDJSON)
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert [line["done"] for line in lines] == [False, False, True]
    assert answer.body.endswith(b"}\n")
    whole = await ask(caller, path, stream=False)
    assert (whole.status, whole.headers["content-type"]) == (200, UTF8)
    told = json.loads(whole.body)
    assert told["done"]
    assert "ab" in (told.get("response"), told.get("message", {}).get("content"))
    assert sayings.open == 0


@PATHS
@pytest.mark.parametrize("reason", [Reason.LOAD, Reason.UNLOAD])
@pytest.mark.parametrize("stream", [True, False])
async def test_loading_and_unloading_answer_with_one_object(
    place: tuple[Caller, Sayings], path: str, reason: Reason, stream: bool
) -> None:
    caller, sayings = place
    sayings.scripts = [[End(reason)]]
    answer = await ask(caller, path, stream=stream)
    assert answer.headers["content-type"] == UTF8
    told = json.loads(answer.body)
    assert (told["done"], told["done_reason"], len(told)) == (True, reason.value, 5)


@PATHS
@pytest.mark.parametrize("stream", [True, False])
async def test_what_would_be_rendered_is_one_object(
    place: tuple[Caller, Sayings], path: str, stream: bool
) -> None:
    caller, sayings = place
    sayings.scripts = [[Rendered("abc")]]
    answer = await ask(caller, path, stream=stream, _debug_render_only=True)
    assert answer.headers["content-type"] == UTF8
    assert json.loads(answer.body)["_debug_info"] == {"rendered_template": "abc"}


@PATHS
async def test_early_failures_have_a_status_and_late_ones_a_last_line(
    place: tuple[Caller, Sayings], path: str
) -> None:
    caller, sayings = place
    sayings.scripts = [[RequestInvalid("too early")]]
    for stream in (True, False):
        answer = await ask(caller, path, stream=stream)
        assert (answer.status, answer.headers["content-type"]) == (400, UTF8)
        assert json.loads(answer.body) == {"error": "too early"}
    sayings.scripts = [[Delta("a"), WorkerLost("gone")]]
    answer = await ask(caller, path)
    assert answer.status == 200
    *said, last = answer.body.splitlines()
    assert len(said) == 1
    assert json.loads(last) == {"error": "gone"}
    whole = await ask(caller, path, stream=False)
    assert (whole.status, json.loads(whole.body)) == (500, {"error": "gone"})
    assert sayings.open == 0


@PATHS
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_the_work_before_and_in_the_answer(
    tmp_path: Path, path: str, stream: bool
) -> None:
    async with answering(tmp_path) as (app, sayings), serving(app, Limits()) as port:
        scripts: list[list[Any]] = [[60.0, End()], [Delta("a"), 60.0, End()]]
        for script in scripts:
            sayings.scripts, sayings.closed = [script], asyncio.Event()
            body = json.dumps(
                {"model": "tiny", "prompt": "x", "messages": [{"role": "user"}], "stream": stream}
            ).encode()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            async with asyncio.timeout(20):
                while not sayings.open:
                    await asyncio.sleep(0.01)
                writer.close()
                await sayings.closed.wait()
            assert sayings.open == 0
            del reader


async def test_vectors_are_written_as_float32(place: tuple[Caller, Sayings]) -> None:
    caller, sayings = place
    numbers = [0.10000000149011612, 1.0, -0.0, 0.0, 3.0000001061125658e-06, 1e-07]
    sayings.vectors_found = Vectors([numbers, [0.5]], Metrics(9, 8, 7))
    answer = await caller("POST", "/api/embed", b'{"model":"tiny","input":["a","b"]}')
    assert answer.headers["content-type"] == UTF8
    assert answer.body == (
        b'{"model":"tiny","embeddings":[[0.1,1,-0,0,0.000003,1e-7],[0.5]],'
        b'"total_duration":9,"load_duration":8,"prompt_eval_count":7}'
    )
    sayings.vectors_found = Vectors([], Metrics())
    answer = await caller("POST", "/api/embed", b'{"model":"tiny"}')
    assert answer.body == b'{"model":"tiny","embeddings":[]}'


async def test_the_older_form_writes_float64(place: tuple[Caller, Sayings]) -> None:
    caller, sayings = place
    sayings.vectors_found = Vectors([[0.10000000149011612, -1.0]], Metrics())
    answer = await caller("POST", "/api/embeddings", b'{"model":"tiny","prompt":"a"}')
    assert answer.body == b'{"embedding":[0.10000000149011612,-1]}'
    sayings.vectors_found = Vectors([], Metrics())
    answer = await caller("POST", "/api/embeddings", b'{"model":"tiny"}')
    assert (answer.body, answer.headers["content-type"]) == (b'{"embedding":[]}', UTF8)


async def test_failures_of_embeddings_have_a_status(place: tuple[Caller, Sayings]) -> None:
    caller, sayings = place
    sayings.vectors_found = OperationFailed("no")
    answer = await caller("POST", "/api/embed", b'{"model":"tiny","input":"a"}')
    assert (answer.status, json.loads(answer.body)) == (500, {"error": "no"})
