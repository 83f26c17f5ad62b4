"""Answers in the shape of OpenAI's responses, whole and streamed.

One machine makes both: the response of the stream's last event is the whole answer.

Source: spec ollama-api 19.3; developers.openai.com/api/reference, "Responses", "Streaming events".
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, assert_never

from registry.core.errors import RegistryError
from registry.core.generation import AnswerEvent, Delta, End, Metrics, Reason, Rendered
from registry.core.wishes import ToolCall
from registry.web.joined import Joined
from registry.web.openai_answers import Head, arguments_text, tool_call_id
from registry.web.responses_requests import ResponsesRequest
from registry.web.sse import event_frame
from registry.web.statuses import status_of

_SECOND = 1_000_000_000
_Event = dict[str, Any]
_CODES: Final = {400: "invalid_prompt", 429: "rate_limit_exceeded"}


def _settings(ask: ResponsesRequest) -> dict[str, Any]:
    """What a response repeats of its request, and the values of what this server does not have."""
    effort, summary = ((ask.reasoning or {}).get(key) or None for key in ("effort", "summary"))
    told = (ask.text or {}).get("format") or {"type": "text"}
    return {
        "instructions": ask.instructions or None,
        "tools": [_tool(tool) for tool in ask.tools or ()],
        "tool_choice": "auto",
        "truncation": ask.truncation or "disabled",
        "parallel_tool_calls": True,
        "text": {"format": {key: item for key, item in told.items() if item is not None}},
        "top_p": 1.0 if ask.top_p is None else ask.top_p,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_logprobs": 0,
        "temperature": 1.0 if ask.temperature is None else ask.temperature,
        "reasoning": {"effort": effort, "summary": summary} if effort or summary else None,
        "max_output_tokens": ask.max_output_tokens,
        "max_tool_calls": None,
        "store": False,
        "background": ask.background,
        "service_tier": "default",
        "metadata": {},
        "safety_identifier": None,
        "prompt_cache_key": None,
    }


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("type", "name", "description", "strict", "parameters")
    return {key: tool.get(key) for key in keys}


def _usage(metrics: Metrics | None) -> dict[str, Any]:
    found = metrics or Metrics()
    return {
        "input_tokens": found.prompt_eval_count,
        "output_tokens": found.eval_count,
        "total_tokens": found.prompt_eval_count + found.eval_count,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _summary(text: str) -> dict[str, str]:
    return {"type": "summary_text", "text": text}


class ResponseFrames:
    """The events of one response: items one after the other, each announced, filled and closed."""

    def __init__(self, head: Head, ask: ResponsesRequest, clock: Callable[[], int]) -> None:
        self._head = head
        self._settings = _settings(ask)
        self._clock = clock
        self._sequence = 0
        self._begun = False
        self._items: list[dict[str, Any]] = []
        self._open = ""
        self._pieces: list[str] = []

    def write(self, event: AnswerEvent) -> bytes:
        """The frames of an event."""
        return b"".join(event_frame(told["type"], told) for told in self.events(event))

    def failed(self, error: RegistryError) -> bytes:
        """An error, and the response that failed, in place of the end."""
        code = _CODES.get(status_of(error), "server_error")
        told = {"code": code, "message": str(error)}
        events = (
            self._event("error", **told, param=None),
            self._event("response.failed", response=self._response("failed", error=told)),
        )
        return b"".join(event_frame(item["type"], item) for item in events)

    def events(self, event: AnswerEvent) -> Iterator[_Event]:
        """The events of an event, numbered."""
        if not self._begun:
            self._begun = True
            for kind in ("response.created", "response.in_progress"):
                yield self._event(kind, response=self._response("in_progress"))
        match event:
            case Delta():
                yield from self._delta(event)
            case End():
                yield from self._end(event)
            case Rendered():  # this API cannot ask for it
                return
            case _:
                assert_never(event)

    def _delta(self, event: Delta) -> Iterator[_Event]:
        if event.thinking:
            yield from self._reason(event.thinking)
        if event.content:
            yield from self._say(event.content)
        for call in event.tool_calls:
            yield from self._close()
            yield from self._call(call)

    def _end(self, event: End) -> Iterator[_Event]:
        yield from self._close()
        if not self._items:  # clients expect a message
            yield from self._start_message()
            yield from self._close()
        is_cut = event.reason is Reason.LENGTH
        status = "incomplete" if is_cut else "completed"
        details = {"reason": "max_output_tokens"} if is_cut else None
        response = self._response(status, usage=_usage(event.metrics), incomplete_details=details)
        if not is_cut:
            response["completed_at"] = self._clock() // _SECOND
        yield self._event(f"response.{status}", response=response)

    # --- items ----------------------------------------------------------------------------------

    def _place(self, prefix: str) -> dict[str, Any]:
        """The id and index of the item that is open."""
        index = len(self._items)
        return {"item_id": f"{prefix}_{self._suffix}_{index}", "output_index": index}

    @property
    def _suffix(self) -> str:
        return self._head.id.partition("_")[2]

    def _reason(self, text: str) -> Iterator[_Event]:
        place = self._place("rs")
        if self._open != "reasoning":
            yield from self._close()
            place = self._place("rs")
            self._open = "reasoning"
            item = {"id": place["item_id"], "type": "reasoning", "summary": []}
            yield self._added(item)
            yield self._event(
                "response.reasoning_summary_part.added",
                **place,
                summary_index=0,
                part=_summary(""),
            )
        self._pieces.append(text)
        yield self._event(
            "response.reasoning_summary_text.delta", **place, summary_index=0, delta=text
        )

    def _say(self, text: str) -> Iterator[_Event]:
        if self._open != "message":
            yield from self._close()
            yield from self._start_message()
        self._pieces.append(text)
        yield self._event(
            "response.output_text.delta",
            **self._place("msg"),
            content_index=0,
            delta=text,
            logprobs=[],
        )

    def _start_message(self) -> Iterator[_Event]:
        place = self._place("msg")
        self._open = "message"
        yield self._added(self._message(place["item_id"], "in_progress", []))
        yield self._event("response.content_part.added", **place, content_index=0, part=_part(""))

    def _call(self, call: ToolCall) -> Iterator[_Event]:
        place = self._place("fc")
        arguments = arguments_text(call)
        item = {
            "id": place["item_id"],
            "type": "function_call",
            "status": "in_progress",
            "call_id": tool_call_id(call, self._suffix),
            "name": call.name,
            "arguments": "",
        }
        yield self._added(item)
        yield self._event("response.function_call_arguments.delta", **place, delta=arguments)
        yield self._event(
            "response.function_call_arguments.done", **place, name=call.name, arguments=arguments
        )
        yield self._done(item | {"status": "completed", "arguments": arguments})

    def _close(self) -> Iterator[_Event]:
        text = "".join(self._pieces)
        if self._open == "reasoning":
            yield from self._close_reasoning(text)
        elif self._open == "message":
            yield from self._close_message(text)
        self._open = ""
        self._pieces.clear()

    def _close_reasoning(self, text: str) -> Iterator[_Event]:
        place = {**self._place("rs"), "summary_index": 0}
        yield self._event("response.reasoning_summary_text.done", **place, text=text)
        yield self._event("response.reasoning_summary_part.done", **place, part=_summary(text))
        yield self._done(
            {
                "id": place["item_id"],
                "type": "reasoning",
                "summary": [_summary(text)],
                "encrypted_content": text,  # as the real server: clients send this field back
            }
        )

    def _close_message(self, text: str) -> Iterator[_Event]:
        place = {**self._place("msg"), "content_index": 0}
        yield self._event("response.output_text.done", **place, text=text, logprobs=[])
        yield self._event("response.content_part.done", **place, part=_part(text))
        yield self._done(self._message(place["item_id"], "completed", [_part(text)]))

    @staticmethod
    def _message(item_id: str, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": item_id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _added(self, item: dict[str, Any]) -> _Event:
        return self._event("response.output_item.added", output_index=len(self._items), item=item)

    def _done(self, item: dict[str, Any]) -> _Event:
        self._items.append(item)
        index = len(self._items) - 1
        return self._event("response.output_item.done", output_index=index, item=item)

    # --- events ---------------------------------------------------------------------------------

    def _event(self, kind: str, **told: Any) -> _Event:
        number = self._sequence
        self._sequence += 1
        return {"type": kind, "sequence_number": number, **told}

    def _response(self, status: str, **told: Any) -> dict[str, Any]:
        return {
            "id": self._head.id,
            "object": "response",
            "created_at": self._head.created,
            "completed_at": None,
            "status": status,
            "incomplete_details": None,
            "model": self._head.model,
            "previous_response_id": None,
            "output": list(self._items),
            "error": None,
            "usage": None,
            **self._settings,
            **told,
        }


def response(
    head: Head, ask: ResponsesRequest, whole: Joined, clock: Callable[[], int]
) -> dict[str, Any]:
    """The whole answer."""
    frames = ResponseFrames(head, ask, clock)
    said = Delta(whole.content, whole.thinking, whole.tool_calls)
    events = [*frames.events(said), *frames.events(whole.end)]
    found: dict[str, Any] = events[-1]["response"]
    return found
