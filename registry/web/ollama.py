"""`/api/*` but for inference: blobs, create, list, show, copy, delete, pull, push, version.

Source: the public API documentation; spec ollama-api 2, 4-8, 10, 11, 13.
"""

import re
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from registry import OLLAMA_API_VERSION
from registry.core.digest import Digest
from registry.core.errors import (
    DigestInvalid,
    DigestMismatch,
    ModelUnknown,
    NameInvalid,
    RequestInvalid,
    SizeInvalid,
    TooLarge,
)
from registry.core.gojson import dumps
from registry.core.gotext import quote
from registry.core.layering import Recipe, check_files
from registry.core.modelref import parse_reference, pull_name
from registry.core.names import ModelName
from registry.services import Services
from registry.web import page
from registry.web.answers import bytes_response, empty_response, json_response, rfc3339
from registry.web.bodies import request_body
from registry.web.resources import resource
from registry.web.schemas import (
    CopyRequest,
    CreateRequest,
    DeleteRequest,
    PullRequest,
    PushRequest,
    ShowRequest,
)
from registry.web.streams import respond

_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")


def services(request: Request) -> Services:
    """The bundle that the application was built with."""
    bundle: Services = request.app.state.services
    return bundle


async def read_json(request: Request) -> bytes:
    """The body of a JSON request, which is bounded.

    Raises:
        TooLarge: it is larger than `limits.json_body_bytes`.
        SizeInvalid: the client went away.
    """
    limit = services(request).settings.limits.json_body_bytes
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size > limit:
                raise TooLarge(f"request body larger than {limit} bytes")
    except ClientDisconnect as error:
        raise SizeInvalid("the client went away") from error
    return b"".join(parts)


async def root(request: Request) -> Response:
    """GET /: liveness in one line of text; people with a browser are led to the page."""
    if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
        return page.go("/ui/")
    return bytes_response(b"Ollama is running", media_type="text/plain; charset=utf-8")


async def version(request: Request) -> Response:
    """GET /api/version: the Ollama version whose API is spoken; clients compare it."""
    return json_response({"version": OLLAMA_API_VERSION})


async def tags(request: Request) -> Response:
    """GET /api/tags: every model, newest first; 304 if the caller has this list."""
    body = await services(request).listing.body()
    if request.headers.get("if-none-match") == body.etag:
        return Response(status_code=304, headers={"etag": body.etag})
    response = bytes_response(body.content)
    response.headers["etag"] = body.etag
    return response


async def show(request: Request) -> Response:
    """POST /api/show."""
    ask = ShowRequest.from_json(await read_json(request))
    if not ask.model:
        raise RequestInvalid("model is required")
    name = ModelName.checked(parse_reference(ask.model).base)
    tag = await services(request).models.find(name)
    if tag is None:
        raise ModelUnknown(f"model '{name.short}' not found")

    def worded(answer: dict[str, Any]) -> bytes:
        return dumps({**answer, "modified_at": rfc3339(tag.updated_at)})

    models = services(request).models
    for_copilot = request.headers.get("user-agent", "").startswith("GitHubCopilotChat/")
    if not (ask.system or ask.options or ask.verbose or for_copilot):
        return bytes_response(await models.shown(tag, worded))
    answer = await models.show(tag, system=ask.system, options=ask.options, verbose=ask.verbose)
    if for_copilot:
        answer["model_info"] = {**answer["model_info"], "general.basename": ask.model}
    return bytes_response(worded(answer))


async def create(request: Request) -> Response:
    """POST /api/create."""
    ask = CreateRequest.from_json(await read_json(request))
    recipe = _recipe(ask)
    check_files(recipe)
    name = ModelName.checked(ask.model)
    events = services(request).create.run(name, recipe)
    return await respond(events, stream=ask.stream is not False)


