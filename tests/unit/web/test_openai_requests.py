"""OpenAI's requests as Ollama's; how they are decoded is in `test_go_json_vectors.py`."""

import json
from typing import Any

import pytest

from registry.core.errors import RequestInvalid
from registry.core.wishes import Message, ToolCall
from registry.web.inference_schemas import ChatRequest
from registry.web.openai_requests import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingsRequest,
)

HI = {"role": "User", "content": "hi"}


def chat(**body: Any) -> ChatRequest:
    told = {"model": "m", "messages": [HI], **body}
    return ChatCompletionRequest.from_json(json.dumps(told).encode()).as_chat()


def said(*messages: dict[str, Any]) -> tuple[Message, ...] | None:
    return chat(messages=list(messages)).messages


def test_defaults_are_those_of_openai() -> None:
    request = chat()
    assert request.options == {"temperature": 1.0, "top_p": 1.0}
    assert (request.stream, request.think, request.logprobs) == (False, None, False)
    assert request.messages == (Message(role="user", content="hi"),)


def test_sampling_fields_become_options() -> None:
    request = chat(
        max_tokens=5, seed=0, stop="a", temperature=0, top_p=0.5, frequency_penalty=1,
        presence_penalty=2, logprobs=True, top_logprobs=3,
    )  # fmt: skip
    assert request.options == {
        "stop": ["a"],
        "num_predict": 5,
        "temperature": 0.0,
        "seed": 0,
        "frequency_penalty": 1.0,
        "presence_penalty": 2.0,
        "top_p": 0.5,
    }
    assert (request.logprobs, request.top_logprobs) == (True, 3)


@pytest.mark.parametrize(
    ("stop", "options"), [(["a", 1, "b"], {"stop": ["a", "b"]}), (5, {}), (None, {})]
)
def test_stops_that_are_no_text_are_passed_over(stop: Any, options: dict[str, Any]) -> None:
    assert chat(stop=stop).options == options | {"temperature": 1.0, "top_p": 1.0}


@pytest.mark.parametrize(
    ("response_format", "told"),
    [
        ({"type": " JSON_object "}, b'"json"'),
        ({"type": "json_schema", "json_schema": {"schema": {"a": 1.0}}}, b'{"a":1.0}'),
        ({"type": "json_schema"}, None),
        ({"type": "text"}, None),
        (None, None),
    ],
)
def test_the_format_of_the_answer(response_format: Any, told: bytes | None) -> None:
    assert chat(response_format=response_format).format == told


@pytest.mark.parametrize(
    ("body", "think"),
    [
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, "low"),
        ({"reasoning_effort": "high"}, "high"),
        ({"reasoning": {"effort": "xhigh"}, "reasoning_effort": "low"}, "max"),
        ({"reasoning": {}}, None),
    ],
)
def test_effort_becomes_think(body: dict[str, Any], think: object) -> None:
    assert chat(**body).think == think


def test_each_part_becomes_a_message_and_tool_calls_go_to_the_last() -> None:
    call = {"id": "1", "function": {"name": "f", "arguments": '{"b":1,"a":2}'}}
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,Zm9v"}},
        {"type": "image_url", "image_url": "data:;base64,Zm9v"},
        {"type": "input_audio", "input_audio": {"data": "Zm9v"}},
    ]
    found = said({"role": "user", "content": parts, "tool_calls": [call], "reasoning": "r"})
    assert found == (
        Message(role="user", content="look"),
        Message(role="user", images=(b"foo",)),
        Message(role="user", images=(b"foo",)),
        Message(
            role="user",
            images=(b"foo",),
            thinking="r",
            tool_calls=(ToolCall("f", {"b": 1.0, "a": 2.0}, "1"),),
        ),
    )
    assert said({"role": "user", "content": []}) == ()


