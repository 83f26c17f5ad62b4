"""`/api/*` but for inference: blobs, create, list, show, copy, delete, pull, push, version.

Source: the public API documentation; spec ollama-api 2, 4-8, 10, 11, 13.
"""

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from registry import OLLAMA_API_VERSION
from registry.core.access import Group, Right
from registry.core.digest import Digest
from registry.core.errors import (
    DigestInvalid,
    DigestMismatch,
    ModelUnknown,
    NameInvalid,
    RequestInvalid,
)
from registry.core.gojson import dumps
from registry.core.gotext import quote
from registry.core.layering import Recipe, check_files
from registry.core.modelref import Source, parse_reference, pull_name
from registry.core.names import ModelName
from registry.ports.catalog import Tag
from registry.services.access.rights import Permit
from registry.web import auditing, auth, page
from registry.web.answers import bytes_response, empty_response, json_response, rfc3339
from registry.web.bodies import request_body
from registry.web.reading import read_json as read_json
from registry.web.reading import services as services
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
from registry.web.written import written_response

_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")


async def find_visible(request: Request, name: ModelName) -> Tag | None:
    """A model that is here and that the caller may read; both refusals take the same time."""
    tag = await services(request).models.find(name)
    if not name.is_valid:
        return None
    repository = tag.model.repository if tag else name.repository
    return tag if await auth.may(request, repository, Right.READ) else None


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
    listing, view = services(request).listing, await auth.view(request)
    long = await listing.written(view)
    if long is not None:
        return written_response(request, long)
    body = await listing.body(view)
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
    tag = await find_visible(request, name)
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
    await _check_base(request, recipe)
    permit = await _permit(request, name)
    events = services(request).create.run(name, recipe, permit)
    noted = auditing.noted_events(request, "create", str(name), events)
    return await respond(noted, stream=ask.stream is not False)


async def _permit(request: Request, name: ModelName) -> Permit:
    """What the caller may do with a model of that name that is to be made.

    Raises:
        Unauthenticated, Denied: nothing.
    """
    guard = await auth.guard(request, name.repository)
    if not guard.rights & Right.WRITE:
        await auth.demand(request, name.repository, Right.CREATE_TAG)
    return Permit(guard, await auth.usable(request))


async def _check_base(request: Request, recipe: Recipe) -> None:
    """Let only a base be used that the caller may read, and pulled that it may make.

    Raises:
        Unauthenticated, Denied: it may not; the base may be here or not.
    """
    if auth.is_off(request) or not recipe.origin or recipe.remote_host:
        return
    try:
        reference = parse_reference(recipe.origin)
    except NameInvalid:
        return  # told by the create itself
    name = ModelName.parse(reference.base)
    if reference.source is Source.CLOUD or not name.is_valid:
        return
    await auth.demand(request, name.repository, Right.READ)
    if await services(request).models.find(name) is None:
        await auth.demand(request, name.repository, Right.CREATE_TAG)


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
    blob = None
    # first: to find a blob is to use it, which takes longer if it is here
    if text[7:] == digest.hex and await _is_usable(request, digest):
        blob = await services(request).blobs.find(digest)
    if blob is None:
        return json_response({"error": f'blob "{text}" not found'}, 404)
    return empty_response()


async def post_blob(request: Request) -> Response:
    """POST /api/blobs/:digest: 201 if it is new, 200 if it is here; then the body is not read."""
    text, digest = _path_digest(request)
    blobs = services(request).blobs
    is_usable = text == str(digest) and await _is_usable(request, digest)
    if is_usable and await blobs.find(digest) is not None:
        return empty_response()
    return await auditing.noted(request, "upload", text, _receive(request, text, digest))


async def _receive(request: Request, text: str, digest: Digest) -> Response:
    blobs = services(request).blobs
    try:
        await blobs.receive(digest, request_body(request), _content_length(request))
    except DigestMismatch as error:
        raise DigestMismatch(text, error.got) from error
    if text != str(digest):  # the comparison is textual: other spellings never match
        raise DigestMismatch(text, str(digest))
    await auth.prove_blob(request, digest)
    return empty_response(201)


async def _is_usable(request: Request, digest: Digest) -> bool:
    """Whether the caller may know that the blob is here."""
    usable = await auth.usable(request)
    return usable is None or await usable(digest)


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
    work = _copy(request, names[0], names[1])
    try:
        return await auditing.noted(request, "copy", f"{names[0]} to {names[1]}", work)
    except ModelUnknown as error:
        raise ModelUnknown(f"model {quote(ask.source)} not found") from error


async def _copy(request: Request, source: ModelName, destination: ModelName) -> Response:
    guard = await auth.guard(request, destination.repository)
    if await find_visible(request, source) is None:
        raise ModelUnknown("not here for this caller")
    await services(request).models.copy(source, destination, guard)
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
        return await auditing.noted(request, "delete", str(name), _delete(request, name))
    except ModelUnknown as error:
        raise ModelUnknown(f"model '{text}' not found") from error


async def _delete(request: Request, name: ModelName) -> Response:
    guard = await auth.guard(request, name.repository)
    if await find_visible(request, name) is None:
        raise ModelUnknown("not here for this caller")
    await services(request).models.delete(name, guard)
    return empty_response()


async def pull(request: Request) -> Response:
    """POST /api/pull."""
    ask = PullRequest.from_json(await read_json(request))
    name = ModelName.checked(pull_name(ask.model))
    permit = await _permit(request, name)
    events = services(request).pull.run(name, insecure=ask.insecure, permit=permit)
    events = auditing.noted_events(request, "pull", str(name), events)
    return await respond(events, stream=ask.stream is not False)


async def push(request: Request) -> Response:
    """POST /api/push."""
    ask = PushRequest.from_json(await read_json(request))
    if not ask.model:
        raise RequestInvalid("model is required")
    name = ModelName.parse(ask.model)
    hidden = name.is_valid and not await auth.may(request, name.repository, Right.READ)
    events = services(request).push.run(name, insecure=ask.insecure, hidden=hidden)
    events = auditing.noted_events(request, "push", str(name), events)
    return await respond(events, stream=ask.stream is not False)


routes = [
    resource("/", HEAD=root, GET=root),
    resource("/api/version", HEAD=version, GET=version),
    resource("/api/tags", Group.READ, HEAD=tags, GET=tags),
    resource("/api/show", Group.READ, POST=show),
    resource("/api/create", Group.WRITE, POST=create),
    resource("/api/blobs/{digest}", Group.WRITE, HEAD=head_blob, POST=post_blob),
    resource("/api/copy", Group.WRITE, POST=copy),
    resource("/api/delete", Group.WRITE, DELETE=delete),
    resource("/api/pull", Group.WRITE, POST=pull),
    resource("/api/push", Group.WRITE, POST=push),
]
