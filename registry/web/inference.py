"""The inference endpoints of `/api`: arguments read and checked, models admitted.

What needs a worker ends in `services/inference.py`. `/v1` (`web/compat.py`) asks through the same
functions.

Source: spec ollama-api 4, 9, 14-16.
"""

from typing import Any, TypeVar

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from registry.core.access import Group
from registry.core.errors import Forbidden, RequestInvalid
from registry.services.inference import Ask, Purpose
from registry.web import auth, signin
from registry.web.answers import json_response, utc_now
from registry.web.inference_schemas import (
    ChatRequest,
    EmbeddingRequest,
    EmbedRequest,
    GenerateRequest,
)
from registry.web.ollama import find_visible, read_json, services
from registry.web.resources import Handler, resource
from registry.web.schemas import JsonRequest

_SECOND = 1_000_000_000
_JSON = "application/json"
_LARGE = 1 << 18
"""Bodies from this size on, in bytes, are decoded beside the event loop: it may take 50 ms."""

_R = TypeVar("_R", bound=JsonRequest)


async def decoded(request: Request, kind: type[_R]) -> _R:
    """The request's body, read into its type."""
    body = await read_json(request)
    if len(body) < _LARGE:
        return kind.from_json(body)
    return await to_thread.run_sync(kind.from_json, body)


# --- /api ---------------------------------------------------------------------------------------


async def generate(request: Request) -> Response:
    """POST /api/generate."""
    return await answer_generate(request, await decoded(request, GenerateRequest))


async def answer_generate(request: Request, ask: GenerateRequest) -> Response:
    """Answer a generate, whichever API it came through."""
    _check_top_logprobs(ask.top_logprobs)
    raw_conflict = ask.raw and bool(ask.template or ask.system or ask.context)
    wanted = Ask(
        Purpose.GENERATE,
        ask.model,
        unload=not ask.prompt and ask.keep_alive == 0,
        think=ask.think,
        needs=("insert",) if ask.suffix else (),
        options=ask.options,
        raw_conflict=raw_conflict,
    )
    return await _admitted(request, wanted, {"response": ""})


async def chat(request: Request) -> Response:
    """POST /api/chat."""
    return await answer_chat(request, await decoded(request, ChatRequest))


async def answer_chat(
    request: Request, ask: ChatRequest, *, thinking_optional: bool = False
) -> Response:
    """The same for a chat."""
    _check_top_logprobs(ask.top_logprobs)
    wanted = Ask(
        Purpose.CHAT,
        ask.model,
        unload=not ask.messages and ask.keep_alive == 0,
        think=ask.think,
        thinking_optional=thinking_optional,
        needs=("tools",) if ask.tools else (),
        options=ask.options,
    )
    return await _admitted(request, wanted, {"message": {"role": "assistant", "content": ""}})


async def embed(request: Request) -> Response:
    """POST /api/embed."""
    return await answer_embed(request, await decoded(request, EmbedRequest))


async def answer_embed(request: Request, ask: EmbedRequest) -> Response:
    """The same for an embed."""
    wanted = Ask(Purpose.EMBED, ask.model, options=ask.options)
    services(request).inference.reference(wanted)
    if not _is_input(ask.input):
        raise RequestInvalid("invalid input type")
    return await _admitted(request, wanted, {})


async def embeddings(request: Request) -> Response:
    """POST /api/embeddings, the older form of embed."""
    ask = await decoded(request, EmbeddingRequest)
    return await _admitted(request, Ask(Purpose.EMBEDDINGS, ask.model, options=ask.options), {})


async def _admitted(request: Request, ask: Ask, nothing: dict[str, Any]) -> Response:
    """Let a worker do it; `nothing` is the result in the answer to an unload."""
    inference = services(request).inference
    if not auth.is_off(request):
        name = inference.reference(ask).name
        if await find_visible(request, name) is None:
            inference.unknown(ask)
    parts = await inference.admit(ask)
    if parts is not None:
        inference.run(parts)
    answer = {"model": ask.model, "created_at": utc_now(services(request).clock()), **nothing}
    return json_response(answer | {"done": True, "done_reason": "unload"})


def _check_top_logprobs(count: int) -> None:
    if not 0 <= count <= 20:
        raise RequestInvalid("top_logprobs must be between 0 and 20")


def _is_input(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return value is None or isinstance(value, str)


async def ps(request: Request) -> Response:
    """GET /api/ps: no worker, no running model."""
    return json_response({"models": []})


async def status(request: Request) -> Response:
    """GET /api/status: whether names of the hosted service are refused by setting."""
    disabled = services(request).settings.cloud_disabled
    return json_response({"cloud": {"disabled": disabled, "source": "env" if disabled else "none"}})


def _hosted(what: str) -> Handler:
    """A handler of what only the hosted service offers."""

    async def refuse(request: Request) -> Response:
        if not (await read_json(request)).strip():
            raise RequestInvalid("missing request body")
        raise Forbidden(f"ollama cloud is disabled: {what} is unavailable")

    return refuse


async def recommendations(request: Request) -> Response:
    """GET /api/experimental/model-recommendations: none; this server knows no public library."""
    return json_response({"recommendations": []})


routes = [
    *signin.routes,
    resource("/api/status", GET=status),
    resource("/api/experimental/web_search", Group.INFER, POST=_hosted("web search")),
    resource("/api/experimental/web_fetch", Group.INFER, POST=_hosted("web fetch")),
    resource("/api/experimental/model-recommendations", Group.READ, GET=recommendations),
    resource("/api/ps", Group.READ, GET=ps),
    resource("/api/generate", Group.INFER, POST=generate),
    resource("/api/chat", Group.INFER, POST=chat),
    resource("/api/embed", Group.INFER, POST=embed),
    resource("/api/embeddings", Group.INFER, POST=embeddings),
]
