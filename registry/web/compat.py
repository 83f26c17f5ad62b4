"""The endpoints of `/v1`: OpenAI's and Anthropic's APIs over the same models.

Requests become wishes of the Ollama API. Answers and late errors end with a newline and name no
charset, early errors do neither: the real server writes them in two places.

Source: spec ollama-api 19.
"""

import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from registry.core.access import Group
from registry.core.errors import Forbidden, ModelUnknown, RegistryError, RequestInvalid
from registry.core.generation import Answer
from registry.core.gojson import dumps
from registry.core.modelref import Source, parse_reference
from registry.core.names import ModelName
from registry.core.wishes import ChatWish, EmbedWish, GenerateWish
from registry.services.inference.inference import CLOUD_DETAILS
from registry.services.library.listing import Form
from registry.web import auth, errors
from registry.web.answers import bytes_response
from registry.web.anthropic_answers import (
    MessageFrames,
    MessageHead,
    estimated_tokens,
    message,
)
from registry.web.anthropic_requests import MessagesRequest
from registry.web.inference import answer_of, decoded, vectors_of
from registry.web.joined import Joined, joined
from registry.web.leaving import attended
from registry.web.multipart import parse_form
from registry.web.ollama import find_visible, read_json, services
from registry.web.openai_answers import (
    ChatChunks,
    CompletionChunks,
    Head,
    chat_completion,
    completion,
    embedding_list,
)
from registry.web.openai_requests import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingsRequest,
    include_usage,
)
from registry.web.resources import resource
from registry.web.responses_answers import ResponseFrames, response
from registry.web.responses_requests import ResponsesRequest
from registry.web.sse import Frames, stream
from registry.web.transcription_requests import TranscriptionRequest
from registry.web.written import written_response
from registry.web.zstd_bodies import decompressed

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
    ask = await decoded(request, ChatCompletionRequest)
    wish = ask.as_chat()
    head = Head(_new_id("chatcmpl-"), _now_s(request), wish.model)
    counted = include_usage(ask.stream_options)
    return await _late(
        request,
        _answered(
            request,
            answer_of(request, wish),
            ChatChunks(head, include_usage=counted) if _streams(wish) else None,
            lambda whole: chat_completion(head, whole),
        ),
    )


async def completions(request: Request) -> Response:
    """POST /v1/completions: several prompts are answered one after the other."""
    ask = await decoded(request, CompletionRequest)
    wishes = ask.as_generates()
    head = Head(_new_id("cmpl-"), _now_s(request), wishes[0].model)
    if not _streams(wishes[0]):
        return await _late(request, _completed(request, head, wishes))
    counted = include_usage(ask.stream_options)
    chunks = CompletionChunks(head, prompts=len(wishes), include_usage=counted)
    return await _late(request, stream(request, _in_turn(request, wishes), chunks))


async def _completed(request: Request, head: Head, wishes: Sequence[GenerateWish]) -> Response:
    async def awaited() -> list[Joined]:
        return [await joined(await answer_of(request, wish)) for wish in wishes]

    return _line(completion(head, await attended(request, awaited())))


async def _in_turn(request: Request, wishes: Sequence[GenerateWish]) -> Answer:
    """The answers to several wishes as one: each has its own end."""
    for wish in wishes:
        async with aclosing(await answer_of(request, wish)) as answer:
            async for event in answer:
                yield event


async def v1_embeddings(request: Request) -> Response:
    """POST /v1/embeddings."""
    ask = await decoded(request, EmbeddingsRequest)
    return await _late(request, _embedded(request, ask, ask.as_embed()))


async def _embedded(request: Request, ask: EmbeddingsRequest, wish: EmbedWish) -> Response:
    found = await attended(request, vectors_of(request, wish))
    as_base64 = ask.encoding_format.lower() == "base64"
    return _line(embedding_list(wish.model, found, as_base64=as_base64))


async def responses(request: Request) -> Response:
    """POST /v1/responses."""
    ask = await _responses_asked(request)
    wish = ask.as_chat()
    head = Head(_new_id("resp_"), _now_s(request), wish.model)
    clock = services(request).clock
    return await _late(
        request,
        _answered(
            request,
            answer_of(request, wish),
            ResponseFrames(head, ask, clock) if _streams(wish) else None,
            lambda whole: response(head, ask, whole, clock),
        ),
    )


async def _responses_asked(request: Request) -> ResponsesRequest:
    """The request, which OpenAI's own programs compress."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding in {"", "identity"}:
        return await decoded(request, ResponsesRequest)
    if encoding != "zstd":
        raise RequestInvalid(f"bodies encoded with {encoding[:40]!r} are not taken")
    limit = services(request).settings.limits.json_body_bytes
    body = await read_json(request)
    return await to_thread.run_sync(lambda: ResponsesRequest.from_json(decompressed(body, limit)))


async def messages(request: Request) -> Response:
    """POST /v1/messages."""
    ask = await decoded(request, MessagesRequest)
    wish = ask.as_chat()
    head = MessageHead(_new_id("msg_"), wish.model, ask.stop_sequences or ())
    return await _late(
        request,
        _answered(
            request,
            answer_of(request, wish, thinking_optional=True),
            MessageFrames(head, estimated_tokens(wish)) if _streams(wish) else None,
            lambda whole: message(head, whole),
        ),
    )


async def transcriptions(request: Request) -> Response:
    """POST /v1/audio/transcriptions: a chat with the recording as its media."""
    form = parse_form(request.headers.get("content-type", ""), await read_json(request))
    ask = TranscriptionRequest.from_form(form)
    return await _late(request, _transcribed(request, ask))


async def _transcribed(request: Request, ask: TranscriptionRequest) -> Response:
    whole = await attended(request, _joined(answer_of(request, ask.as_chat())))
    text = whole.content.strip()
    if ask.response_format == "text":
        return bytes_response(text.encode(), media_type="text/plain")
    return _line({"text": text})


async def _answered(
    request: Request,
    answer: Coroutine[Any, Any, Answer],
    frames: Frames | None,
    write: Callable[[Joined], dict[str, Any]],
) -> Response:
    """An answer in `frames`, or joined and written in one."""
    if frames is not None:
        return await stream(request, await answer, frames)
    return _line(write(await attended(request, _joined(answer))))


async def _joined(answer: Awaitable[Answer]) -> Joined:
    return await joined(await answer)


def _streams(wish: GenerateWish | ChatWish) -> bool:
    """Whether to stream; a rendered prompt is no stream."""
    return bool(wish.stream) and not wish.debug_render_only


def _new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(12)


def _now_s(request: Request) -> int:
    now: int = services(request).clock() // _SECOND
    return now


async def v1_models(request: Request) -> Response:
    """GET /v1/models: the models in the order of `/api/tags`; null when there is none."""
    listing, view = services(request).listing, await auth.view(request)
    long = await listing.written(view, _MODELS)
    if long is not None:
        return written_response(request, long, _JSON)
    listed = await listing.models(view)
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


def _entry(short: str, updated_at: int, _card: str) -> bytes:
    return dumps(_model(short, ModelName.parse(short), updated_at))


_MODELS = Form(b'{"object":"list","data":[', _entry, b"]}\n", b'{"object":"list","data":null}\n')


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
