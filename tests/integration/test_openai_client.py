"""The official OpenAI client makes every call of /v1 against a served application.

The models say what is written here; that a real engine is behind the same endpoints is tested
where the engine is.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageFunctionToolCall
from pydantic import BaseModel

from registry.core.errors import Unavailable, WorkerLost
from registry.core.generation import Choice, Delta, End, Logprob, Metrics, Reason, Vectors
from registry.core.wishes import ToolCall
from registry.settings import Limits
from tests.support.answering import Sayings, answering
from tests.support.serving import serving

pytestmark = pytest.mark.anyio

END = End(metrics=Metrics(prompt_eval_count=3, eval_count=2))
HELLO = (Delta("Hel"), Delta("lo"), END)
CALL = Delta(tool_calls=(ToolCall("add", {"a": 1, "b": 2}, "call_1", 0),))
SAID: Any = [{"role": "user", "content": "hi"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
        },
    }
]
MODEL = "tiny"


@dataclass
class Place:
    """A client, and what the model says to it."""

    client: AsyncOpenAI
    sayings: Sayings

    def says(self, *script: Any) -> None:
        self.sayings.scripts = [script]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with (
        answering(tmp_path) as (app, sayings),
        serving(app, Limits()) as port,
        AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=0) as client,
    ):
        yield Place(client, sayings)


async def test_models(place: Place) -> None:
    assert {model.id async for model in place.client.models.list()} == {
        "tiny:latest",
        "base:latest",
    }
    assert (await place.client.models.retrieve("tiny")).owned_by == "library"


async def test_chats(place: Place) -> None:
    place.says(Delta(thinking="hm"), *HELLO)
    chats = place.client.chat.completions
    whole = await chats.create(model=MODEL, messages=SAID)
    assert whole.choices[0].message.content == "Hello"
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.total_tokens == 5
    stream = await chats.create(
        model=MODEL, messages=SAID, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == "Hello"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2


def function(calls: Sequence[Any] | None) -> ChatCompletionMessageFunctionToolCall:
    """The one call that was made."""
    assert calls is not None
    (call,) = calls
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    return call


async def test_chats_with_tools(place: Place) -> None:
    place.says(CALL, End(made_tool_calls=True))
    chats = place.client.chat.completions
    whole = await chats.create(model=MODEL, messages=SAID, tools=TOOLS)
    assert whole.choices[0].finish_reason == "tool_calls"
    call = function(whole.choices[0].message.tool_calls)
    assert (call.id, call.function.name) == ("call_1", "add")
    assert json.loads(call.function.arguments) == {"a": 1, "b": 2}
    async with chats.stream(model=MODEL, messages=SAID, tools=TOOLS) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"
    streamed = function(final.choices[0].message.tool_calls)
    assert streamed.function.arguments == call.function.arguments
    back: Any = [
        *SAID,
        whole.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "3"},
    ]
    place.says(*HELLO)
    await chats.create(model=MODEL, messages=back, tools=TOOLS)
    messages = place.sayings.wishes[-1].messages
    assert messages[1].tool_calls[0].arguments == {"a": 1, "b": 2}
    assert (messages[2].role, messages[2].tool_name, messages[2].content) == ("tool", "add", "3")


class Point(BaseModel):
    """What a structured answer is read into."""

    x: int
    y: int


async def test_chats_with_a_schema_and_with_likely_tokens(place: Place) -> None:
    place.says(Delta('{"x":1,"y":2}', logprobs=(Logprob(Choice("{", -0.5)),)), END)
    chats = place.client.chat.completions
    parsed = await chats.parse(
        model=MODEL, messages=SAID, response_format=Point, logprobs=True, top_logprobs=2
    )
    assert parsed.choices[0].message.parsed == Point(x=1, y=2)
    logprobs = parsed.choices[0].logprobs
    assert logprobs is not None
    assert [item.token for item in logprobs.content or ()] == ["{"]
    assert json.loads(place.sayings.wishes[-1].format)["required"] == ["x", "y"]


async def test_completions(place: Place) -> None:
    place.says(*HELLO)
    whole = await place.client.completions.create(model=MODEL, prompt=["a", "b"])
    assert [choice.text for choice in whole.choices] == ["Hello", "Hello"]
    stream = await place.client.completions.create(model=MODEL, prompt="a", stream=True)
    assert [chunk.choices[0].text async for chunk in stream] == ["Hel", "lo", ""]


async def test_embeddings(place: Place) -> None:
    place.sayings.vectors_found = Vectors([[0.5, -1.5], [1.0, 0.0]], Metrics(prompt_eval_count=4))
    create = place.client.embeddings.create
    found = await create(model=MODEL, input=["a", "b"], dimensions=2)  # asks for base64
    assert found.data[0].embedding == [0.5, -1.5]
    found = await create(model=MODEL, input=["a", "b"], dimensions=2, encoding_format="float")
    assert found.data[0].embedding == [0.5, -1.5]
    assert found.usage.total_tokens == 4
    assert place.sayings.wishes[-1].dimensions == 2


async def test_responses(place: Place) -> None:
    place.says(Delta(thinking="hm"), *HELLO)
    whole = await place.client.responses.create(model=MODEL, input="hi", instructions="be brief")
    assert (whole.output_text, whole.status) == ("Hello", "completed")
    assert [item.type for item in whole.output] == ["reasoning", "message"]
    assert whole.usage is not None
    assert whole.usage.total_tokens == 5
    async with place.client.responses.stream(model=MODEL, input="hi") as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    said = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert said == ["Hel", "lo"]
    assert final.output_text == "Hello"
    parsed = place.client.responses.parse
    place.says(Delta('{"x":1,"y":2}'), END)
    assert (await parsed(model=MODEL, input="x", text_format=Point)).output_parsed == Point(
        x=1, y=2
    )


async def test_responses_with_tools_go_on(place: Place) -> None:
    tools: Any = [{"type": "function", **TOOLS[0]["function"]}]
    place.says(CALL, End(made_tool_calls=True))
    asked: Any = [{"role": "user", "content": "1+2"}]
    async with place.client.responses.stream(model=MODEL, input=asked, tools=tools) as stream:
        final = await stream.get_final_response()
    (call,) = final.output
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"a": 1, "b": 2}
    place.says(*HELLO)
    answer: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "3"}
    back: Any = [*asked, {**call.model_dump(exclude_none=True)}, answer]
    await place.client.responses.create(model=MODEL, input=back, tools=tools)
    messages = place.sayings.wishes[-1].messages
    assert messages[1].tool_calls[0].name == "add"
    assert (messages[2].role, messages[2].tool_call_id) == ("tool", "call_1")


async def test_a_response_that_is_cut_off_is_incomplete(place: Place) -> None:
    place.says(Delta("x"), End(Reason.LENGTH))
    whole = await place.client.responses.create(model=MODEL, input="hi", max_output_tokens=16)
    assert whole.status == "incomplete"
    assert whole.incomplete_details is not None
    assert whole.incomplete_details.reason == "max_output_tokens"


async def test_transcriptions(place: Place) -> None:
    place.says(*HELLO)
    found = await place.client.audio.transcriptions.create(
        model=MODEL, file=("a.wav", b"RIFF"), language="en"
    )
    assert found.text == "Hello"


async def test_failures_are_exceptions_of_their_kinds(place: Place) -> None:
    chats = place.client.chat.completions
    with pytest.raises(openai.NotFoundError, match="model 'nobody' not found"):
        await chats.create(model="nobody", messages=SAID)
    with pytest.raises(openai.BadRequestError):
        await chats.create(model=MODEL, messages=[])
    place.says(Unavailable("server busy", 7))
    with pytest.raises(openai.InternalServerError) as caught:
        await chats.create(model=MODEL, messages=SAID, stream=True)
    assert caught.value.status_code == 503
    assert caught.value.response.headers["retry-after"] == "7"


async def test_a_failure_in_mid_stream_is_never_a_silent_end(place: Place) -> None:
    place.says(Delta("Hel"), WorkerLost("gone"))
    stream = await place.client.chat.completions.create(model=MODEL, messages=SAID, stream=True)
    with pytest.raises(openai.APIError, match="gone"):
        [chunk async for chunk in stream]
    texts = await place.client.completions.create(model=MODEL, prompt="a", stream=True)
    with pytest.raises(openai.APIError, match="gone"):
        [chunk async for chunk in texts]
    events = await place.client.responses.create(model=MODEL, input="hi", stream=True)
    kinds = [event.type async for event in events]
    assert kinds[-2:] == ["error", "response.failed"]


async def test_a_client_that_leaves_ends_the_answer(place: Place) -> None:
    place.says(Delta("Hel"), 60.0, END)
    stream = await place.client.chat.completions.create(model=MODEL, messages=SAID, stream=True)
    async for _ in stream:
        break
    await stream.close()
    await asyncio.wait_for(place.sayings.closed.wait(), 2)
    assert place.sayings.open == 0
    place.sayings.closed.clear()
    waiting = asyncio.ensure_future(
        place.client.chat.completions.create(model=MODEL, messages=SAID)
    )
    while not place.sayings.open:
        await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait_for(place.sayings.closed.wait(), 2)
    assert place.sayings.open == 0
