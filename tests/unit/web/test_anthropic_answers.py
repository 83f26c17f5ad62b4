from collections.abc import Sequence
from typing import Any

import pytest

from registry.core.errors import Unavailable, WorkerLost
from registry.core.generation import AnswerEvent, Delta, End, Metrics, Reason, Rendered
from registry.core.wishes import ChatWish, Message, ToolCall
from registry.web.anthropic_answers import (
    MessageFrames,
    MessageHead,
    estimated_tokens,
    message,
)
from registry.web.joined import Joined
from tests.support.frames import events_of

HEAD = MessageHead("msg_1a", "tiny", ("STOP",))
END = End(metrics=Metrics(prompt_eval_count=3, eval_count=2))
USAGE = {"input_tokens": 3, "output_tokens": 2}
CALL = ToolCall("add", {"b": 1, "a": [2]}, "call_x", 0)
EMPTY_TEXT = {"type": "text", "text": ""}
EMPTY_THINKING = {"type": "thinking", "thinking": "", "signature": ""}


def frames(events: Sequence[AnswerEvent]) -> list[dict[str, Any]]:
    writer = MessageFrames(HEAD, 7)
    return events_of(b"".join(writer.write(event) for event in events))


def start(index: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def piece(index: int, kind: str, name: str, text: str) -> dict[str, Any]:
    told = {"type": kind, name: text}
    return {"type": "content_block_delta", "index": index, "delta": told}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def test_a_stream_begins_with_an_empty_message_and_ends_with_what_it_took() -> None:
    begin, delta, end = frames([END])
    assert begin == {
        "type": "message_start",
        "message": {
            "id": "msg_1a",
            "type": "message",
            "role": "assistant",
            "model": "tiny",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 7, "output_tokens": 0},
        },
    }
    stopped = {"stop_reason": "end_turn", "stop_sequence": None}
    assert delta == {"type": "message_delta", "delta": stopped, "usage": USAGE}
    assert end == {"type": "message_stop"}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (
            [Delta("Hel"), Delta("lo")],
            [
                start(0, EMPTY_TEXT),
                piece(0, "text_delta", "text", "Hel"),
                piece(0, "text_delta", "text", "lo"),
                stop(0),
            ],
        ),
        (
            [Delta(thinking="hm"), Delta("so", "…"), Delta(thinking="and")],
            [
                start(0, EMPTY_THINKING),
                piece(0, "thinking_delta", "thinking", "hm"),
                piece(0, "thinking_delta", "thinking", "…"),
                stop(0),
                start(1, EMPTY_TEXT),
                piece(1, "text_delta", "text", "so"),
                stop(1),
                start(2, EMPTY_THINKING),
                piece(2, "thinking_delta", "thinking", "and"),
                stop(2),
            ],
        ),
        (
            [Delta("x"), Delta(tool_calls=(CALL, ToolCall("f", None, "", 1)))],
            [
                start(0, EMPTY_TEXT),
                piece(0, "text_delta", "text", "x"),
                stop(0),
                start(1, {"type": "tool_use", "id": "call_x", "name": "add", "input": {}}),
                piece(1, "input_json_delta", "partial_json", '{"b":1,"a":[2]}'),
                stop(1),
                start(2, {"type": "tool_use", "id": "call_msg_1a_1", "name": "f", "input": {}}),
                piece(2, "input_json_delta", "partial_json", "{}"),
                stop(2),
            ],
        ),
    ],
)
def test_a_stream_is_made_of_blocks(
    events: list[AnswerEvent], expected: list[dict[str, Any]]
) -> None:
    assert frames([*events, END])[1:-2] == expected


@pytest.mark.parametrize(
    ("calls", "end", "reason", "sequence"),
    [
        ((), End(), "end_turn", None),
        ((), End(Reason.LENGTH), "max_tokens", None),
        ((), End(stopped_by="STOP"), "stop_sequence", "STOP"),
        ((), End(stopped_by="<|im_end|>"), "end_turn", None),  # the model's own
        ((CALL,), End(), "tool_use", None),
        ((CALL,), End(Reason.LENGTH), "tool_use", None),
    ],
)
def test_why_it_ended(
    calls: tuple[ToolCall, ...], end: End, reason: str, sequence: str | None
) -> None:
    expected = {"stop_reason": reason, "stop_sequence": sequence}
    assert frames([Delta("x", tool_calls=calls), end])[-2]["delta"] == expected
    whole = message(HEAD, Joined("x", tool_calls=calls, end=end))
    assert {key: whole[key] for key in expected} == expected


def test_a_whole_message() -> None:
    assert message(HEAD, Joined("so", "hm", (CALL,), (), END)) == {
        "id": "msg_1a",
        "type": "message",
        "role": "assistant",
        "model": "tiny",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "so"},
            {"type": "tool_use", "id": "call_x", "name": "add", "input": {"b": 1, "a": [2]}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": USAGE,
    }
    assert message(HEAD, Joined())["content"] == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [(WorkerLost("gone"), "api_error"), (Unavailable("gone"), "overloaded_error")],
)
def test_a_failure_in_mid_answer_is_an_event(error: WorkerLost, kind: str) -> None:
    told = {"type": "error", "error": {"type": kind, "message": "gone"}}
    assert events_of(MessageFrames(HEAD, 0).failed(error)) == [told]


def test_a_rendered_prompt_has_no_place() -> None:
    assert [item["type"] for item in frames([Rendered("p")])] == ["message_start"]


@pytest.mark.parametrize(
    ("wish", "tokens"),
    [
        (ChatWish(), 1),
        (ChatWish(messages=(Message("user", "x" * 96),)), 25),
        (ChatWish(messages=(Message("assistant", "", "xxx", None, (CALL,)),)), 6),
        (ChatWish(tools=({"type": "function"},)), 5),
    ],
)
def test_the_prompt_is_estimated_from_its_characters(wish: ChatWish, tokens: int) -> None:
    assert estimated_tokens(wish) == tokens
