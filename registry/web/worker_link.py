"""`/api/v1/link`: where workers on other machines call in. Programs of ours only.

A worker enrols once, then keeps a request open whose lines tell it what to do, and answers each by
a request of its own. It may read the blobs of models that it was told to run.

Source: ADR 0008.
"""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from registry.core.digest import Digest
from registry.core.errors import BlobUnknown, RequestInvalid, Unauthenticated
from registry.ports.links import Member, WorkerLinks
from registry.services.inference.worker_keys import WorkerKeys
from registry.web.answers import empty_response, json_response
from registry.web.auditing import noted
from registry.web.files import BlobResponse
from registry.web.forms import read_bounded
from registry.web.ollama import services
from registry.web.resources import resource
from registry.web.streams import NDJSON
from registry.web.worker_passing import allowed_elsewhere, body_of, elsewhere

_ASK_BYTES = 64 << 10
_CHECK_S = 5.0
"""A credential that is revoked is good for so long at most, if the worker has a line."""
_REPORT_BYTES = 16 << 20
_HEADERS = {"content-type": NDJSON, "cache-control": "no-store", "x-accel-buffering": "no"}


def _keys(request: Request) -> WorkerKeys:
    found: WorkerKeys = services(request).worker_keys
    return found


def _links(request: Request) -> WorkerLinks:
    found: WorkerLinks = services(request).links
    return found


async def _member(request: Request) -> Member:
    """Who calls.

    Raises:
        Unauthenticated: the credential is none of a worker's.
    """
    kind, _, credential = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer":
        raise Unauthenticated("a worker's credential is needed")
    name = await _keys(request).name_of(credential.strip())
    return Member(name, request.headers.get("x-worker-session", "")[:64])


async def enrol(request: Request) -> Response:
    """POST /api/v1/link/enrolment: an enrolment token and a name for a credential."""
    told = await _object(request, _ASK_BYTES)
    token, name = told.get("token"), told.get("name")
    if not isinstance(token, str) or not isinstance(name, str):
        raise RequestInvalid("token and name are needed")

    async def work() -> Response:
        credential = await _keys(request).enrol(token, name)
        return json_response({"name": name, "credential": credential})

    return await noted(request, "worker.enrol", name[:80], work())


async def replicas(request: Request) -> Response:
    """GET /api/v1/link/replicas: with whom the worker should have a line."""
    await _member(request)
    return json_response({"replicas": services(request).replicas.ids()})


async def link(request: Request) -> Response:
    """GET /api/v1/link: what the worker is told, line by line, until it leaves or is revoked."""
    member = await _member(request)
    passed = await elsewhere(request)
    return passed or StreamingResponse(_lines(request, member), headers=_HEADERS)


async def _lines(request: Request, member: Member) -> AsyncIterator[bytes]:
    links, checked = _links(request), time.monotonic()
    async with aclosing(links.open(member)) as lines:
        async for line in lines:
            if time.monotonic() - checked > _CHECK_S:
                try:
                    await _member(request)
                except Unauthenticated:
                    links.dismiss(member.name)
                    return
                checked = time.monotonic()
            yield line


async def beat(request: Request) -> Response:
    """POST /api/v1/link/report: a sign of life, and what the worker says of itself."""
    member = await _member(request)
    if passed := await elsewhere(request):
        return passed
    _links(request).beat(member, await read_bounded(request, _REPORT_BYTES))
    return empty_response(204)


async def answer(request: Request) -> Response:
    """POST /api/v1/link/calls/<id>: the answer to a call, as it is made."""
    member = await _member(request)
    if passed := await elsewhere(request):
        return passed
    call = str(request.path_params["call"])
    await _links(request).answer(member, call, body_of(request))
    return empty_response(204)


async def permit(request: Request) -> Response:
    """GET /api/v1/link/permits/<digest>: whether the worker may read a blob; replicas ask it."""
    member = await _member(request)
    digest = Digest.parse(str(request.path_params["digest"]))
    if not _links(request).may_read(member, digest):
        raise BlobUnknown(str(digest))
    return empty_response(204)


async def blob(request: Request) -> Response:
    """GET /api/v1/link/blobs/<digest>: a range of a blob that the worker needs."""
    member = await _member(request)
    digest = Digest.parse(str(request.path_params["digest"]))
    if not _links(request).may_read(member, digest):
        if not await allowed_elsewhere(request, f"/api/v1/link/permits/{digest}"):
            raise BlobUnknown(str(digest))
        _links(request).let_read(member, digest)
    bundle = services(request)
    found = await bundle.catalog.read(lambda tx: tx.blob(digest))
    if found is None:
        raise BlobUnknown(str(digest))
    opened = await bundle.blobs.open(found)
    return BlobResponse(opened, digest, {}, private=True, probe=False)


async def _object(request: Request, limit: int) -> dict[str, object]:
    try:
        value = orjson.loads(await read_bounded(request, limit))
    except orjson.JSONDecodeError as error:
        raise RequestInvalid("the body must be a JSON object") from error
    if not isinstance(value, dict):
        raise RequestInvalid("the body must be a JSON object")
    return value


routes = [
    resource("/api/v1/link", GET=link),
    resource("/api/v1/link/enrolment", POST=enrol),
    resource("/api/v1/link/report", POST=beat),
    resource("/api/v1/link/calls/{call}", POST=answer),
    resource("/api/v1/link/replicas", GET=replicas),
    resource("/api/v1/link/blobs/{digest}", GET=blob),
    resource("/api/v1/link/permits/{digest}", GET=permit),
]
