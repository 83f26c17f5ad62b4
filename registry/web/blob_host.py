"""The second host name: it answers direct URLs and nothing else.

So that downloads can have their own name, line or certificate, and what is read there can never be
a page or an API with the cookies of the first.
"""

import re

from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.core.direct_url import is_direct
from registry.settings import Settings
from registry.web.resources import plain
from registry.web.urls import is_blob_host

_BLOB = re.compile(rb"/v2/.+/blobs/[^/]+")


class BlobHost:
    """ASGI middleware: everything but direct URLs is not found on the second host."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it here."""
        if scope["type"] == "http" and self._is_here(scope) and not _is_direct(scope):
            await plain(404, "404 page not found")(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_here(self, scope: Scope) -> bool:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        return bool(hosts) and is_blob_host(self._settings, hosts[0].decode("latin-1"))


def _is_direct(scope: Scope) -> bool:
    """Whether it reads a blob by a signed URL; the signature itself is looked at further in."""
    if scope["method"] not in {"GET", "HEAD"} or not _BLOB.fullmatch(scope.get("raw_path") or b""):
        return False
    return is_direct(QueryParams(scope["query_string"]))
