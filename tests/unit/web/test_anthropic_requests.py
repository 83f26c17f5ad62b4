"""Anthropic's requests as chats; how they are decoded is in `test_go_json_vectors.py`."""

import json
from typing import Any

import pytest

from registry.core.errors import RequestInvalid
from registry.core.wishes import Message, ToolCall
from registry.web.anthropic_requests import MessagesRequest
from registry.web.inference_schemas import ChatRequest

TEXT = {"type": "text", "text": "a"}
HI = {"role": "User", "content": "hi"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "Zm9v"}}


def chat(**body: Any) -> ChatRequest:
    told = {"model": "m", "max_tokens": 5, "messages": [HI], **body}
    return MessagesRequest.from_json(json.dumps(told).encode()).as_chat()


def said(role: str, *blocks: Any) -> tuple[Message, ...] | None:
    return chat(messages=[{"role": role, "content": list(blocks)}]).messages


@pytest.mark.parametrize(
    ("system", "first"),
    [
        ("s", [Message(role="system", content="s")]),
        ([TEXT, {"type": "text"}, 1, {"text": "x"}, TEXT], [Message(role="system", content="aa")]),
        ("", []),
        (None, []),
        (5, []),
    ],
)  # fmt: skip
def test_the_system_text_comes_first(system: Any, first: list[Message]) -> None:
    assert chat(system=system).messages == (*first, Message(role="user", content="hi"))


def test_sampling_fields_become_options() -> None:
    request = chat(temperature=0.5, top_p=0.1, top_k=3, stop_sequences=["a"], stream=True)
    assert request.options == {
        "num_predict": 5,
        "temperature": 0.5,
        "top_p": 0.1,
        "top_k": 3,
        "stop": ["a"],
    }
    assert request.stream is True
    assert chat(stop_sequences=[]).options == {"num_predict": 5}


@pytest.mark.parametrize(
    ("body", "think"),
    [
        ({"thinking": {"type": "enabled"}}, True),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, False),
        ({"output_config": {"effort": " XHigh "}}, "high"),
        ({"output_config": {"effort": "max"}}, "max"),
        ({"output_config": {"effort": "huge"}}, None),
        ({}, None),
    ],
)
def test_thinking_becomes_think(body: dict[str, Any], think: object) -> None:
    assert chat(**body).think == think


def test_blocks_of_an_answer_become_one_message() -> None:
    use = {"type": "tool_use", "id": "1", "name": "f", "input": {"b": 1}}
    blocks = (
        {"type": "thinking", "thinking": "t"},
        {"type": "text", "text": "a"},
        {"type": "text", "text": None},
        use,
        {"type": "server_tool_use"},
        {"type": "unknown"},
    )
    assert said("assistant", *blocks) == (
        Message(
            role="assistant",
            content="a",
            thinking="t",
            tool_calls=(ToolCall("f", {"b": 1.0}, "1"), ToolCall("", {}, "")),
        ),
    )
    assert said("assistant", {"type": "unknown"}) == ()


def test_tool_results_come_before_what_the_user_says_beside_them() -> None:
    result = {
        "type": "tool_result",
        "tool_use_id": "1",
        "content": [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}, IMAGE, 5, {}],
    }
    plain = {"type": "web_search_tool_result", "tool_use_id": "2", "content": "found"}
    assert said("user", {"type": "text", "text": "so?"}, IMAGE, result, plain) == (
        Message(role="tool", content="42", images=(b"foo",), tool_call_id="1"),
        Message(role="tool", content="found", tool_call_id="2"),
        Message(role="user", content="so?", images=(b"foo",)),
    )
    after = said("assistant", {"type": "text", "text": "a"}, plain | {"content": None})
    assert after is not None
    assert [message.role for message in after] == ["assistant", "tool"]


def test_tools_are_taken_over() -> None:
    request = chat(
        tools=[{"name": "f", "description": "d", "input_schema": {"type": "object"}}, {}]
    )
    assert request.tools is not None
    assert request.tools[0]["function"] == {
        "name": "f",
        "description": "d",
        "parameters": {"type": "object"},
    }


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"model": ""}, "model is required"),
        ({"max_tokens": 0}, "max_tokens is required and must be positive"),
        ({"messages": []}, "messages is required"),
        (
            {"tools": [{"name": "f", "input_schema": {"type": 1}}]},
            'invalid input_schema for tool "f": json: cannot unmarshal number',
        ),
    ],
)
def test_requests_that_cannot_be_are_refused(body: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        chat(**body)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"type": "image"}, "invalid image source"),
        (
            {"type": "image", "source": {"type": "url", "url": "https://example.com"}},
            "invalid image source type: url. Only base64 images are supported.",
        ),
        (
            {"type": "image", "source": {"type": "base64", "data": "!"}},
            "invalid base64 image data: illegal base64 data at input byte 0",
        ),
        ({"type": "tool_use", "name": "f"}, "tool_use block missing required 'id' field"),
        ({"type": "tool_use", "id": "1"}, "tool_use block missing required 'name' field"),
        (
            {"type": "tool_result", "content": [{"type": "image", "source": "x"}]},
            "invalid tool_result image source",
        ),
    ],
)
def test_blocks_that_cannot_be_are_refused(block: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        said("user", block)
    assert str(caught.value) == message
