"""Answers in the shape of Anthropic's messages, whole and streamed.

Source: spec ollama-api 19.3; platform.claude.com/docs, "Messages" and "Streaming messages".
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, assert_never

from registry.core.errors import RegistryError
from registry.core.generation import AnswerEvent, Delta, End, Metrics, Reason, Rendered
from registry.core.wishes import ChatWish, Message, ToolCall
from registry.web.joined import Joined
from registry.web.openai import anthropic_error
from registry.web.openai_answers import arguments_text, tool_call_id
from registry.web.sse import event_frame
from registry.web.statuses import status_of

_Named = tuple[str, dict[str, Any]]
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class MessageHead:
    """What is known before the answer. `stops` are the request's own stop sequences."""

    id: str
    model: str
    stops: Collection[str] = ()


def estimated_tokens(wish: ChatWish) -> int:
    """About how many tokens a prompt has: it is told before the prompt is read."""
    characters = sum(_characters(message) for message in wish.messages or ())
    if wish.tools:
        characters += len(json.dumps(wish.tools, default=str))
    return max(1, characters // _CHARACTERS_PER_TOKEN)


def _characters(message: Message) -> int:
    calls = sum(len(arguments_text(call)) for call in message.tool_calls or ())
    return len(message.role) + len(message.content) + len(message.thinking) + calls


def _stop(end: End, stops: Collection[str], *, called: bool) -> dict[str, str | None]:
    reason = {Reason.LENGTH: "max_tokens"}.get(end.reason, "end_turn")
    if called:
        reason = "tool_use"
    elif end.stopped_by in stops:
        return {"stop_reason": "stop_sequence", "stop_sequence": end.stopped_by}
    return {"stop_reason": reason, "stop_sequence": None}


def _usage(metrics: Metrics | None) -> dict[str, int]:
    found = metrics or Metrics()
    return {"input_tokens": found.prompt_eval_count, "output_tokens": found.eval_count}


def _message(head: MessageHead, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": head.id,
        "type": "message",
        "role": "assistant",
        "model": head.model,
        "content": content,
    }


def message(head: MessageHead, whole: Joined) -> dict[str, Any]:
    """The whole answer."""
    content: list[dict[str, Any]] = []
    if whole.thinking:
        content.append({"type": "thinking", "thinking": whole.thinking, "signature": ""})
    if whole.content:
        content.append({"type": "text", "text": whole.content})
    content += [_tool_use(head, call, dict(call.arguments or {})) for call in whole.tool_calls]
    stop = _stop(whole.end, head.stops, called=bool(whole.tool_calls))
    return _message(head, content) | stop | {"usage": _usage(whole.end.metrics)}


def _tool_use(head: MessageHead, call: ToolCall, given: Mapping[str, Any]) -> dict[str, Any]:
    call_id = tool_call_id(call, head.id)
    return {"type": "tool_use", "id": call_id, "name": call.name, "input": given}


_EMPTY: Final[Mapping[str, dict[str, Any]]] = {
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "text": {"type": "text", "text": ""},
}


class MessageFrames:
    """The frames of a streamed message: blocks one after the other, each of one kind.

    `input_tokens` is what the first frame says the prompt has; the last one knows.
    """

    def __init__(self, head: MessageHead, input_tokens: int) -> None:
        self._head = head
        self._input_tokens = input_tokens
        self._begun = False
        self._index = 0
        self._open = ""
        self._called = False

    def write(self, event: AnswerEvent) -> bytes:
        """The frames of an event."""
        return b"".join(event_frame(kind, told) for kind, told in self._events(event))

    def failed(self, error: RegistryError) -> bytes:
        """An error in place of the end."""
        return event_frame("error", anthropic_error(status_of(error), str(error)))

    def _events(self, event: AnswerEvent) -> Iterator[_Named]:
        if not self._begun:
            self._begun = True
            usage = {"input_tokens": self._input_tokens, "output_tokens": 0}
            opened = _message(self._head, []) | {"stop_reason": None, "stop_sequence": None}
            yield self._event("message_start", message=opened | {"usage": usage})
        match event:
            case Delta():
                yield from self._delta(event)
            case End():
                yield from self._end(event)
            case Rendered():  # this API cannot ask for it
                return
            case _:
                assert_never(event)

    def _delta(self, event: Delta) -> Iterator[_Named]:
        if event.thinking:
            yield from self._text("thinking", event.thinking)
        if event.content:
            yield from self._text("text", event.content)
        for call in event.tool_calls:
            yield from self._tool(call)

    def _end(self, event: End) -> Iterator[_Named]:
        yield from self._close()
        called = self._called or event.made_tool_calls
        stop = _stop(event, self._head.stops, called=called)
        yield self._event("message_delta", delta=stop, usage=_usage(event.metrics))
        yield self._event("message_stop")

    def _text(self, kind: str, text: str) -> Iterator[_Named]:
        if self._open != kind:
            yield from self._close()
            yield from self._start(kind, _EMPTY[kind])
        yield self._block_delta({"type": f"{kind}_delta", kind: text})

    def _tool(self, call: ToolCall) -> Iterator[_Named]:
        self._called = True
        yield from self._close()
        yield from self._start("tool_use", _tool_use(self._head, call, {}))
        yield self._block_delta({"type": "input_json_delta", "partial_json": arguments_text(call)})
        yield from self._close()

    def _start(self, kind: str, block: Mapping[str, Any]) -> Iterator[_Named]:
        self._open = kind
        yield self._event("content_block_start", index=self._index, content_block=dict(block))

    def _block_delta(self, delta: dict[str, Any]) -> _Named:
        return self._event("content_block_delta", index=self._index, delta=delta)

    def _close(self) -> Iterator[_Named]:
        if self._open:
            self._open = ""
            yield self._event("content_block_stop", index=self._index)
            self._index += 1

    @staticmethod
    def _event(kind: str, **told: Any) -> _Named:
        return kind, {"type": kind, **told}
