"""Reverse proxies: whose word is taken for who the client is and what it asked for.

`X-Forwarded-For`, `-Proto` and `-Host` are read from connections of `trusted_proxies` only, and of
each only what the nearest trusted proxy itself can have written: whatever stands to the left came
from the client and may be a lie. `Forwarded` (RFC 7239) is not read.

A proxy that has the store's folder on its own disk may be told to send a blob itself.

Source: spec registry-protocol 6.1 ("URLs"), product 6; nginx, "X-Accel-Redirect".
"""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.web.urls import is_host

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

SENDS_FILES = "registry.sends_files"
"""Key of a scope: the location under which the proxy that a request came by has the blobs."""
_MAX_HOPS = 32  # proxies in a row that are looked through
_FOR, _PROTO, _HOST = b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


def client_address(request: Request) -> str:
    """The address of whoever asks, a trusted proxy's client if it came by one; "" if unknown.

    IPv4 clients look the same whether the server listens on IPv4 or on both.
    """
    return _plain(request.client.host) if request.client else ""


class Forwarded:
    """ASGI middleware, the outermost: sets the scope's client, scheme and Host header.

    `location` is where the proxies have the blobs, if they do.
    """

    def __init__(self, app: ASGIApp, trusted: Iterable[str], location: str = "") -> None:
        self._app = app
        self._location = location
        self._networks = [ipaddress.ip_network(item, strict=False) for item in trusted]
        self._trusts = lru_cache(1024)(self._is_trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, as its proxy saw it."""
        if scope["type"] == "http" and scope.get("client") and self._trusts(scope["client"][0]):
            scope = self._believed(scope)
        await self._app(scope, receive, send)

    def _believed(self, scope: Scope) -> Scope:
        said = _said(scope)
        changed: dict[str, object] = {}
        client = self._client(b",".join(said[_FOR]))
        if client:
            changed["client"] = (client, 0)
            # Without the header it is no proxy: a client on the proxy's machine, say.
            changed[SENDS_FILES] = self._location
        scheme = _last(said[_PROTO]).lower()
        if scheme in {"http", "https"}:
            changed["scheme"] = scheme
        host = _last(said[_HOST])
        if is_host(host):
            headers = [pair for pair in scope["headers"] if pair[0] != b"host"]
            changed["headers"] = [(b"host", host.encode("ascii")), *headers]
        return {**scope, **changed}

    def _client(self, chain: bytes) -> str:
        """The last address in the chain that no trusted proxy has, or the first of theirs.

        What is no address ends the search: what stands before it was not written by a proxy that
        knew what it did.
        """
        found = ""
        for item in islice(reversed(chain.decode("latin-1").split(",")), _MAX_HOPS):
            address = _read(item.strip())
            if address is None:
                break
            found = str(address)
            if not self._trusts(found):
                break
        return found

    def _is_trusted(self, text: str) -> bool:
        address = _read(text)
        return address is not None and any(address in network for network in self._networks)


def _said(scope: Scope) -> dict[bytes, list[bytes]]:
    """Our headers' lines, in their order."""
    found: dict[bytes, list[bytes]] = {_FOR: [], _PROTO: [], _HOST: []}
    for name, value in scope["headers"]:
        if name in found:
            found[name].append(value)
    return found


def _last(lines: list[bytes]) -> str:
    """The item that was added last, by the nearest proxy."""
    text = lines[-1] if lines else b""
    return text.rpartition(b",")[2].strip().decode("latin-1")


def _read(text: str) -> Address | None:
    """An address, with or without a port; IPv4 written as IPv6 is IPv4; no zones."""
    match = _WITH_PORT.fullmatch(text)
    if match:
        text = match[1] or match[2]
    if len(text) > 45 or "%" in text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if address.version == 6 else None
    return mapped or address


def _plain(text: str) -> str:
    return text.removeprefix("::ffff:") if text.startswith("::ffff:") and "." in text else text
