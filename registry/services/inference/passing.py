"""Requests passed on to an Ollama server as they came, and its frames as events.

It has the same model, renders by itself and keeps its own rules.

Source: spec inference-and-gguf 3.3; ollama-api 14, 15.
"""

import base64
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import fields, replace
from typing import Any

from registry.core.errors import OperationFailed, WorkerLost
from registry.core.generation import (
    AnswerEvent,
    Choice,
    Delta,
    End,
    Logprob,
    Metrics,
    Reason,
    Rendered,
)
from registry.core.wishes import ChatWish, GenerateWish, ToolCall
from registry.services.inference.jobs import Job, Stage, closing


async def passed_on(job: Job, stage: Stage) -> AsyncGenerator[AnswerEvent, None]:
    """The events of an answer that an Ollama server makes."""
    path = "/api/chat" if isinstance(job.wish, ChatWish) else "/api/generate"
    made_tool_calls = False
    async with closing(stage.running.native(path, request_body(job))) as frames:
        async for frame in frames:
            if "_debug_info" in frame:
                yield _rendered(frame)
                return
            delta = delta_of(frame)
            made_tool_calls |= bool(delta.tool_calls)
            if delta != Delta():
                yield delta
            if frame.get("done"):
                end = replace(end_of(frame), made_tool_calls=made_tool_calls)
                yield _timed(end, stage)
                return
    raise WorkerLost


def request_body(job: Job) -> dict[str, Any]:
    """The request in that API's own words; what was not said is left out."""
    wish = job.wish
    body: dict[str, Any] = {"model": job.admitted.tag.model.short, "stream": True}
    shared = {
        "format": None if wish.format is None else json.loads(wish.format),
        "options": dict(wish.options) if wish.options else None,
        "think": job.think,
        "truncate": wish.truncate,
        "shift": wish.shift,
        "logprobs": wish.logprobs or None,
        "top_logprobs": wish.top_logprobs or None,
        "_debug_render_only": wish.debug_render_only or None,
    }
    own = _chat_fields(wish) if isinstance(wish, ChatWish) else _generate_fields(wish)
    return body | {name: value for name, value in (shared | own).items() if value is not None}


def _chat_fields(wish: ChatWish) -> dict[str, Any]:
    messages = [message.as_json() for message in wish.messages or ()]
    return {"messages": messages, "tools": list(wish.tools) if wish.tools else None}


def _generate_fields(wish: GenerateWish) -> dict[str, Any]:
    images = [base64.b64encode(item).decode() for item in wish.images or () if item is not None]
    return {
        "prompt": wish.prompt,
        "suffix": wish.suffix or None,
        "system": wish.system or None,
        "template": wish.template or None,
        "context": list(wish.context) if wish.context else None,
        "raw": wish.raw or None,
        "images": images or None,
    }


def delta_of(frame: Mapping[str, Any]) -> Delta:
    """What a frame adds to the answer.

    Raises:
        OperationFailed: it is no such frame.
    """
    message = frame.get("message")
    said = message if isinstance(message, Mapping) else frame
    content = said.get("content" if said is message else "response")
    try:
        return Delta(
            str(content or ""),
            str(said.get("thinking") or ""),
            tuple(_call(item) for item in said.get("tool_calls") or ()),
            tuple(_logprob(item) for item in frame.get("logprobs") or ()),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise OperationFailed("the worker's answer cannot be read") from error


def end_of(frame: Mapping[str, Any]) -> End:
    """The end that a last frame stands for."""
    length = frame.get("done_reason") == Reason.LENGTH.value
    counts = {item.name: _whole(frame.get(item.name)) for item in fields(Metrics)}
    context = frame.get("context")
    told = isinstance(context, list) and all(isinstance(item, int) for item in context)
    return End(
        reason=Reason.LENGTH if length else Reason.STOP,
        metrics=Metrics(**counts),
        context=tuple(context) if told and context else None,
    )


def _timed(end: End, stage: Stage) -> End:
    """Whole durations are those that our client waited for."""
    watch = stage.watch
    if end.metrics is None:
        return end
    metrics = replace(
        end.metrics,
        total_duration=watch.now() - watch.began,
        load_duration=watch.ready - watch.began + end.metrics.load_duration,
    )
    return replace(end, metrics=metrics)


def _rendered(frame: Mapping[str, Any]) -> Rendered:
    info = frame["_debug_info"]
    told = info if isinstance(info, Mapping) else {}
    return Rendered(str(told.get("rendered_template") or ""), _whole(told.get("image_count")))


def _call(item: Mapping[str, Any]) -> ToolCall:
    function = item["function"]
    arguments = function.get("arguments") or {}
    return ToolCall(
        str(function["name"]),
        dict(arguments),
        str(item.get("id") or ""),
        _whole(function.get("index")),
    )


def _logprob(item: Mapping[str, Any]) -> Logprob:
    return Logprob(_choice(item), tuple(_choice(top) for top in item.get("top_logprobs") or ()))


def _choice(item: Mapping[str, Any]) -> Choice:
    return Choice(str(item["token"]), float(item["logprob"]), tuple(item.get("bytes") or ()))


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
