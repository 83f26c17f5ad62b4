"""`/v2/<name>/blobs/<digest>`: is it here, read it, take it away from the repository.

Source: OCI distribution-spec 1.1, "Pulling blobs"; spec registry-protocol 0.1, 1.3, 3.3, 8.3.
"""

from starlette.requests import Request
from starlette.responses import Response

from registry.core.digest import Digest
from registry.core.direct_url import Grant, is_direct, verify
from registry.ports.catalog import Blob
from registry.web.auditing import DENIED, note
from registry.web.files import BlobResponse, blob_headers
from registry.web.oci_access import DELETE, PULL, authorize, has_etag
from registry.web.oci_errors import API_VERSION, is_ollama, is_transfer
from registry.web.oci_paths import Target
from registry.web.reading import services
from registry.web.redirects import follows, pulls_from
from registry.web.urls import blob_base

_PROBED_BYTES = 1 << 20  # smaller blobs fit into the socket: no need to wait for a client to leave
_NS = 10**9


async def head(request: Request, target: Target) -> Response:
    """HEAD: answered from the catalog alone; no file is touched.

    A 200 promises that the blob stays for a while, since the client will not send it again.
    """
    digest = Digest.parse(target.argument)
    direct = is_direct(request.query_params)
    if not await _may_read(request, target, digest):
        return _refused(request, target)
    blob = await services(request).blobs.stat(target.repository, digest, promise=not direct)
    headers = blob_headers(digest, private=direct or _is_guarded(request))
    headers |= {"Docker-Content-Digest": str(digest), "Content-Length": str(blob.size)}
    return Response(headers=headers)


async def get(request: Request, target: Target) -> Response:
    """GET: a range of the blob, or all of it together with its direct URL."""
    digest = Digest.parse(target.argument)
    direct = is_direct(request.query_params)
    if not await _may_read(request, target, digest):
        return _refused(request, target)
    blobs = services(request).blobs
    blob = await blobs.stat(target.repository, digest)
    whole = "range" not in request.headers and not has_etag(request, f'"{digest}"')
    headers = {"Docker-Content-Digest": str(digest)}
    if whole:
        headers["Location"], is_better = await _address(request, target, blob)
        if is_better:
            return Response(status_code=307, headers={**headers, "Cache-Control": "no-store"})
    if direct:
        headers["Referrer-Policy"] = "no-referrer"
    probe = whole and is_ollama(request) and blob.size > _PROBED_BYTES
    opened = await blobs.open(blob)
    private = direct or _is_guarded(request) or pulls_from(request, blob.size) is not None
    file = blob.storage_key
    return BlobResponse(opened, digest, headers, private=private, probe=probe, file=file)


async def delete(request: Request, target: Target) -> Response:
    """DELETE: take the blob away from the repository."""
    await authorize(request, target, DELETE)
    await services(request).blobs.unlink(target.repository, Digest.parse(target.argument))
    return Response(status_code=202)


async def _may_read(request: Request, target: Target, digest: Digest) -> bool:
    """Whether a direct URL is good; any other request goes through `authorize`."""
    if not is_direct(request.query_params):
        await authorize(request, target, PULL)
        return True
    bundle = services(request)
    keys = await bundle.blobs.signing_keys.ring()
    now_s = bundle.clock() // _NS
    return verify(request.query_params, target.repository, digest, keys, now_s)


async def _address(request: Request, target: Target, blob: Blob) -> tuple[str, bool]:
    """A URL that the blob can be read from without credentials; whether to redirect to it.

    A request that came by one of ours gets the same, or it would live forever.
    """
    settings, digest = services(request).settings, Digest.parse(target.argument)
    path = f"{blob_base(request)}/v2/{target.name}/blobs/{digest}"
    if is_direct(request.query_params):
        return f"{path}?{request.url.query}", False
    store = pulls_from(request, blob.size)
    if store is not None:
        url = await store.read_url(blob.storage_key, settings.direct_url_s)
        return url, follows(request, url)
    expires_s = services(request).clock() // _NS + settings.direct_url_s
    grant = Grant(target.repository, digest, expires_s)
    newest, *_ = await services(request).blobs.signing_keys.ring()
    engine = is_ollama(request) or is_transfer(request)  # others would make a second request
    is_better = engine and bool(settings.blob_base_url) and follows(request, path)
    return f"{path}?{grant.query(newest)}", is_better


def _is_guarded(request: Request) -> bool:
    """Whether a shared cache could give what it holds, a direct URL too, to who may not read it."""
    return services(request).settings.auth


def _refused(request: Request, target: Target) -> Response:
    """No body: see `render_oci`."""
    note(request, "read by URL", f"{target.repository} {target.argument}", DENIED)
    return Response(status_code=403, headers={**API_VERSION, "Cache-Control": "no-store"})