def test_tool_results_name_their_tool() -> None:
    call = {"id": "1", "function": {"name": "f", "arguments": "{}"}}
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    by_id = {"role": "tool", "content": "x", "tool_call_id": "1"}
    found = said(called, by_id, by_id | {"name": "g"}, by_id | {"tool_call_id": "2"})
    assert found is not None
    assert found[0] == Message(role="assistant", tool_calls=(ToolCall("f", {}, "1"),))
    assert [message.tool_name for message in found[1:]] == ["f", "g", ""]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "invalid message content type: <nil>"),
        (5, "invalid message content type: float64"),
        (True, "invalid message content type: bool"),
        ({}, "invalid message content type: map[string]interface {}"),
        (["x"], "invalid message format"),
        ([{"type": "text"}], "invalid message format"),
        ([{"type": "image_url", "image_url": {"url": 1}}], "invalid message format"),
        ([{"type": "video"}], "invalid message format"),
        (
            [{"type": "image_url", "image_url": "https://example.com/a.png"}],
            "image URLs are not currently supported, please use base64 encoded data instead",
        ),
        ([{"type": "image_url", "image_url": "data:image/gif;base64,AA=="}], "invalid image input"),
        ([{"type": "image_url", "image_url": "data:image/png;base64,!"}], "invalid image input"),
        ([{"type": "input_audio"}], "invalid input_audio format"),
        ([{"type": "input_audio", "input_audio": {}}], "invalid input_audio format: missing data"),
        (
            [{"type": "input_audio", "input_audio": {"data": "!"}}],
            "invalid input_audio base64 data: illegal base64 data at input byte 0",
        ),
    ],
)
def test_content_that_cannot_be_is_refused(content: Any, message: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        said({"role": "user", "content": content})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": []}, "[] is too short - 'messages'"),
        ({"reasoning_effort": "huge"}, 'invalid reasoning value: "huge" (must be "minimal"'),
        (
            {"messages": [HI | {"tool_calls": [{"function": {"arguments": "x"}}]}]},
            "invalid tool call arguments",
        ),
    ],
)
def test_requests_that_cannot_be_are_refused(body: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        chat(**body)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("told", "limit"),
    [
        ({"max_completion_tokens": 7}, 7),  # what newer clients send
        ({"max_completion_tokens": 7, "max_tokens": 5}, 5),
    ],
)
def test_the_newer_name_of_the_token_limit_counts_too(told: dict[str, int], limit: int) -> None:
    request = chat(model="m", messages=[{"role": "user", "content": "x"}], **told)
    assert request.options is not None
    assert request.options["num_predict"] == limit


def complete(**body: Any) -> CompletionRequest:
    return CompletionRequest.from_json(json.dumps(body).encode())


def test_completions_become_generate_requests() -> None:
    request = complete(
        model="m", prompt="p", suffix="s", stop=["a"], max_tokens=3, top_p=0.5, logprobs=4
    ).as_generates()[0]
    assert (request.prompt, request.suffix, request.stream) == ("p", "s", False)
    assert (request.logprobs, request.top_logprobs) == (True, 4)
    assert request.options == {
        "stop": ["a"],
        "num_predict": 3,
        "temperature": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "top_p": 0.5,
    }


def test_a_list_of_prompts_becomes_as_many_requests() -> None:
    found = complete(model="m", prompt=["a", ""], max_tokens=3).as_generates()
    assert [request.prompt for request in found] == ["a", ""]
    assert {request.options["num_predict"] for request in found if request.options} == {3}


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "prompt must be a string or a list of 1 to 128 strings"),
        (["x"] * 129, "prompt must be a string or a list of 1 to 128 strings"),
        ([1, 2], "prompt must be a string or a list of strings; token ids are not taken"),
        ([[1]], "prompt must be a string or a list of strings; token ids are not taken"),
        (5, "json: cannot unmarshal number into Go struct field CompletionRequest.prompt"),
    ],
)
def test_other_prompts_are_refused(prompt: Any, message: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        complete(prompt=prompt)
    assert str(caught.value).startswith(message)


def test_completions_take_texts_only_as_stops() -> None:
    with pytest.raises(RequestInvalid, match="invalid type for 'stop' field: bool"):
        complete(stop=["a", True]).as_generates()


def embed(**body: Any) -> EmbeddingsRequest:
    return EmbeddingsRequest.from_json(json.dumps(body).encode())


def test_embeddings_take_an_empty_text_as_one_input() -> None:
    request = embed(model="m", input="", dimensions=3, encoding_format="Base64").as_embed()
    assert (request.input, request.dimensions) == ([""], 3)


@pytest.mark.parametrize("body", [{}, {"input": []}, {"input": None}])
def test_embeddings_need_an_input(body: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid, match=r"^invalid input$"):
        embed(**body).as_embed()


def test_embeddings_have_two_encodings() -> None:
    with pytest.raises(RequestInvalid) as caught:
        embed(input="x", encoding_format="hex").as_embed()
    assert str(caught.value) == (
        "Invalid value for 'encoding_format' = hex. Supported values: ['float', 'base64']."
    )
