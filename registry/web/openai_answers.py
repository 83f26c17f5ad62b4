"""Answers in the shapes of OpenAI's chats, completions and embeddings, whole and streamed.

Source: spec ollama-api 19.2, 19.3; platform.openai.com/docs/api-reference, "Chat", "Completions"
(the fields of `logprobs`), "Embeddings".
"""

import base64
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from registry.core.errors import RegistryError
from registry.core.generation import (
    AnswerEvent,
    Choice,
    Delta,
    End,
    Logprob,
    Metrics,
    Reason,
    Rendered,
    Vectors,
)
from registry.core.gojson import Raw, dumps
from registry.core.wishes import ToolCall
from registry.services.inference.vectors import as_json
from registry.web.joined import Joined
from registry.web.openai import openai_error
from registry.web.sse import data_frame
from registry.web.statuses import status_of

FINGERPRINT = "fp_ollama"
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Head:
    """What all frames of an answer have in common. `created` is in seconds since the epoch."""

    id: str
    created: int
    model: str


def tool_call_id(call: ToolCall, answer_id: str) -> str:
    """The call's id; clients send it back, so one that has none is given one."""
    return call.id or f"call_{answer_id.partition('-')[2] or answer_id}_{call.index}"


def arguments_text(call: ToolCall) -> str:
    """A call's arguments as JSON text."""
    return dumps(dict(call.arguments or {})).decode()


def usage(metrics: Metrics | None) -> dict[str, int]:
    """Tokens read and written."""
    read, written = (metrics.prompt_eval_count, metrics.eval_count) if metrics else (0, 0)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }


def _tool_call(call: ToolCall, answer_id: str) -> dict[str, Any]:
    return {
        "id": tool_call_id(call, answer_id),
        "index": call.index,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments_text(call)},
    }


def _choice(choice: Choice) -> dict[str, Any]:
    octets = list(choice.bytes) or list(choice.token.encode())
    return {"token": choice.token, "logprob": choice.logprob, "bytes": octets}


def _logprobs(logprobs: Sequence[Logprob]) -> dict[str, Any]:
    """`logprobs` of a choice of a chat; nothing where there are none."""
    if not logprobs:
        return {}
    content = [
        _choice(item.chosen) | {"top_logprobs": [_choice(top) for top in item.top]}
        for item in logprobs
    ]
    return {"logprobs": {"content": content}}


class _Envelope:
    """The frames of a stream but for their choices: written once, since there is one per token."""

    def __init__(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        self._before = b"data: " + dumps(before)[:-1] + b',"choices":['
        self._after = b"]" + _members(after)

    def frame(self, choice: bytes, **more: Any) -> bytes:
        """A frame with one choice, or with none."""
        return self._before + choice + self._after + _members(more) + b"}\n\n"


def _members(told: dict[str, Any]) -> bytes:
    """Members of an object that has some already."""
    return b"," + dumps(told)[1:-1] if told else b""


def _ended(finish: str | None, logprobs: dict[str, Any]) -> bytes:
    """The end of a choice; a plain null, because `dumps` would look twice at it."""
    reason = b"null" if finish is None else b'"%b"' % finish.encode()
    return b',"finish_reason":' + reason + _members(logprobs) + b"}"


# --- chats --------------------------------------------------------------------------------------


def _finish(end: End, *, called: bool) -> str:
    if called and end.reason is Reason.STOP:
        return "tool_calls"
    return end.reason.value


def chat_completion(head: Head, whole: Joined) -> dict[str, Any]:
    """The whole answer to a chat."""
    calls = [_tool_call(call, head.id) for call in whole.tool_calls]
    message: dict[str, Any] = {"role": "assistant", "content": whole.content}
    if whole.thinking:
        message["reasoning"] = whole.thinking
    if calls:
        message["tool_calls"] = calls
    finish = None if whole.rendered else _finish(whole.end, called=bool(calls))
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "system_fingerprint": FINGERPRINT,
        "choices": [choice | _logprobs(whole.logprobs)],
        "usage": usage(whole.end.metrics),
        **_debug(whole.rendered),
    }


def _debug(rendered: Rendered | None) -> dict[str, Any]:
    if rendered is None:
        return {}
    images = {"image_count": rendered.images} if rendered.images else {}
    return {"_debug_info": {"rendered_template": rendered.prompt, **images}}