def _recipe(ask: CreateRequest) -> Recipe:
    return Recipe(
        origin=ask.origin,
        files=ask.files,
        adapters=ask.adapters,
        draft_files=ask.draft_files,
        quantize=ask.quantize or ask.quantization,
        draft_quantize=ask.draft_quantize,
        template=ask.template,
        system=ask.system,
        license=ask.license,
        parameters=ask.parameters,
        messages=ask.messages,
        renderer=ask.renderer,
        parser=ask.parser,
        requires=ask.requires,
        remote_host=ask.remote_host,
        info=ask.info,
    )


def _path_digest(request: Request) -> tuple[str, Digest]:
    text = str(request.path_params["digest"])
    if not _DIGEST.fullmatch(text):
        raise DigestInvalid("invalid digest format")
    return text, Digest.parse(text)


async def head_blob(request: Request) -> Response:
    """HEAD /api/blobs/:digest: 200 if it is here. Hex in upper case names no blob."""
    text, digest = _path_digest(request)
    blob = await services(request).blobs.find(digest) if text[7:] == digest.hex else None
    if blob is None:
        return json_response({"error": f'blob "{text}" not found'}, 404)
    return empty_response()


async def post_blob(request: Request) -> Response:
    """POST /api/blobs/:digest: 201 if it is new, 200 if it is here; then the body is not read."""
    text, digest = _path_digest(request)
    blobs = services(request).blobs
    if text == str(digest) and await blobs.find(digest) is not None:
        return empty_response()
    try:
        await blobs.receive(digest, request_body(request), _content_length(request))
    except DigestMismatch as error:
        raise DigestMismatch(text, error.got) from error
    if text != str(digest):  # the comparison is textual: other spellings never match
        raise DigestMismatch(text, str(digest))
    return empty_response(201)


def _content_length(request: Request) -> int | None:
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


async def copy(request: Request) -> Response:
    """POST /api/copy."""
    ask = CopyRequest.from_json(await read_json(request))
    names = []
    for role, text in (("source", ask.source), ("destination", ask.destination)):
        name = ModelName.parse(text)
        if not name.is_valid:
            raise NameInvalid(f"{role} {quote(text)} is invalid")
        names.append(name)
    try:
        await services(request).models.copy(names[0], names[1])
    except ModelUnknown as error:
        raise ModelUnknown(f"model {quote(ask.source)} not found") from error
    return empty_response()


async def delete(request: Request) -> Response:
    """DELETE /api/delete, with a body."""
    ask = DeleteRequest.from_json(await read_json(request))
    text = ask.model
    stored = pull_name(text)
    if not stored:
        raise RequestInvalid("model is required")
    name = ModelName.parse(stored)
    if not name.is_valid:
        raise NameInvalid(f"name {quote(text)} is invalid")
    try:
        await services(request).models.delete(name)
    except ModelUnknown as error:
        raise ModelUnknown(f"model '{text}' not found") from error
    return empty_response()


async def pull(request: Request) -> Response:
    """POST /api/pull."""
    ask = PullRequest.from_json(await read_json(request))
    name = ModelName.checked(pull_name(ask.model))
    events = services(request).pull.run(name, insecure=ask.insecure)
    return await respond(events, stream=ask.stream is not False)


async def push(request: Request) -> Response:
    """POST /api/push."""
    ask = PushRequest.from_json(await read_json(request))
    if not ask.model:
        raise RequestInvalid("model is required")
    events = services(request).push.run(ModelName.parse(ask.model), insecure=ask.insecure)
    return await respond(events, stream=ask.stream is not False)


routes = [
    resource("/", HEAD=root, GET=root),
    resource("/api/version", HEAD=version, GET=version),
    resource("/api/tags", HEAD=tags, GET=tags),
    resource("/api/show", POST=show),
    resource("/api/create", POST=create),
    resource("/api/blobs/{digest}", HEAD=head_blob, POST=post_blob),
    resource("/api/copy", POST=copy),
    resource("/api/delete", DELETE=delete),
    resource("/api/pull", POST=pull),
    resource("/api/push", POST=push),
]
