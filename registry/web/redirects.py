"""Who exchanges bytes with the object store by themselves, and who through this service.

A redirect that cannot be followed shows up at clients as a network error without a cause, so in
doubt the bytes go through here.

Source: spec registry-protocol 1.3 "Probe rules", 2.3, 6.2 rule 13.
"""

import ipaddress
from functools import lru_cache
from typing import Literal

from starlette.requests import Request

from registry.ports.direct import Direct
from registry.services.uploading.direct import DirectUploads
from registry.web.oci_errors import is_ollama, is_transfer
from registry.web.proxies import client_address
from registry.web.reading import services
from registry.web.urls import external_base, is_foreign, leads_elsewhere

PROXIED_BYTES = 1 << 20
"""Smaller blobs come from here: a request of ours costs less than one more of the client's."""
_READ_TWICE_BYTES = 256 << 10
"""The same for the engine that reads each blob that comes from here a second time. Yet smaller ones
may be in the catalog only."""


def pulls_from(request: Request, size: int) -> Direct | None:
    """The store, if this request for a blob is to be told the blob's address there."""
    direct = services(request).direct
    least = _READ_TWICE_BYTES if is_transfer(request) else PROXIED_BYTES
    if direct is None or size <= least:
        return None
    wanted = services(request).settings.redirect.pull
    return direct.store if _reaches(request, direct.store, wanted) else None


def pushes_to(request: Request) -> DirectUploads | None:
    """The same for a request that can be told to send bytes there."""
    direct = services(request).direct
    if direct is None or request.headers.get("x-redirect-uploads") not in {"1", "2"}:
        return None
    wanted = services(request).settings.redirect.push
    return direct if _reaches(request, direct.store, wanted) else None


def follows(request: Request, url: str) -> bool:
    """Whether the client is well served by a redirect to `url`, and not by the bytes and the URL.

    The ollama client's classic engine takes another host name as the address to read from and hangs
    up on a 200; the other engine tells hosts by their ports too. Any other client just follows.
    """
    if is_ollama(request):
        return leads_elsewhere(request, url, port_counts=False)
    if is_transfer(request):
        return leads_elsewhere(request, url, port_counts=True)
    return is_foreign(request, url)


def _reaches(request: Request, store: Direct, wanted: Literal["auto", "always", "never"]) -> bool:
    if wanted == "never":
        return False
    if wanted == "auto":
        bare = store.address.startswith("http:") and external_base(request).startswith("https:")
        if bare or not store.is_public:
            return False
    proxied = services(request).settings.redirect.proxied
    return not (proxied and _is_among(client_address(request), proxied))


@lru_cache(4096)
def _is_among(client: str, networks: tuple[str, ...]) -> bool:
    """Whether it is an address of one of the networks, or none that we know."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return True
    return any(address in ipaddress.ip_network(item, strict=False) for item in networks)
