"""The inference endpoints of `/api`: arguments read and checked, models admitted.

Checks are those of `services/inference/inference.py`, answers come from
`services/inference/generation.py`. `/v1` (`web/compat.py`) asks through the same functions,
`answer_of` and `vectors_of`.

Source: spec ollama-api 4, 9, 14-16.
"""

from dataclasses import replace
from typing import Any, TypeVar

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from registry.core.access import Group
from registry.core.errors import Forbidden, RequestInvalid
from registry.core.generation import Answer, Vectors
from registry.core.wishes import ChatWish, EmbedWish, GenerateWish
from registry.services.inference.inference import Admitted, Ask, Purpose
from registry.services.inference.running import running_models
from registry.web import auth, signin
from registry.web.answers import json_response
from registry.web.inference_answers import (
    Wording,
    respond,
    running_model,
    vector_response,
    vectors_response,
)
from registry.web.inference_schemas import (
    ChatRequest,
    EmbeddingRequest,
    EmbedRequest,
    GenerateRequest,
)
from registry.web.leaving import attended
from registry.web.ollama import find_visible, read_json, services
from registry.web.resources import Handler, resource
from registry.web.schemas import JsonRequest

_SECOND = 1_000_000_000
_JSON = "application/json"
_LARGE = 1 << 15
"""Bodies from this size on, in bytes, are decoded beside the event loop: it may take 10 ms."""

_MANY = 500
"""Vectors from this number on are written beside the event loop."""

_R = TypeVar("_R", bound=JsonRequest)


async def decoded(request: Request, kind: type[_R]) -> _R:
    """The request's body, read into its type."""
    body = await read_json(request)
    if len(body) < _LARGE:
        return kind.from_json(body)
    return await to_thread.run_sync(kind.from_json, body)


# --- /api ---------------------------------------------------------------------------------------


async def answer_of(
    request: Request, wish: GenerateWish | ChatWish, *, thinking_optional: bool = False
) -> Answer:
    """The events of an answer, whichever API the wish came through; the caller must close it.

    `thinking_optional` lets a wish to think pass on a model that cannot.

    Raises:
        RegistryError: the wish cannot be granted; what a worker refuses is raised by the answer.
    """
    _check_top_logprobs(wish.top_logprobs)
    ask = _asked(wish) if isinstance(wish, GenerateWish) else _chat_asked(wish, thinking_optional)
    return services(request).generation.answer(await _admitted(request, ask), wish)


async def vectors_of(request: Request, wish: EmbedWish) -> Vectors:
    """The embeddings of a wish, likewise.

    Raises:
        RegistryError: it cannot be granted, or the worker refused.
    """
    ask = Ask(Purpose.EMBED, wish.model, options=wish.options)
    services(request).inference.reference(ask)
    if not _is_input(wish.input):
        raise RequestInvalid("invalid input type")
    return await services(request).generation.vectors(await _admitted(request, ask), wish)


async def generate(request: Request) -> Response:
    """POST /api/generate."""
    return await _respond(request, await decoded(request, GenerateRequest))


async def chat(request: Request) -> Response:
    """POST /api/chat."""
    return await _respond(request, await decoded(request, ChatRequest))


async def _respond(request: Request, wish: GenerateWish | ChatWish) -> Response:
    answer = await answer_of(request, wish)
    wording = Wording(wish.model, isinstance(wish, ChatWish), services(request).clock)
    return await respond(request, answer, wording, streams=wish.stream is not False)


async def embed(request: Request) -> Response:
    """POST /api/embed."""
    wish = await decoded(request, EmbedRequest)
    found = await attended(request, vectors_of(request, wish))
    if len(found.vectors) < _MANY:
        return vectors_response(wish.model, found)
    return await to_thread.run_sync(vectors_response, wish.model, found)


async def embeddings(request: Request) -> Response:
    """POST /api/embeddings, the older form of embed."""
    wish = await decoded(request, EmbeddingRequest)
    ask = Ask(Purpose.EMBEDDINGS, wish.model, options=wish.options)
    work = services(request).generation.vector(await _admitted(request, ask), wish)
    return vector_response(await attended(request, work))


def _asked(wish: GenerateWish) -> Ask:
    return Ask(
        Purpose.GENERATE,
        wish.model,
        unload=not wish.prompt and wish.keep_alive == 0,
        think=wish.think,
        needs=("insert",) if wish.suffix else (),
        options=wish.options,
        raw_conflict=wish.raw and bool(wish.template or wish.system or wish.context),
    )


def _chat_asked(wish: ChatWish, thinking_optional: bool) -> Ask:
    return Ask(
        Purpose.CHAT,
        wish.model,
        unload=not wish.messages and wish.keep_alive == 0,
        think=wish.think,
        thinking_optional=thinking_optional,
        needs=("tools",) if wish.tools else (),
        options=wish.options,
    )


async def _admitted(request: Request, ask: Ask) -> Admitted:
    inference = services(request).inference
    if not auth.is_off(request):
        name = inference.reference(ask).name
        if await find_visible(request, name) is None:
            inference.unknown(ask)
    account = (await auth.caller(request)).name
    return replace(await inference.admit(ask), account=account)


def _check_top_logprobs(count: int) -> None:
    if not 0 <= count <= 20:
        raise RequestInvalid("top_logprobs must be between 0 and 20")


def _is_input(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return value is None or isinstance(value, str)


async def ps(request: Request) -> Response:
    """GET /api/ps: what runs on all workers, of what the caller may see."""
    own = services(request)
    running = await running_models(own.router, own.models, own.clock)
    if not auth.is_off(request):
        running = [item for item in running if await find_visible(request, item.loaded.name)]
    return json_response({"models": [running_model(item) for item in running]})


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
