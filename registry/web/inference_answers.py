"""Answers of generate and chat as the Ollama API words them: NDJSON frames, or one object.

Fields come in the order of the real server. Early errors have a status, late ones are the last
line of the stream.

Source: spec ollama-api 14.3, 15.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, fields
from typing import Any, assert_never

from starlette.requests import Request
from starlette.responses import Response

from registry.core.errors import RegistryError
from registry.core.generation import (
    Answer,
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
from registry.core.gojson import dumps
from registry.core.wishes import ToolCall
from registry.services.inference.running import RunningModel
from registry.services.inference.vectors import as_json, wide_json
from registry.web.answers import bytes_response, json_response, rfc3339, utc_now
from registry.web.joined import Joined, joined
from registry.web.leaving import LiveResponse, attended
from registry.web.streams import NDJSON

OWN_WORKER = "local"
"""The worker inside the server: what runs there is told as the real server tells it."""
_METRICS = tuple(item.name for item in fields(Metrics))
_NOTHING_RAN = (Reason.LOAD, Reason.UNLOAD)


@dataclass(frozen=True, slots=True)
class Wording:
    """What an endpoint's frames hold besides the answer. `model` is the name as it was sent."""

    model: str
    chat: bool
    clock: Callable[[], int]
    _around: tuple[bytes, bytes, bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Write what stands around plain text: there is one such frame for each token."""
        before = b'{"model":%b,"created_at":"' % dumps(self.model)
        around = (before, b'","response":', b',"done":false}\n')
        if self.chat:
            opening = b'","message":{"role":"assistant","content":'
            around = (before, opening, b'},"done":false}\n')
        object.__setattr__(self, "_around", around)

    def line(self, event: AnswerEvent) -> bytes:
        """An event as a line of NDJSON."""
        if isinstance(event, Delta) and event.is_plain:
            before, between, after = self._around
            now = utc_now(self.clock()).encode()
            return b"".join((before, now, between, dumps(event.content), after))
        return dumps(self.frame(event)) + b"\n"

    def frame(self, event: AnswerEvent) -> dict[str, Any]:
        """An event as a frame."""
        match event:
            case Delta():
                return self._frame(event)
            case End():
                return self.whole(Delta(), event)
            case Rendered():
                debug: dict[str, Any] = {"rendered_template": event.prompt}
                debug |= {"image_count": event.images} if event.images else {}
                return self._frame(Delta()) | {"_debug_info": debug}
            case _:
                assert_never(event)

    def whole(self, said: Delta, end: End) -> dict[str, Any]:
        """The end of an answer in one frame with what was said, all of it or the rest."""
        return self._frame(said, end)

    def _frame(self, said: Delta, end: End | None = None) -> dict[str, Any]:
        frame = {
            "model": self.model,
            "created_at": utc_now(self.clock()),
            **self._said(said),
            "done": end is not None,
        }
        frame |= {"done_reason": end.reason.value} if end else {}
        metrics = _metrics(end.metrics) if end else {}
        if self.chat:
            return frame | _logprobs(said.logprobs) | metrics
        context = end.context if end else None
        frame |= {"context": list(context)} if context else {}
        return frame | metrics | _tool_calls(said.tool_calls) | _logprobs(said.logprobs)

    def _said(self, said: Delta) -> dict[str, Any]:
        thinking = {"thinking": said.thinking} if said.thinking else {}
        if not self.chat:
            return {"response": said.content, **thinking}
        message = {"role": "assistant", "content": said.content, **thinking}
        return {"message": message | _tool_calls(said.tool_calls)}


async def respond(request: Request, answer: Answer, wording: Wording, *, streams: bool) -> Response:
    """Send an answer as it comes, or as one object when it is complete.

    The answer is closed in every case, also when the client leaves while nothing was sent yet.

    Raises:
        RegistryError: it failed before its first event, or at all if it does not stream.
    """
    try:
        if not streams:
            return json_response(_whole(await attended(request, joined(answer)), wording))
        first = await attended(request, _first(answer))
    except BaseException:
        await answer.aclose()
        raise
    if isinstance(first, Rendered) or (isinstance(first, End) and first.reason in _NOTHING_RAN):
        await answer.aclose()
        return json_response(wording.frame(first))
    lines = _lines(first, answer, wording)
    return LiveResponse(lines, headers={"content-type": NDJSON})


def _whole(said: Joined, wording: Wording) -> dict[str, Any]:
    if said.rendered is not None:
        return wording.frame(said.rendered)
    delta = Delta(said.content, said.thinking, said.tool_calls, said.logprobs)
    return wording.whole(delta, said.end)


async def _first(answer: Answer) -> AnswerEvent:
    return await anext(answer)


def vectors_response(model: str, found: Vectors) -> Response:
    """The answer of embed."""
    body = [b'{"model":', dumps(model), b',"embeddings":', as_json(found.vectors)]
    metrics = _metrics(found.metrics)
    body += [b',"%b":%d' % (name.encode(), value) for name, value in metrics.items()]
    return bytes_response(b"".join(body) + b"}")


def vector_response(found: Vectors) -> Response:
    """The answer of the older form of embed: one vector, or none."""
    numbers = b"".join(wide_json(vector) for vector in found.vectors) or b"[]"
    return bytes_response(b'{"embedding":' + numbers + b"}")


def running_model(item: RunningModel) -> dict[str, Any]:
    """An entry of `/api/ps`. One on another worker than the server's own also has its name."""
    loaded = item.loaded
    entry = {
        "name": loaded.name.short,
        "model": loaded.name.short,
        "size": loaded.size,
        "digest": loaded.manifest.hex,
        "details": item.details,
        "expires_at": rfc3339(item.expires_at),
        "size_vram": loaded.size_vram,
        "context_length": loaded.num_ctx,
    }
    return entry | ({} if item.worker == OWN_WORKER else {"worker": item.worker})


async def _lines(first: AnswerEvent, rest: Answer, wording: Wording) -> AsyncIterator[bytes]:
    async with aclosing(rest):  # a client that leaves ends the work
        try:
            yield wording.line(first)
            async for event in rest:
                yield wording.line(event)
        except RegistryError as error:  # the status has gone out: the last line must tell
            yield dumps({"error": str(error)}) + b"\n"


def _tool_calls(calls: tuple[ToolCall, ...]) -> dict[str, Any]:
    return {"tool_calls": [call.as_json() for call in calls]} if calls else {}


def _metrics(metrics: Metrics | None) -> dict[str, int]:
    if metrics is None:
        return {}
    found = ((name, getattr(metrics, name)) for name in _METRICS)
    return {name: value for name, value in found if value}


def _logprobs(logprobs: tuple[Logprob, ...]) -> dict[str, Any]:
    return {"logprobs": [_logprob(item) for item in logprobs]} if logprobs else {}


def _logprob(item: Logprob) -> dict[str, Any]:
    top = {"top_logprobs": [_choice(choice) for choice in item.top]} if item.top else {}
    return _choice(item.chosen) | top


def _choice(choice: Choice) -> dict[str, Any]:
    bytes_ = {"bytes": list(choice.bytes)} if choice.bytes else {}
    return {"token": choice.token, "logprob": choice.logprob, **bytes_}
