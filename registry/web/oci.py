"""`/v2/`: the registry protocol of OCI clients and of `ollama pull` and `ollama push`.

Here are the routes, manifests and lists; blobs and uploads have their own modules.
Source: OCI distribution-spec 1.1; spec registry-protocol 1.3, 2, 3.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from registry.core.digest import Digest
from registry.core.errors import NameInvalid, RequestInvalid
from registry.core.manifest import Referrer, encode_referrers
from registry.core.media import OCI_INDEX
from registry.core.names import check_tag
from registry.ports.catalog import Manifest
from registry.services.library.manifests import Put
from registry.web import auditing, auth, oci_blobs, oci_uploads
from registry.web.oci_access import DELETE, PULL, PUSH, authorize, has_etag
from registry.web.oci_errors import API_VERSION, refuse_method, render_oci
from registry.web.oci_paths import Kind, Target, parse
from registry.web.reading import read_bounded, services
from registry.web.urls import external_base

Handler = Callable[[Request, Target], Awaitable[Response]]

_MAX_TAGS = 10_000
_MAX_REPOSITORIES = 1_000
_MAX_TAG_PARAMETERS = 64
_MAX_REFERRERS_BYTES = 4 << 20


class PageInvalid(RequestInvalid):
    """A page size that is no number."""


async def ping(request: Request, target: Target) -> Response:
    """GET /v2/: says that the protocol is spoken here."""
    await auth.authorize_registry(request, None)
    return Response(b"{}", media_type="application/json")


async def get_manifest(request: Request, target: Target) -> Response:
    """GET and HEAD of a manifest: the bytes as they were put, whatever Accept says."""
    await authorize(request, target, PULL)
    reference = _reference(target)
    manifest = await services(request).manifests.get(target.repository, reference)
    headers = {
        "Docker-Content-Digest": str(manifest.digest),
        "ETag": f'"{manifest.digest}"',
        "Content-Type": manifest.media_type,
    }
    if has_etag(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(manifest.body, headers=headers)


async def put_manifest(request: Request, target: Target) -> Response:
    """PUT of a manifest by tag or digest; `tag` parameters name further tags."""
    await authorize(request, target, PUSH)
    bundle = services(request)
    tags = request.query_params.getlist("tag")
    if len(tags) > _MAX_TAG_PARAMETERS:
        return render_oci(request, 414, "TAG_INVALID", "too many tags in one request")
    body = await read_bounded(request, bundle.settings.limits.manifest_bytes)
    put = Put(_reference(target), body, request.headers.get("content-type"), tuple(tags))
    guard = await auth.guard(request, target.repository)
    result = await bundle.manifests.put(target.repository, put, guard)
    answer = Response(status_code=201)
    answer.headers["Location"] = (
        f"{external_base(request)}/v2/{target.name}/manifests/{result.digest}"
    )
    answer.headers["Docker-Content-Digest"] = str(result.digest)
    if result.subject is not None:
        answer.headers["OCI-Subject"] = str(result.subject)
    for tag in tags:
        answer.headers.append("OCI-Tag", tag)
    return answer


async def delete_manifest(request: Request, target: Target) -> Response:
    """DELETE of a tag, or of a manifest with its tags."""
    await authorize(request, target, DELETE)
    guard = await auth.guard(request, target.repository)
    await services(request).manifests.delete(target.repository, _reference(target), guard)
    return Response(status_code=202)


async def list_tags(request: Request, target: Target) -> Response:
    """GET of the tags, in byte order."""
    await authorize(request, target, PULL)
    count = _page_size(request, _MAX_TAGS, _MAX_TAGS)
    last = request.query_params.get("last", "")
    page = await services(request).manifests.tags(target.repository, last, max(count, 1))
    tags = page.tags[:count]
    answer = _json({"name": target.name, "tags": tags})
    if page.more and tags:
        _link(answer, request.url.path, n=count, last=tags[-1])
    return answer


async def catalog(request: Request, target: Target) -> Response:
    """GET /v2/_catalog: the repositories by name."""
    await auth.authorize_registry(request, auth.CATALOG)
    count = _page_size(request, 100, _MAX_REPOSITORIES)
    last = request.query_params.get("last", "")
    readable = await auth.reader(request)
    found, more = await services(request).manifests.catalog_page(last, max(count, 1), readable)
    names = [str(name) for name in found[:count]]
    answer = _json({"repositories": names})
    if more and names:
        _link(answer, request.url.path, n=count, last=names[-1])
    return answer


async def referrers(request: Request, target: Target) -> Response:
    """GET of what refers to a digest: an index, empty for one nobody has heard of."""
    await authorize(request, target, PULL)
    subject = Digest.parse(target.argument)
    wanted = request.query_params.get("artifactType", "")
    rows = await services(request).manifests.referrers(target.repository, subject)
    entries = [_referrer(row) for row in rows if wanted in {"", row.artifact_type}]
    after = request.query_params.get("last", "")
    digests = [str(entry.digest) for entry in entries]
    start = digests.index(after) + 1 if after in digests else 0
    stop = _fitting(entries, start)
    answer = Response(encode_referrers(entries[start:stop]), headers={"Content-Type": OCI_INDEX})
    if wanted:
        answer.headers["OCI-Filters-Applied"] = "artifactType"
    if stop < len(entries):
        chosen = {"artifactType": wanted} if wanted else {}
        _link(answer, request.url.path, **chosen, last=digests[stop - 1])
    return answer


def _referrer(row: Manifest) -> Referrer:
    return Referrer(row.media_type, row.digest, len(row.body), row.artifact_type, row.annotations)


def _fitting(entries: list[Referrer], start: int) -> int:
    """Where to stop, so that the index is no larger than clients take; one entry at least."""
    size = 0
    for position in range(start, len(entries)):
        size += 512 + len(entries[position].annotations or "")
        if size > _MAX_REFERRERS_BYTES and position > start:
            return position
    return len(entries)


def _reference(target: Target) -> str:
    """The tag or digest of the path, which is one or the other.

    Raises:
        DigestInvalid, NameInvalid: it is neither.
    """
    if ":" in target.argument:
        return str(Digest.parse(target.argument))
    return check_tag(target.argument)


def _page_size(request: Request, default: int, limit: int) -> int:
    text = request.query_params.get("n", str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise PageInvalid("n must be a number that is not negative")
    return min(int(text), limit)


def _link(answer: Response, path: str, **query: Any) -> None:
    answer.headers["Link"] = f'<{path}?{urlencode(query)}>; rel="next"'


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


_HANDLERS: dict[Kind, dict[str, Handler]] = {
    Kind.PING: {"GET": ping, "HEAD": ping},
    Kind.CATALOG: {"GET": catalog},
    Kind.TAGS: {"GET": list_tags},
    Kind.REFERRERS: {"GET": referrers},
    Kind.MANIFEST: {
        "GET": get_manifest,
        "HEAD": get_manifest,
        "PUT": put_manifest,
        "DELETE": delete_manifest,
    },
    Kind.BLOB: {"GET": oci_blobs.get, "HEAD": oci_blobs.head, "DELETE": oci_blobs.delete},
    Kind.UPLOADS: {"POST": oci_uploads.begin},
    Kind.UPLOAD: {
        "GET": oci_uploads.status,
        "PATCH": oci_uploads.append,
        "PUT": oci_uploads.finish,
        "DELETE": oci_uploads.cancel,
    },
}


_WRITES = {
    (Kind.MANIFEST, "PUT"): "put manifest",
    (Kind.MANIFEST, "DELETE"): "delete manifest",
    (Kind.BLOB, "DELETE"): "delete blob",
    (Kind.UPLOADS, "POST"): "begin blob",
    (Kind.UPLOAD, "PUT"): "put blob",
    (Kind.UPLOAD, "DELETE"): "cancel blob",
}
"""What the audit calls them; the chunks in between are not told."""


async def _answer(
    request: Request, target: Target, handler: Handler | None, handlers: dict[str, Handler]
) -> Response:
    if handler is None:
        return refuse_method(request, handlers)
    action = _WRITES.get((target.kind, request.method))
    if action is None or auth.is_off(request):
        return await handler(request, target)
    what = f"{target.repository} {target.argument}".strip()
    return await auditing.noted(request, action, what, handler(request, target))


class RegistryApi:
    """The ASGI application of everything below `/v2`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find what the raw path names and let its handler answer."""
        request = Request(scope, receive, send)
        raw_path = scope.get("raw_path")
        if raw_path is None:  # a decoded path cannot be told from one with encoded slashes
            raise NameInvalid("the request has no raw path")
        target = parse(raw_path)
        handlers = _HANDLERS[target.kind]
        handler = handlers.get(request.method)
        try:
            answer = await _answer(request, target, handler, handlers)
        except PageInvalid as error:
            answer = render_oci(request, 400, "PAGINATION_NUMBER_INVALID", str(error))
        answer.headers.update(API_VERSION)
        await answer(scope, receive, send)


routes = [Route("/v2", RegistryApi()), Route("/v2/{rest:path}", RegistryApi())]