class ChatChunks:
    """The frames of a streamed chat. The role comes once, and `content` in each but the last."""

    def __init__(self, head: Head, *, include_usage: bool = False) -> None:
        self._head = head
        self._include_usage = include_usage
        self._begun = False
        self._called = False
        told = {
            "id": head.id,
            "object": "chat.completion.chunk",
            "created": head.created,
            "model": head.model,
            "system_fingerprint": FINGERPRINT,
        }
        self._envelope = _Envelope(told, {})

    def write(self, event: AnswerEvent) -> bytes:
        """The frames of an event."""
        match event:
            case Delta():
                return b"".join(self._deltas(event))
            case End():
                return b"".join(self._end(event))
            case Rendered():  # answered as a whole
                return b""
            case _:
                assert_never(event)

    def failed(self, error: RegistryError) -> bytes:
        """An error in place of the end."""
        return data_frame(openai_error(status_of(error), str(error)))

    def _deltas(self, event: Delta) -> Iterable[bytes]:
        calls = [_tool_call(call, self._head.id) for call in event.tool_calls]
        self._called = self._called or bool(calls)
        told: dict[str, Any] = {"content": event.content}
        late = {"tool_calls": calls} if calls else {}
        logprobs = _logprobs(event.logprobs)
        if event.thinking and (event.content or calls):  # these two never share a chunk
            yield self._chunk({"reasoning": event.thinking}, None, logprobs)
            yield self._chunk(told | late)
            return
        if event.thinking:
            told["reasoning"] = event.thinking
        yield self._chunk(told | late, None, logprobs)

    def _end(self, event: End) -> Iterable[bytes]:
        if not self._begun:
            yield self._chunk({"content": ""})
        called = self._called or event.made_tool_calls
        yield self._chunk({}, _finish(event, called=called))
        if self._include_usage:
            yield self._envelope.frame(b"", usage=usage(event.metrics))
        yield DONE

    def _chunk(
        self,
        delta: dict[str, Any],
        finish: str | None = None,
        logprobs: dict[str, Any] | None = None,
    ) -> bytes:
        if not self._begun:
            delta = {"role": "assistant"} | delta
            self._begun = True
        told = b'{"index":0,"delta":' + dumps(delta)
        return self._envelope.frame(told + _ended(finish, logprobs or {}))


# --- completions --------------------------------------------------------------------------------


def _text_logprobs(logprobs: Sequence[Logprob], offset: int) -> dict[str, Any]:
    """`logprobs` of a choice of a completion; the text's first character stands at `offset`."""
    if not logprobs:
        return {}
    offsets = []
    for item in logprobs:
        offsets.append(offset)
        offset += len(item.chosen.token)
    return {
        "logprobs": {
            "tokens": [item.chosen.token for item in logprobs],
            "token_logprobs": [item.chosen.logprob for item in logprobs],
            "top_logprobs": [{top.token: top.logprob for top in item.top} for item in logprobs],
            "text_offset": offsets,
        }
    }


def _sum(metrics: Iterable[Metrics]) -> Metrics:
    read = written = 0
    for item in metrics:
        read += item.prompt_eval_count
        written += item.eval_count
    return Metrics(prompt_eval_count=read, eval_count=written)


def completion(head: Head, answers: Sequence[Joined]) -> dict[str, Any]:
    """The whole answer to a completion of as many prompts as there are answers, in order."""
    choices = [
        {
            "text": whole.content,
            "index": index,
            "finish_reason": None if whole.rendered else whole.end.reason.value,
        }
        | _text_logprobs(whole.logprobs, 0)
        for index, whole in enumerate(answers)
    ]
    return {
        "id": head.id,
        "object": "text_completion",
        "created": head.created,
        "model": head.model,
        "system_fingerprint": FINGERPRINT,
        "choices": choices,
        "usage": usage(_sum(whole.metrics for whole in answers)),
        **_debug(answers[0].rendered),
    }


class CompletionChunks:
    """The frames of a streamed completion of `prompts` prompts, one answer after the other."""

    def __init__(self, head: Head, *, prompts: int = 1, include_usage: bool = False) -> None:
        self._prompts = prompts
        self._include_usage = include_usage
        self._index = 0
        self._offset = 0
        self._metrics: list[Metrics] = []
        before = {"id": head.id, "object": "text_completion", "created": head.created}
        after = {"model": head.model, "system_fingerprint": FINGERPRINT}
        self._envelope = _Envelope(before, after)

    def write(self, event: AnswerEvent) -> bytes:
        """The frames of an event."""
        match event:
            case Delta():
                return self._delta(event)
            case End():
                return b"".join(self._end(event))
            case Rendered():  # answered as a whole
                return b""
            case _:
                assert_never(event)

    def failed(self, error: RegistryError) -> bytes:
        """An error in place of the end."""
        return data_frame(openai_error(status_of(error), str(error)))

    def _delta(self, event: Delta) -> bytes:
        if not event.content and not event.logprobs:  # thinking has no place here
            return b""
        logprobs = _text_logprobs(event.logprobs, self._offset)
        self._offset += len(event.content)
        return self._chunk(event.content, None, logprobs)

    def _end(self, event: End) -> Iterable[bytes]:
        yield self._chunk("", event.reason.value, {})
        self._metrics.append(event.metrics or Metrics())
        self._index += 1
        self._offset = 0
        if self._index < self._prompts:
            return
        if self._include_usage:
            yield self._envelope.frame(b"", usage=usage(_sum(self._metrics)))
        yield DONE

    def _chunk(self, text: str, finish: str | None, logprobs: dict[str, Any]) -> bytes:
        told = dumps({"text": text, "index": self._index})[:-1] + _ended(finish, logprobs)
        counted = {"usage": usage(None)} if self._include_usage else {}
        return self._envelope.frame(told, **counted)


# --- embeddings ---------------------------------------------------------------------------------


def embedding_list(model: str, vectors: Vectors, *, as_base64: bool) -> dict[str, Any]:
    """Vectors as lists of numbers, or as base64 of little-endian float32."""
    write: Callable[[list[float]], str | Raw] = _packed if as_base64 else _numbers
    read = vectors.metrics.prompt_eval_count
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": write(vector), "index": index}
            for index, vector in enumerate(vectors.vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": read, "total_tokens": read},
    }


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _numbers(vector: list[float]) -> Raw:
    return Raw(as_json([vector])[1:-1])
