"""Routing as the Ollama server does it: one resource per path, exact 405s, slashes redirected.

Starlette would answer HEAD wherever there is GET and sort the `Allow` header; clients and
recordings see neither. Source: spec ollama-api 2.2.
"""

import re
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from registry.core.access import Group
from registry.web.auth import require

Handler = Callable[[Request], Awaitable[Response]]


class Resource:
    """A path's handlers by method, in the order that `Allow` names them. An ASGI application."""

    def __init__(self, handlers: dict[str, Handler], group: Group | None) -> None:
        self._handlers = handlers
        self.group = group

    @property
    def methods(self) -> list[str]:
        """What the path answers."""
        return list(self._handlers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive, send)
        handler = self._handlers.get(request.method)
        if handler and self.group is not None:
            await require(request, self.group)
        response = await handler(request) if handler else self._refuse()
        await response(scope, receive, send)

    def _refuse(self) -> Response:
        return plain(405, "405 method not allowed", {"allow": ", ".join(self._handlers)})


def resource(path: str, group: Group | None = None, /, **handlers: Handler) -> Route:
    """A route whose keyword arguments are methods: `resource("/api/tags", HEAD=tags, GET=tags)`.

    `group` is what a credential must be for; without it anybody may call, or the handlers ask.
    """
    return Route(path, Resource(handlers, group))


def plain(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    """A plain text answer; the content type is sent without a charset, as recorded."""
    return Response(text, status, headers={"content-type": "text/plain", **(headers or {})})


def not_found(known: Callable[[str], bool]) -> Handler:
    """The handler of paths that no route takes; `known` tells whether a path has a route."""

    async def answer(request: Request) -> Response:
        path = request.url.path
        cleaned = re.sub(r"/{2,}", "/", path)
        for wanted in (cleaned, cleaned.rstrip("/")):
            if wanted and wanted != path and known(wanted):
                code = 301 if request.method == "GET" else 307
                query = f"?{request.url.query}" if request.url.query else ""
                return RedirectResponse(wanted + query, code)
        return plain(404, "404 page not found")

    return answer
