"""`/v2/<name>/blobs/uploads/`: the requests of an upload session.

Its bytes come here, in order, or go to the object store, where there is one that the client can
reach and the client says that it will: the ollama client's two engines do.

Source: OCI distribution-spec 1.1, "Push"; spec registry-protocol 2.1, 2.5, 3.2, 3.3. `Location` is
always absolute: the ollama client takes it as it is.
"""

import re

from starlette.requests import Request
from starlette.responses import Response

from registry.core.digest import Digest
from registry.core.errors import (
    Conflict,
    DigestInvalid,
    RegistryError,
    SizeInvalid,
    UploadOutOfOrder,
)
from registry.core.names import RepositoryName
from registry.core.ranges import Span, chunk, so_far
from registry.ports.transfers import Upload
from registry.services.library.blobs import is_empty
from registry.services.uploading.direct import is_ours
from registry.services.uploading.uploads import Chunk
from registry.web import auth
from registry.web.bodies import request_body
from registry.web.oci_access import PUSH, Length, authorize
from registry.web.oci_errors import OCI_CODES, render_oci
from registry.web.oci_paths import Target
from registry.web.reading import services
from registry.web.redirects import pushes_to
from registry.web.urls import external_base

_LENGTH = re.compile(r"[0-9]{1,19}", re.ASCII)
_PARTS = re.compile(r"[0-9a-f]{32}-([0-9]{1,5})", re.ASCII)


async def begin(request: Request, target: Target) -> Response:
    """POST: mount a blob, store one that is the body, or begin a session."""
    await authorize(request, target, PUSH)
    query = request.query_params
    _check_algorithm(query.get("digest-algorithm", "sha256"))
    if "mount" in query:
        digest = Digest.parse(query["mount"])
        if await _mount(request, target, digest):
            return created(request, target, digest)
        return await _session(request, target, digest)
    if "digest" not in query:
        return await _session(request, target, None)
    digest = _digest(request)
    length = Length.of(request)
    if length.size == 0 and not is_empty(digest):  # x/transfer announces what it will send
        return await _session(request, target, digest)
    body = request_body(request)
    blob = await services(request).uploads.put(target.repository, digest, body, length.size)
    if blob is None:
        return await _session(request, target, digest)
    return created(request, target, digest)


async def _mount(request: Request, target: Target, digest: Digest) -> bool:
    """Whether the blob is now in the repository. A strange `from` is no error: ollama sends one."""
    readable = await auth.mountable(request)
    source = None
    if "from" in request.query_params:
        try:
            source = RepositoryName.parse(request.query_params["from"])
        except RegistryError:
            return False
        if readable is not None and not readable(source):
            return False
    return await services(request).blobs.mount(target.repository, digest, source, readable)


async def _session(request: Request, target: Target, declared: Digest | None) -> Response:
    holder = await auth.holder(request)
    announced = request.headers.get("x-content-length", "")
    size = int(announced) if _LENGTH.fullmatch(announced) else None
    upload = await services(request).uploads.begin(target.repository, declared, holder, size or 0)
    headers = _state(request, target, upload.id, upload.offset)
    direct = pushes_to(request)
    if direct is not None and declared is not None and size is not None:
        put = await direct.offer(upload, size)
        if put is not None:
            headers["X-Direct-Upload-URL"] = put.url
            headers |= {f"X-Signed-Header-{name}": text for name, text in put.headers.items()}
            headers["Cache-Control"] = "no-store"
    return Response(status_code=202, headers=headers)


async def _authorize_session(request: Request, target: Target) -> None:
    """Let pass who may push and began the session, with the same token or a later one."""
    await authorize(request, target, PUSH)
    if not auth.is_off(request):
        holder = await auth.holder(request)
        await services(request).uploads.check_subject(target.argument, holder)


async def append(request: Request, target: Target) -> Response:
    """PATCH: add a chunk, or learn where to send it. The body of the latter is not read."""
    await _authorize_session(request, target)
    url = await _part_url(request, target)
    if url is not None:
        session = _state(request, target, target.argument, 0)["Location"]
        headers = {"Location": url, "Docker-Upload-Location": session, "Cache-Control": "no-store"}
        return Response(status_code=307, headers=headers)
    uploads = services(request).uploads
    try:
        upload = await uploads.append(target.repository, target.argument, _chunk(request))
    except UploadOutOfOrder as error:
        return _out_of_order(request, target, error)
    return Response(status_code=202, headers=_state(request, target, upload.id, upload.offset))


