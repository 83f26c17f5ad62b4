from collections.abc import Sequence
from typing import Any

import pytest

from registry.core.errors import RegistryError, RequestInvalid, TooOften, WorkerLost
from registry.core.generation import AnswerEvent, Delta, End, Metrics, Reason, Rendered
from registry.core.wishes import ToolCall
from registry.web.joined import Joined
from registry.web.openai_answers import Head
from registry.web.responses_answers import ResponseFrames, response
from registry.web.responses_requests import ResponsesRequest
from tests.support.frames import events_of

HEAD = Head("resp_1a", 1700000000, "tiny")
END = End(metrics=Metrics(prompt_eval_count=3, eval_count=2))
CALL = ToolCall("add", {"b": 1}, "call_x", 0)
ASK = ResponsesRequest(model="tiny", input="hi")
PART = {"type": "output_text", "annotations": [], "logprobs": []}


def clock() -> int:
    return 1700000009 * 10**9


def frames(events: Sequence[AnswerEvent], ask: ResponsesRequest = ASK) -> list[dict[str, Any]]:
    writer = ResponseFrames(HEAD, ask, clock)
    return events_of(b"".join(writer.write(event) for event in events))


def plain(events: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The events between the beginning and the end, without type and number."""
    return [
        (
            event["type"].removeprefix("response."),
            {key: event[key] for key in event if key not in {"type", "sequence_number"}},
        )
        for event in events[2:-1]
    ]


def test_a_stream_is_numbered_begins_twice_and_ends_once() -> None:
    events = frames([Delta("hi"), END])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    begin = events[0]["response"]
    assert (begin["status"], begin["output"], begin["usage"]) == ("in_progress", [], None)
    assert (begin["created_at"], begin["completed_at"]) == (1700000000, None)
    end = events[-1]["response"]
    assert (end["status"], end["completed_at"]) == ("completed", 1700000009)
    assert end["usage"] == {
        "input_tokens": 3,
        "output_tokens": 2,
        "total_tokens": 5,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }


def test_text_is_a_message() -> None:
    item = {"id": "msg_1a_0", "type": "message", "role": "assistant"}
    place = {"item_id": "msg_1a_0", "output_index": 0, "content_index": 0}
    done = item | {"status": "completed", "content": [PART | {"text": "Hello"}]}
    events = frames([Delta("Hel"), Delta("lo"), END])
    started = item | {"status": "in_progress", "content": []}
    assert plain(events) == [
        ("output_item.added", {"output_index": 0, "item": started}),
        ("content_part.added", place | {"part": PART | {"text": ""}}),
        ("output_text.delta", place | {"delta": "Hel", "logprobs": []}),
        ("output_text.delta", place | {"delta": "lo", "logprobs": []}),
        ("output_text.done", place | {"text": "Hello", "logprobs": []}),
        ("content_part.done", place | {"part": PART | {"text": "Hello"}}),
        ("output_item.done", {"output_index": 0, "item": done}),
    ]
    assert events[-1]["response"]["output"] == [done]


def test_thinking_is_an_item_of_its_own_before_the_call_it_led_to() -> None:
    place = {"item_id": "rs_1a_0", "output_index": 0}
    part = {"type": "summary_text", "text": "hm"}
    thought = {
        "id": "rs_1a_0",
        "type": "reasoning",
        "summary": [part],
        "encrypted_content": "hm",
    }
    called = {
        "id": "fc_1a_1",
        "type": "function_call",
        "status": "completed",
        "call_id": "call_x",
        "name": "add",
        "arguments": '{"b":1}',
    }
    spot = {"item_id": "fc_1a_1", "output_index": 1}
    events = frames([Delta(thinking="h"), Delta(thinking="m", tool_calls=(CALL,)), END])
    opened = {"id": "rs_1a_0", "type": "reasoning", "summary": []}
    assert plain(events) == [
        ("output_item.added", {"output_index": 0, "item": opened}),
        (
            "reasoning_summary_part.added",
            place | {"summary_index": 0, "part": part | {"text": ""}},
        ),
        ("reasoning_summary_text.delta", place | {"summary_index": 0, "delta": "h"}),
        ("reasoning_summary_text.delta", place | {"summary_index": 0, "delta": "m"}),
        ("reasoning_summary_text.done", place | {"summary_index": 0, "text": "hm"}),
        ("reasoning_summary_part.done", place | {"summary_index": 0, "part": part}),
        ("output_item.done", {"output_index": 0, "item": thought}),
        (
            "output_item.added",
            {"output_index": 1, "item": called | {"status": "in_progress", "arguments": ""}},
        ),
        ("function_call_arguments.delta", spot | {"delta": '{"b":1}'}),
        ("function_call_arguments.done", spot | {"name": "add", "arguments": '{"b":1}'}),
        ("output_item.done", {"output_index": 1, "item": called}),
    ]
    assert events[-1]["response"]["output"] == [thought, called]


def test_text_around_thinking_and_calls_makes_several_messages() -> None:
    said = [Delta("a"), Delta(thinking="b"), Delta("c"), Delta(tool_calls=(CALL,)), Delta("d")]
    output = frames([*said, END])[-1]["response"]["output"]
    assert [item["id"] for item in output] == [
        "msg_1a_0",
        "rs_1a_1",
        "msg_1a_2",
        "fc_1a_3",
        "msg_1a_4",
    ]


def test_an_answer_without_a_word_is_an_empty_message() -> None:
    output = frames([END])[-1]["response"]["output"]
    assert [item["content"] for item in output] == [[PART | {"text": ""}]]


def test_an_answer_cut_off_is_incomplete() -> None:
    last = frames([Delta("x"), End(Reason.LENGTH)])[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["status"] == "incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["response"]["completed_at"] is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WorkerLost("gone"), "server_error"),
        (TooOften("gone"), "rate_limit_exceeded"),
        (RequestInvalid("gone"), "invalid_prompt"),
    ],
)
def test_a_failure_in_mid_answer_is_told_twice(error: RegistryError, code: str) -> None:
    writer = ResponseFrames(HEAD, ASK, clock)
    begun = events_of(writer.write(Delta("x")))
    first, last = events_of(writer.failed(error))
    number = len(begun)
    told = {"code": code, "message": "gone"}
    assert first == {"type": "error", "sequence_number": number, **told, "param": None}
    assert (last["type"], last["sequence_number"]) == ("response.failed", number + 1)
    assert (last["response"]["status"], last["response"]["error"]) == ("failed", told)


def test_a_response_repeats_what_was_asked() -> None:
    body = b"""{"model":"tiny","input":"x","instructions":"be brief","max_output_tokens":5,
        "temperature":0.5,"top_p":0.25,"truncation":"auto","background":true,
        "reasoning":{"effort":"low"},
        "text":{"format":{"type":"json_schema","name":"s","schema":{"type": "object"}}},
        "tools":[{"type":"function","name":"f","parameters":{"type":"object"}}]}"""
    found = frames([END], ResponsesRequest.from_json(body))[0]["response"]
    expected = {
        "instructions": "be brief",
        "max_output_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.25,
        "truncation": "auto",
        "background": True,
        "reasoning": {"effort": "low", "summary": None},
        "text": {"format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}}},
        "tools": [
            {
                "type": "function",
                "name": "f",
                "description": None,
                "strict": None,
                "parameters": {"type": "object"},
            }
        ],
    }
    assert {key: found[key] for key in expected} == expected


def test_a_plain_response_has_the_defaults() -> None:
    found = response(HEAD, ASK, Joined("hi", end=END), clock)
    assert {key: found[key] for key in ("id", "object", "model", "status", "error")} == {
        "id": "resp_1a",
        "object": "response",
        "model": "tiny",
        "status": "completed",
        "error": None,
    }
    assert (found["temperature"], found["top_p"], found["store"]) == (1.0, 1.0, False)
    assert found["text"] == {"format": {"type": "text"}}
    assert (found["reasoning"], found["tools"], found["metadata"]) == (None, [], {})
    assert found["output"][0]["content"] == [PART | {"text": "hi"}]


def test_a_rendered_prompt_has_no_place() -> None:
    assert len(frames([Rendered("p")])) == 2
