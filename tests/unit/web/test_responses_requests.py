"""Responses requests as chats; how they are decoded is in `test_go_json_vectors.py`."""

import json
from typing import Any

import pytest

from registry.core.errors import RequestInvalid
from registry.core.wishes import Message, ToolCall
from registry.web.inference_schemas import ChatRequest
from registry.web.responses_requests import ResponsesRequest


def chat(**body: Any) -> ChatRequest:
    return ResponsesRequest.from_json(json.dumps({"model": "m", **body}).encode()).as_chat()


def test_a_text_is_a_message_of_the_user_after_the_instructions() -> None:
    request = chat(input="hi", instructions="be brief", max_output_tokens=5, top_p=0.5)
    assert request.messages == (
        Message(role="system", content="be brief"),
        Message(role="user", content="hi"),
    )
    assert request.options == {"temperature": 1.0, "num_predict": 5, "top_p": 0.5}
    assert (request.stream, request.think) == (False, None)
    assert chat().messages == ()


def test_items_become_messages_and_reasoning_goes_to_the_next_answer() -> None:
    request = chat(
        temperature=0.5,
        stream=True,
        reasoning={"effort": "low"},
        input=[
            {"role": "User", "content": [
                {"type": "input_text", "text": "see"},
                {"type": "input_image", "image_url": "data:;base64,Zm9v"},
                {"type": "input_image", "file_id": "1"},
            ]},
            {"type": "reasoning", "encrypted_content": "thought"},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": '{"a":1}'},
            {"type": "function_call", "call_id": "2", "name": "g"},
            {"type": "web_search_call"},
            {"type": "function_call_output", "call_id": "1", "output": [
                {"type": "output_text", "text": "4"},
                {"type": "input_text", "text": "2"},
            ]},
            {"type": "reasoning", "encrypted_content": "last"},
        ],
    )  # fmt: skip
    assert request.messages == (
        Message(role="user", content="see", images=(b"foo",)),
        Message(role="assistant", thinking="thought", tool_calls=(ToolCall("f", {"a": 1.0}, "1"),)),
        Message(role="assistant", tool_calls=(ToolCall("g", {}, "2"),)),
        Message(role="tool", content="42", tool_call_id="1"),
        Message(role="assistant", thinking="last"),
    )
    assert (request.stream, request.think) == (True, "low")


def test_tools_of_a_namespace_bear_its_name() -> None:
    request = chat(
        tools=[
            {"type": "function", "name": "a", "description": "d", "parameters": {"type": "object"}},
            {"type": "namespace", "name": "n", "tools": [
                {"type": "function", "name": "b", "description": None},
                {"type": "function", "name": "n.c"},
            ]},
        ]
    )  # fmt: skip
    assert request.tools is not None
    assert [tool["function"]["name"] for tool in request.tools] == ["a", "n.b", "n.c"]
    assert request.tools[0]["function"]["parameters"] == {"type": "object"}
    assert request.tools[1]["function"]["description"] == ""


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"type": "json_schema", "schema": {"a": 1}}, b'{"a":1}'),
        ({"type": "json_schema"}, None),
        ({"type": "text", "schema": {}}, None),
    ],
)
def test_the_format_of_the_answer(form: dict[str, Any], told: bytes | None) -> None:
    assert chat(text={"format": form}).format == told


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "1"}]}]},
            "file inputs are not currently supported",
        ),
        (
            {"input": [{"type": "function_call", "arguments": "{"}]},
            "failed to parse function call arguments: unexpected EOF",
        ),
        (
            {"tools": [{"parameters": {"type": 1}}]},
            "failed to unmarshal tool parameters: json: cannot unmarshal number into Go struct "
            "field ToolFunctionParameters.type of type string",
        ),
        ({"input": [{"role": "u"}, {"type": "q"}]}, 'input[1]: unknown input item type: "q"'),
        ({"reasoning": {"effort": "huge"}}, "invalid reasoning value"),
    ],
)
def test_requests_that_cannot_be_are_refused(body: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        chat(**body)
    assert str(caught.value).startswith(message)