async def _part_url(request: Request, target: Target) -> str | None:
    """Where the body is to go; None if it is for us."""
    direct = pushes_to(request)
    upload = await direct.find(target.repository, target.argument) if direct else None
    if direct is None or upload is None:
        return None
    chunk = _chunk(request)
    if chunk.start is not None and chunk.length:
        return await direct.redirect(upload, Span(chunk.start, chunk.start + chunk.length))
    if is_ours(upload):
        raise SizeInvalid("Content-Range is needed")
    return None


async def finish(request: Request, target: Target) -> Response:
    """PUT: commit, with or without a last chunk."""
    await _authorize_session(request, target)
    digest = _digest(request)
    last = None if Length.of(request).size == 0 else _chunk(request)
    direct, upload = services(request).direct, await _direct_session(request, target)
    if direct is not None and upload is not None:
        if last is not None:
            raise Conflict("the bytes of this upload go to the object store")
        parts = _PARTS.fullmatch(request.query_params.get("etag", ""))
        count = int(parts[1]) if parts else None
        await direct.finish(target.repository, upload, digest, count)
        return created(request, target, digest)
    try:
        await services(request).uploads.finish(target.repository, target.argument, digest, last)
    except UploadOutOfOrder as error:
        return _out_of_order(request, target, error)
    return created(request, target, digest)


async def status(request: Request, target: Target) -> Response:
    """GET: how far the session has come."""
    await _authorize_session(request, target)
    direct, upload = services(request).direct, await _direct_session(request, target)
    if direct is not None and upload is not None:
        offset = await direct.offset(upload)
    else:
        upload = await services(request).uploads.status(target.repository, target.argument)
        offset = upload.offset
    return Response(status_code=204, headers=_state(request, target, upload.id, offset))


async def cancel(request: Request, target: Target) -> Response:
    """DELETE: end the session. Asks for no more than the right to push: who began may clean up."""
    await _authorize_session(request, target)
    direct, upload = services(request).direct, await _direct_session(request, target)
    if direct is not None and upload is not None:
        await direct.cancel(upload)
    else:
        await services(request).uploads.cancel(target.repository, target.argument)
    return Response(status_code=204)


async def _direct_session(request: Request, target: Target) -> Upload | None:
    """The session, if its bytes go to the object store."""
    direct = services(request).direct
    upload = await direct.find(target.repository, target.argument) if direct else None
    return upload if upload is not None and is_ours(upload) else None


def created(request: Request, target: Target, digest: Digest) -> Response:
    """201: the blob is in the repository."""
    headers = {
        "Location": f"{external_base(request)}/v2/{target.name}/blobs/{digest}",
        "Docker-Content-Digest": str(digest),
    }
    return Response(status_code=201, headers=headers)


def _chunk(request: Request) -> Chunk:
    """The body and where it belongs.

    Raises:
        SizeInvalid: Content-Range is none, or disagrees with Content-Length.
    """
    size = Length.of(request).size
    header = request.headers.get("content-range")
    if header is None:
        return Chunk(request_body(request), length=size)
    span: Span | None = chunk(header)
    if span is None:
        raise SizeInvalid("invalid Content-Range")
    if size is not None and size != len(span):
        raise SizeInvalid(f"Content-Range is for {len(span)} bytes, Content-Length is {size}")
    return Chunk(request_body(request), span.start, len(span))


def _digest(request: Request) -> Digest:
    given = request.query_params.getlist("digest")
    if len(given) != 1:
        raise DigestInvalid("exactly one digest is needed")
    return Digest.parse(given[0])


def _check_algorithm(name: str) -> None:
    """The hint of how the blob will be named; any known algorithm can be told at the end."""
    if name not in {"sha256", "sha512"}:
        raise DigestInvalid("unsupported digest algorithm")


def _state(request: Request, target: Target, session: str, offset: int) -> dict[str, str]:
    return {
        "Location": f"{external_base(request)}/v2/{target.name}/blobs/uploads/{session}",
        "Docker-Upload-UUID": session,
        "Range": so_far(offset),
    }


def _out_of_order(request: Request, target: Target, error: UploadOutOfOrder) -> Response:
    answer = render_oci(request, 416, OCI_CODES[UploadOutOfOrder], str(error))
    answer.headers.update(_state(request, target, target.argument, error.offset))
    return answer
