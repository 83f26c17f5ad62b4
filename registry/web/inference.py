"""The inference endpoints of `/api` and `/v1`: arguments read and checked, models admitted.

What needs a worker ends in `services/inference.py`. Answers and late errors under `/v1` end with a
newline and name no charset, early errors do neither: the real server writes them in two places.

Source: spec ollama-api 4, 9, 14-16, 19.
"""

from collections.abc import Awaitable
from typing import Any, TypeVar

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from registry.core.access import Group
from registry.core.errors import Forbidden, ModelUnknown, RegistryError, RequestInvalid
from registry.core.gojson import dumps
from registry.core.modelref import Source, parse_reference
from registry.core.names import ModelName
from registry.core.wishes import Message
from registry.services.inference import CLOUD_DETAILS, Ask, Purpose
from registry.web import auth, errors, signin
from registry.web.answers import bytes_response, json_response, utc_now
from registry.web.anthropic_requests import MessagesRequest
from registry.web.inference_schemas import (
    ChatRequest,
    EmbeddingRequest,
    EmbedRequest,
    GenerateRequest,
)
from registry.web.multipart import parse_form
from registry.web.ollama import find_visible, read_json, services
from registry.web.openai_requests import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingsRequest,
)
from registry.web.resources import Handler, resource
from registry.web.responses_requests import ResponsesRequest
from registry.web.schemas import JsonRequest

_SECOND = 1_000_000_000
_JSON = "application/json"
_LARGE = 1 << 18
"""Bodies from this size on, in bytes, are decoded beside the event loop: it may take 50 ms."""

_R = TypeVar("_R", bound=JsonRequest)


async def _decoded(request: Request, kind: type[_R]) -> _R:
    body = await read_json(request)
    if len(body) < _LARGE:
        return kind.from_json(body)
    return await to_thread.run_sync(kind.from_json, body)


# --- /api ---------------------------------------------------------------------------------------


async def generate(request: Request) -> Response:
    """POST /api/generate."""
    return await _generate(request, await _decoded(request, GenerateRequest))


async def _generate(request: Request, ask: GenerateRequest) -> Response:
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
    return await _chat(request, await _decoded(request, ChatRequest))


async def _chat(request: Request, ask: ChatRequest, *, thinking_optional: bool = False) -> Response:
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
    return await _embed(request, await _decoded(request, EmbedRequest))


async def _embed(request: Request, ask: EmbedRequest) -> Response:
    wanted = Ask(Purpose.EMBED, ask.model, options=ask.options)
    services(request).inference.reference(wanted)
    if not _is_input(ask.input):
        raise RequestInvalid("invalid input type")
    return await _admitted(request, wanted, {})


async def embeddings(request: Request) -> Response:
    """POST /api/embeddings, the older form of embed."""
    ask = await _decoded(request, EmbeddingRequest)
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


# --- /v1 ----------------------------------------------------------------------------------------


async def _late(request: Request, work: Awaitable[Response]) -> Response:
    """Await an answer to a request that was read; give its errors their late form."""
    try:
        return await work
    except RegistryError as error:
        answer = await errors.answer(request, error)
    late = bytes_response(bytes(answer.body) + b"\n", answer.status_code, _JSON)
    if "retry-after" in answer.headers:
        late.headers["retry-after"] = answer.headers["retry-after"]
    return late


async def chat_completions(request: Request) -> Response:
    """POST /v1/chat/completions."""
    ask = (await _decoded(request, ChatCompletionRequest)).as_chat()
    return await _late(request, _chat(request, ask))


async def completions(request: Request) -> Response:
    """POST /v1/completions."""
    ask = (await _decoded(request, CompletionRequest)).as_generate()
    return await _late(request, _generate(request, ask))


async def v1_embeddings(request: Request) -> Response:
    """POST /v1/embeddings."""
    ask = (await _decoded(request, EmbeddingsRequest)).as_embed()
    return await _late(request, _embed(request, ask))


async def responses(request: Request) -> Response:
    """POST /v1/responses."""
    if request.headers.get("content-encoding") == "zstd":
        raise RequestInvalid("failed to decompress zstd body")
    ask = (await _decoded(request, ResponsesRequest)).as_chat()
    return await _late(request, _chat(request, ask))


async def messages(request: Request) -> Response:
    """POST /v1/messages."""
    ask = (await _decoded(request, MessagesRequest)).as_chat()
    return await _late(request, _chat(request, ask, thinking_optional=True))


async def transcriptions(request: Request) -> Response:
    """POST /v1/audio/transcriptions: a chat with the recording as its media."""
    form = parse_form(request.headers.get("content-type", ""), await read_json(request))
    model = form.get("model", b"").decode("utf-8", "replace")
    if not model:
        raise RequestInvalid("model is required")
    if "file" not in form:
        raise RequestInvalid("file is required: http: no such file")
    if not form["file"]:
        raise RequestInvalid("audio file is empty")
    said = Message(role="user", images=(form["file"],))
    ask = ChatRequest(model=model, messages=(said,), options={"temperature": 0.0})
    return await _late(request, _chat(request, ask))


async def v1_models(request: Request) -> Response:
    """GET /v1/models: the models in the order of `/api/tags`; null when there is none."""
    listed = await services(request).listing.models(await auth.view(request))
    data = [_model(item.name.short, item.name, item.updated_at) for item in listed]
    return _line({"object": "list", "data": data or None})


async def v1_model(request: Request) -> Response:
    """GET /v1/models/:model: `id` is the name as asked for."""
    return await _late(request, _retrieve(request, str(request.path_params["model"])))


async def _retrieve(request: Request, text: str) -> Response:
    reference = parse_reference(text)
    name = ModelName.checked(reference.base)
    if reference.source is Source.CLOUD:
        raise Forbidden(CLOUD_DETAILS)
    tag = await find_visible(request, name)
    if tag is None:
        raise ModelUnknown(f"model '{name.short}' not found")
    return _line(_model(text, ModelName.parse(text), tag.updated_at))


def _model(name: str, parsed: ModelName, updated_at: int) -> dict[str, Any]:
    created = updated_at // _SECOND
    return {"id": name, "object": "model", "created": created, "owned_by": parsed.namespace}


def _line(value: Any) -> Response:
    return bytes_response(dumps(value) + b"\n", media_type=_JSON)


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
    resource("/v1/chat/completions", Group.INFER, POST=chat_completions),
    resource("/v1/completions", Group.INFER, POST=completions),
    resource("/v1/embeddings", Group.INFER, POST=v1_embeddings),
    resource("/v1/models", Group.READ, GET=v1_models),
    resource("/v1/models/{model}", Group.READ, GET=v1_model),
    resource("/v1/responses", Group.INFER, POST=responses),
    resource("/v1/audio/transcriptions", Group.INFER, POST=transcriptions),
    resource("/v1/messages", Group.INFER, POST=messages),
]
