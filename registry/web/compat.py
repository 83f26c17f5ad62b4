"""The endpoints of `/v1`: OpenAI's and Anthropic's APIs over the same models.

Requests become wishes of the Ollama API. Answers and late errors end with a newline and name no
charset, early errors do neither: the real server writes them in two places.

Source: spec ollama-api 19.
"""

from collections.abc import Awaitable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from registry.core.access import Group
from registry.core.errors import Forbidden, ModelUnknown, RegistryError, RequestInvalid
from registry.core.gojson import dumps
from registry.core.modelref import Source, parse_reference
from registry.core.names import ModelName
from registry.core.wishes import Message
from registry.services.inference import CLOUD_DETAILS
from registry.web import auth, errors
from registry.web.answers import bytes_response
from registry.web.anthropic_requests import MessagesRequest
from registry.web.inference import answer_chat, answer_embed, answer_generate, decoded
from registry.web.inference_schemas import ChatRequest
from registry.web.multipart import parse_form
from registry.web.ollama import find_visible, read_json, services
from registry.web.openai_requests import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingsRequest,
)
from registry.web.resources import resource
from registry.web.responses_requests import ResponsesRequest

_SECOND = 1_000_000_000
_JSON = "application/json"


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
    ask = (await decoded(request, ChatCompletionRequest)).as_chat()
    return await _late(request, answer_chat(request, ask))


async def completions(request: Request) -> Response:
    """POST /v1/completions."""
    ask = (await decoded(request, CompletionRequest)).as_generate()
    return await _late(request, answer_generate(request, ask))


async def v1_embeddings(request: Request) -> Response:
    """POST /v1/embeddings."""
    ask = (await decoded(request, EmbeddingsRequest)).as_embed()
    return await _late(request, answer_embed(request, ask))


async def responses(request: Request) -> Response:
    """POST /v1/responses."""
    if request.headers.get("content-encoding") == "zstd":
        raise RequestInvalid("failed to decompress zstd body")
    ask = (await decoded(request, ResponsesRequest)).as_chat()
    return await _late(request, answer_chat(request, ask))


async def messages(request: Request) -> Response:
    """POST /v1/messages."""
    ask = (await decoded(request, MessagesRequest)).as_chat()
    return await _late(request, answer_chat(request, ask, thinking_optional=True))


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
    return await _late(request, answer_chat(request, ask))


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
    resource("/v1/chat/completions", Group.INFER, POST=chat_completions),
    resource("/v1/completions", Group.INFER, POST=completions),
    resource("/v1/embeddings", Group.INFER, POST=v1_embeddings),
    resource("/v1/models", Group.READ, GET=v1_models),
    resource("/v1/models/{model}", Group.READ, GET=v1_model),
    resource("/v1/responses", Group.INFER, POST=responses),
    resource("/v1/audio/transcriptions", Group.INFER, POST=transcriptions),
    resource("/v1/messages", Group.INFER, POST=messages),
]
