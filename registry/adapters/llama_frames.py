"""Frames of llama-server's answers as values, and its refusals as errors.

Source: spec inference-and-gguf 2.1, 2.2, 5; llama.cpp, tools/server/README.md, "API Endpoints".
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from registry.core.errors import (
    OperationFailed,
    PromptTooLong,
    RegistryError,
    RequestInvalid,
    Unavailable,
    Unsupported,
)
from registry.core.generation import Choice, Logprob
from registry.ports.workers import Piece, Stop, Timings, ToolPiece

_PATH = re.compile(r"'?(?:/[\w.+@-]+){2,}'?")
_SCHEMA = re.compile(r"JSON schema error at #/?(\S*): (.*)", re.DOTALL)
_SHOWN = 2_000
_UNREADABLE = "the runner's answer cannot be read"


def completion_piece(frame: Mapping[str, Any]) -> Piece | None:
    """A frame of `/completion`; None for one that only reports progress.

    Raises:
        OperationFailed: it is not such a frame.
    """
    try:
        if "prompt_progress" in frame:
            return None
        stop = None
        if frame.get("stop"):
            kind = frame.get("stop_type")
            stopped_by = str(frame.get("stopping_word") or "") if kind == "word" else ""
            stop = Stop(kind == "limit", stopped_by, timings_of(frame))
        probabilities = frame.get("completion_probabilities")
        return Piece(
            content=frame.get("content") or "",
            tokens=tuple(frame.get("tokens") or ()),
            logprobs=tuple(map(_logprob, probabilities)) if probabilities else (),
            stop=stop,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OperationFailed(_UNREADABLE) from error


def chat_piece(frame: Mapping[str, Any]) -> Piece | None:
    """A frame of `/v1/chat/completions`; None for one without a choice.

    Raises:
        OperationFailed: it is not such a frame.
    """
    try:
        choices = frame.get("choices")
        if not choices or "prompt_progress" in frame:
            return None
        choice = choices[0]
        delta = choice.get("delta") or {}
        reason = choice.get("finish_reason")
        logprobs = (choice.get("logprobs") or {}).get("content") or ()
        return Piece(
            content=delta.get("content") or "",
            reasoning=delta.get("reasoning_content") or "",
            tool_calls=tuple(map(_tool_piece, delta.get("tool_calls") or ())),
            logprobs=tuple(map(_logprob, logprobs)),
            stop=Stop(reason == "length", "", timings_of(frame)) if reason else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OperationFailed(_UNREADABLE) from error


def timings_of(frame: Mapping[str, Any]) -> Timings:
    """What a last frame says of its request; counts of `usage` where there are no timings."""
    timings = frame.get("timings")
    if not timings:
        usage = frame.get("usage") or {}
        return Timings(
            prompt_tokens=int(usage.get("prompt_tokens", 0)),
            tokens=int(usage.get("completion_tokens", 0)),
        )
    return Timings(
        prompt_tokens=int(timings.get("cache_n", 0)) + int(timings.get("prompt_n", 0)),
        prompt_ms=float(timings.get("prompt_ms", 0.0)),
        tokens=int(timings.get("predicted_n", 0)),
        eval_ms=float(timings.get("predicted_ms", 0.0)),
    )


def refusal(status: int, body: bytes) -> RegistryError:
    """The error that an answer of status 400 or more stands for, in the runner's words."""
    message, details = _message(body)
    if schema := _SCHEMA.search(message):  # of a tool: those of formats are compiled here before
        where = schema[1].replace("/", ".") or "its root"
        message = f"invalid JSON schema of a tool, at {where}: {schema[2]}"
    message = without_paths(message)[:_SHOWN] or f"the runner answered with status {status}"
    if details.get("type") == "exceed_context_size_error":
        return PromptTooLong(
            message, _count(details.get("n_prompt_tokens")), _count(details.get("n_ctx"))
        )
    if status == 503:
        return Unavailable(message)
    if status == 501:
        return Unsupported(message)
    if status in {401, 403, 404} or status >= 500:
        return OperationFailed(message)
    return RequestInvalid(message)


def without_paths(text: str) -> str:
    """The text with names of files on the worker left out."""
    return _PATH.sub("the file", text)


def _message(body: bytes) -> tuple[str, Mapping[str, Any]]:
    try:
        value = orjson.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace").strip(), {}
    error = value.get("error", value) if isinstance(value, dict) else value
    if isinstance(error, dict):
        return str(error.get("message") or "").strip(), error
    return str(error).strip(), {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _logprob(entry: Mapping[str, Any]) -> Logprob:
    return Logprob(_choice(entry), tuple(map(_choice, entry.get("top_logprobs") or ())))


def _choice(entry: Mapping[str, Any]) -> Choice:
    return Choice(
        str(entry.get("token", "")),
        float(entry.get("logprob", 0.0)),
        tuple(entry.get("bytes") or ()),
    )


def _tool_piece(entry: Mapping[str, Any]) -> ToolPiece:
    function = entry.get("function") or {}
    return ToolPiece(
        int(entry.get("index", 0)),
        id=entry.get("id") or "",
        name=function.get("name") or "",
        arguments=function.get("arguments") or "",
    )
