"""Who may ask from a browser: the Origin check (CORS) and the Host check (DNS rebinding).

Source: spec ollama-api 2.3. CORS comes first, then the Host check, then routing, so that both hold
for unknown paths too. The Host check is made only while the server listens on a loopback address.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.server.extensions import Quick, quick_of

_LOCAL = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104 - names in an Origin, not a bind
_MAX_KNOWN = 256
_SCHEMES = ("app", "file", "tauri", "vscode-webview", "vscode-file")
_HEADERS = (
    "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,"
    "X-Stainless-Async,X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,"
    "X-Stainless-Os,X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,"
    "X-Stainless-Runtime,X-Stainless-Runtime-Version,X-Stainless-Timeout"
)
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS",
    "Access-Control-Allow-Headers": _HEADERS,
    "Access-Control-Max-Age": "43200",
    "Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
}


class Guard:
    """ASGI middleware: refuse foreign origins and, on loopback, foreign host names.

    `names` are host names of ours besides those that can only mean this machine.
    """

    def __init__(
        self,
        app: ASGIApp,
        origins: Iterable[str],
        *,
        check_host: bool,
        names: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._quick = quick_of(app)
        self._all = "*" in origins
        self._origins = [_pattern(origin) for origin in _default_origins()]
        self._origins += [_pattern(origin) for origin in origins]
        self._check_host = check_host
        self._own_names = {"", "localhost", socket.gethostname().lower(), *names}
        self._known_hosts: set[str] = set()  # Host headers that were let in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin, host = _origin_and_host(scope)
        if not origin and host in self._known_hosts and scope["method"] != "OPTIONS":
            await self._app(scope, receive, send)
        elif origin and origin not in {f"http://{host}", f"https://{host}"}:
            await self._cross_origin(scope, receive, send, (origin, host))
        else:
            await self._same_origin(scope, receive, send, host)

    def quick(self, scope: Scope) -> Quick | None:
        """See `quick_of`: for hosts that were let in, and no origin."""
        if self._quick is None or scope["method"] == "OPTIONS":
            return None
        origin, host = _origin_and_host(scope)
        if origin or host not in self._known_hosts:
            return None
        return self._quick(scope)

    async def _cross_origin(
        self, scope: Scope, receive: Receive, send: Send, asked: tuple[str, str]
    ) -> None:
        origin, host = asked
        if not self._allows(origin):
            allow = await self._allowed_methods(scope, receive)
            await Response(status_code=403, headers=allow)(scope, receive, send)
            return
        shown = "*" if self._all else origin
        if scope["method"] == "OPTIONS":
            headers = {"Access-Control-Allow-Origin": shown, **_PREFLIGHT}
            await Response(status_code=204, headers=headers)(scope, receive, send)
            return

        async def send_with_origin(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(b"access-control-allow-origin", shown.encode())]
                extra += [] if self._all else [(b"vary", b"Origin")]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await self._same_origin(scope, receive, send_with_origin, host)

    async def _same_origin(self, scope: Scope, receive: Receive, send: Send, host: str) -> None:
        name = _host_name(host)
        address = _address(name)
        if self._check_host and not self._is_own(name, address):
            await Response(status_code=403)(scope, receive, send)
        elif scope["method"] == "OPTIONS" and name and address is None:
            await Response(status_code=204)(scope, receive, send)
        else:
            if len(self._known_hosts) < _MAX_KNOWN:
                self._known_hosts.add(host)
            await self._app(scope, receive, send)

    async def _allowed_methods(self, scope: Scope, receive: Receive) -> dict[str, str]:
        """The `Allow` header that an OPTIONS request would get; it has no handler anywhere."""
        found: dict[str, str] = {}
        if scope["method"] != "OPTIONS":
            return found

        async def listen(message: Message) -> None:
            allow = Request({"type": "http", "headers": message.get("headers", [])}).headers
            if "allow" in allow:
                found["Allow"] = allow["allow"]

        await self._app(scope, receive, listen)
        return found

    def _allows(self, origin: str) -> bool:
        return self._all or any(pattern.fullmatch(origin) for pattern in self._origins)

    def _is_own(
        self, name: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None
    ) -> bool:
        if address is not None:
            return address.is_loopback or address.is_private or address.is_unspecified
        return name in self._own_names or name.endswith((".localhost", ".local", ".internal"))


def _origin_and_host(scope: Scope) -> tuple[str, str]:
    origin = host = ""
    for name, value in scope["headers"]:
        if name == b"host":
            host = value.decode("latin-1")
        elif name == b"origin":
            origin = value.decode("latin-1")
    return origin, host


def _default_origins() -> list[str]:
    found = [
        f"{scheme}://{host}{port}"
        for scheme in ("http", "https")
        for host in _LOCAL
        for port in ("", ":*")
    ]
    return found + [f"{scheme}://*" for scheme in _SCHEMES]


def _pattern(origin: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in origin.split("*", 1)))


def _host_name(host: str) -> str:
    """The name in a Host header: no port, no brackets, lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
