"""The endpoints of /v1 from the request's bytes to the answer's."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry.core.errors import RegistryError, RequestInvalid, Unavailable, WorkerLost
from registry.core.generation import Delta, End, Metrics, Reason, Rendered, Vectors
from registry.core.wishes import ToolCall
from tests.support.answering import Sayings, answering
from tests.support.asgi import Answer, Caller
from tests.support.frames import data_of, events_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.anyio

PLAIN = "application/json"
SSE = "text/event-stream"
END = End(metrics=Metrics(prompt_eval_count=3, eval_count=2))
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "tiny", "prompt": "hi"},
    "/v1/responses": {"model": "tiny", "input": "hi"},
    "/v1/messages": CHAT | {"max_tokens": 5},
}


@dataclass
class Place:
    """An application to ask, and what its model says."""

    call: Caller
    sayings: Sayings

    async def ask(self, path: str, leaves: bool = False, **told: Any) -> Answer:
        body = json.dumps(BODIES.get(path, {}) | told).encode()
        return await self.call("POST", path, body, leaves=leaves)

    def says(self, *script: Any) -> None:
        self.sayings.scripts.append(script)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with answering(tmp_path) as (app, sayings):
        yield Place(Caller(app), sayings)


@pytest.mark.parametrize("encoding", ["zstd", "ZSTD", "identity", ""])
async def test_responses_may_be_asked_for_in_compressed_words(place: Place, encoding: str) -> None:
    place.says(Delta("Hello"), END)
    body = json.dumps(BODIES["/v1/responses"]).encode()
    packed = zstd.compress(body) if encoding.lower() == "zstd" else body
    answer = await place.call("POST", "/v1/responses", packed, content_encoding=encoding)
    assert answer.status == 200
    assert place.sayings.wishes[-1].messages[-1].content == "hi"


@pytest.mark.parametrize("path", BODIES)
async def test_a_whole_answer_is_one_line_of_json(place: Place, path: str) -> None:
    place.says(Delta("Hel"), Delta("lo"), END)
    answer = await place.ask(path)
    assert (answer.status, answer.headers["content-type"]) == (200, PLAIN)
    assert answer.body.endswith(b"}\n")
    assert b"Hello" in answer.body
    assert place.sayings.open == 0


@pytest.mark.parametrize("path", BODIES)
async def test_a_stream_is_sent_event_by_event(place: Place, path: str) -> None:
    place.says(Delta("Hel"), Delta("lo"), END)
    answer = await place.ask(path, stream=True)
    assert (answer.status, answer.headers["content-type"]) == (200, SSE)
    assert answer.headers["cache-control"] == "no-cache"
    bodies = [message["body"] for message in answer.messages[1:]]
    assert len(bodies) == 4  # three events and the empty last one
    assert b"Hel" in bodies[0]
    assert b"lo" in bodies[1]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("error", "status"),
    [(Unavailable("busy", 7), 503), (RequestInvalid("too long"), 400), (WorkerLost("gone"), 500)],
)
async def test_an_early_failure_has_a_status(
    place: Place, path: str, stream: bool, error: RegistryError, status: int
) -> None:
    place.says(error)
    answer = await place.ask(path, stream=stream)
    assert (answer.status, answer.headers["content-type"]) == (status, PLAIN)
    assert json.loads(answer.body)["error"]["message"] == str(error)
    assert answer.headers.get("retry-after") == ("7" if status == 503 else None)


@pytest.mark.parametrize("path", BODIES)
async def test_a_late_failure_of_a_whole_answer_has_a_status_too(place: Place, path: str) -> None:
    place.says(Delta("Hel"), WorkerLost("gone"))
    answer = await place.ask(path)
    assert answer.status == 500
    assert json.loads(answer.body)["error"]["message"] == "gone"


@pytest.mark.parametrize("path", BODIES)
async def test_a_late_failure_of_a_stream_is_its_last_word(place: Place, path: str) -> None:
    place.says(Delta("Hel"), WorkerLost("gone"))
    answer = await place.ask(path, stream=True)
    assert answer.status == 200
    assert b"[DONE]" not in answer.body
    last = answer.body.split(b"\n\n")[-2]
    assert b"gone" in last
    assert b"error" in last


@pytest.mark.parametrize("path", BODIES)
async def test_a_client_that_leaves_a_stream_ends_it(place: Place, path: str) -> None:
    place.says(Delta("Hel"), 30.0, END)
    async with asyncio.timeout(5):
        await place.ask(path, stream=True, leaves=True)
        await place.sayings.closed.wait()
    assert place.sayings.open == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
async def test_a_client_that_leaves_before_the_first_word_ends_the_answer(
    place: Place, path: str, stream: bool
) -> None:
    place.says(30.0, END)
    body = json.dumps(BODIES[path] | {"stream": stream}).encode()
    pieces, gone = [body], asyncio.Event()

    async def receive() -> dict[str, Any]:
        if pieces:
            return {"type": "http.request", "body": pieces.pop(), "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [],
        "state": {},
    }
    asked = asyncio.ensure_future(place.call.app(scope, receive, send))
    async with asyncio.timeout(5):
        while not place.sayings.open:
            await asyncio.sleep(0.001)
        gone.set()
        await asked
    assert place.sayings.open == 0


async def test_a_chat_asks_for_what_it_took(place: Place) -> None:
    place.says(Delta("x"), END)
    told: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    frames = data_of((await place.ask("/v1/chat/completions", **told)).body)
    assert frames[-2]["usage"]["total_tokens"] == 5
    assert frames[-1] == "[DONE]"


async def test_every_answer_has_an_id_of_its_own(place: Place) -> None:
    place.says(Delta("x"), END)
    ids = {json.loads((await place.ask(path)).body)["id"] for path in BODIES for _ in range(2)}
    assert sorted({text.rstrip("0123456789abcdef") for text in ids}) == [
        "chatcmpl-",
        "cmpl-",
        "msg_",
        "resp_",
    ]
    assert len(ids) == 8


async def test_several_prompts_make_several_choices(place: Place) -> None:
    for text in ("a", "b"):
        place.says(Delta(text), END)
    place.says()
    whole = json.loads((await place.ask("/v1/completions", prompt=["1", "2"])).body)
    assert [(item["index"], item["text"]) for item in whole["choices"]] == [(0, "a"), (1, "b")]
    assert whole["usage"]["total_tokens"] == 10
    assert [wish.prompt for wish in place.sayings.wishes] == ["1", "2"]


async def test_several_prompts_stream_one_after_the_other(place: Place) -> None:
    place.says(Delta("a"), END)
    told: dict[str, Any] = {
        "prompt": ["1", "2"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    frames = data_of((await place.ask("/v1/completions", **told)).body)
    found = [
        (choice["index"], choice["text"], choice["finish_reason"])
        for frame in frames[:-1]
        for choice in frame["choices"]
    ]
    assert found == [(0, "a", None), (0, "", "stop"), (1, "a", None), (1, "", "stop")]
    assert frames[-2]["usage"]["total_tokens"] == 10
    assert place.sayings.open == 0


async def test_a_rendered_prompt_is_one_object_even_where_a_stream_is_asked_for(
    place: Place,
) -> None:
    place.says(Rendered("hi"))
    told: dict[str, Any] = {"stream": True, "_debug_render_only": True}
    for path in ("/v1/chat/completions", "/v1/completions"):
        whole = json.loads((await place.ask(path, **told)).body)
        assert whole["_debug_info"] == {"rendered_template": "hi"}


@pytest.mark.parametrize(
    ("told", "expected"),
    [({}, [0.5, -1.5]), ({"encoding_format": "BASE64"}, "AAAAPwAAwL8=")],
)
async def test_embeddings(place: Place, told: dict[str, Any], expected: Any) -> None:
    place.sayings.vectors_found = Vectors([[0.5, -1.5]], Metrics(prompt_eval_count=4))
    answer = await place.ask("/v1/embeddings", model="tiny", input="x", **told)
    assert json.loads(answer.body) == {
        "object": "list",
        "data": [{"object": "embedding", "embedding": expected, "index": 0}],
        "model": "tiny",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    assert answer.body.endswith(b"\n")


async def test_a_message_counts_its_prompt_before_it_is_read(place: Place) -> None:
    place.says(Delta(thinking="hm"), Delta(tool_calls=(ToolCall("f", {"a": 1}, "c"),)), END)
    told: dict[str, Any] = {
        "stream": True,
        "thinking": {"type": "enabled"},
        "messages": [{"role": "user", "content": "x" * 396}],
    }
    events = events_of((await place.ask("/v1/messages", **told)).body)
    assert events[0]["message"]["usage"] == {"input_tokens": 100, "output_tokens": 0}
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    assert place.sayings.wishes[0].think is True


async def test_a_message_knows_its_own_stop_sequences(place: Place) -> None:
    place.says(Delta("x"), End(stopped_by="END"))
    whole = json.loads((await place.ask("/v1/messages", stop_sequences=["END"])).body)
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("stop_sequence", "END")


async def test_a_response_that_is_cut_off_says_so(place: Place) -> None:
    place.says(Delta("x"), End(Reason.LENGTH))
    whole = json.loads((await place.ask("/v1/responses", max_output_tokens=1)).body)
    assert whole["incomplete_details"] == {"reason": "max_output_tokens"}
    assert whole["max_output_tokens"] == 1


FORM = (
    b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n%b--x--'
)


@pytest.mark.parametrize(
    ("kind", "media", "body"),
    [
        ("json", PLAIN, b'{"text":"Hello there"}\n'),
        ("text", "text/plain", b"Hello there"),
    ],
)
async def test_a_transcription_is_what_the_model_says(
    place: Place, kind: str, media: str, body: bytes
) -> None:
    place.says(Delta(" Hello"), Delta(" there\n"), END)
    part = b'--x\r\nContent-Disposition: form-data; name="response_format"\r\n\r\n%b\r\n'
    form = FORM % (part % kind.encode())
    answer = await place.call(
        "POST", "/v1/audio/transcriptions", form, content_type="multipart/form-data; boundary=x"
    )
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, media, body)
    assert place.sayings.wishes[0].messages[-1].images == (b"RIFF",)
