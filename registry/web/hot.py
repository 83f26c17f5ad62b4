"""Answers kept ready: small GETs and HEADs of `/v2/` that nothing but the catalog decides.

An answer is served again only while `catalog.version()` is the one from before it was made: any
committed write of any process makes every kept answer void, so none is ever stale. A HEAD of a blob
is also a promise to keep the blob for a while, so it has to be made anew now and then.

Sits inside the guard (who may ask) and outside routing; a hit costs no route, request or response
object. Source: spec performance 4.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.core.errors import RegistryError
from registry.server.extensions import Quick
from registry.server.heads import header_lines

MAX_BODY = 1 << 20
MAX_TOTAL = 64 << 20
MAX_AGE_S = 60.0
_PROVEN_S = 1.0
_MAX_PROVEN = 4096
_OVERHEAD = 1024  # bytes that an entry takes besides its body, roughly
_VARYING = frozenset({b"if-none-match", b"range", b"cookie"})

_Key = tuple[str, bytes, bytes, bytes]  # method, raw path, query, Authorization
Proof = Callable[[Scope], Awaitable[bool]]
"""Whether the request's credentials are good at this moment."""


@dataclass(frozen=True, slots=True)
class _Kept:
    version: int
    until: float
    start: Message
    body: Message
    size: int
    quick: Quick | None  # the same as bytes, if its headers are plain


class Hot:
    """ASGI middleware. `version` is the catalog's.

    Rights lie in the catalog too, so an answer is right again for the credentials that it was made
    for, and for no others, while the version stands; only that they have not expired is asked now
    and then: `proof`. Without it, requests with credentials go through.
    """

    def __init__(
        self, app: ASGIApp, version: Callable[[], int], proof: Proof | None = None
    ) -> None:
        self._app = app
        self._version = version
        self._proof = proof
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._total = 0
        self._proven: dict[bytes, tuple[int, float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from memory, or let the application answer and remember what it said."""
        if scope["type"] != "http" or not _is_candidate(scope):
            await self._app(scope, receive, send)
            return
        credentials = _credentials(scope)
        try:
            version = self._version()
        except RegistryError:  # the application will tell, if it needs the catalog at all
            await self._app(scope, receive, send)
            return
        if credentials and not await self._is_proven(scope, credentials, version):
            await self._app(scope, receive, send)
            return
        key = _key(scope, credentials)
        kept = self._find(key, version)
        if kept is not None:
            await send(kept.start)
            await send(kept.body)
            return
        recorder = _Recorder(send)
        await self._app(scope, receive, recorder)
        if recorder.is_whole:
            self._keep(key, version, recorder)

    def quick(self, scope: Scope) -> Quick | None:
        """See `quick_of`: the same from memory, if nothing has to be looked up for it."""
        if not _is_candidate(scope):
            return None
        credentials = _credentials(scope)
        try:
            version = self._version()
        except RegistryError:  # whoever is called next will tell
            return None
        if credentials and not self._was_proven(credentials, version):
            return None
        kept = self._find(_key(scope, credentials), version)
        return None if kept is None else kept.quick

    def _find(self, key: _Key, version: int) -> _Kept | None:
        kept = self._kept.get(key)
        if kept is None or kept.version != version or kept.until <= time.monotonic():
            return None
        return kept

    def _was_proven(self, credentials: bytes, version: int) -> bool:
        known = self._proven.get(credentials)
        return known is not None and known[0] == version and known[1] > time.monotonic()

    async def _is_proven(self, scope: Scope, credentials: bytes, version: int) -> bool:
        """Whether the credentials are good: looked up after any write, and once a second."""
        if self._proof is None:
            return False
        now = time.monotonic()
        if self._was_proven(credentials, version):
            return True
        self._proven.pop(credentials, None)
        if not await self._proof(scope):
            return False
        if len(self._proven) >= _MAX_PROVEN:
            self._proven.clear()
        self._proven[credentials] = version, now + _PROVEN_S
        return True

    def _keep(self, key: _Key, version: int, recorder: "_Recorder") -> None:
        self._drop(key)
        assert recorder.start is not None
        size = len(recorder.body) + len(key[3]) + _OVERHEAD
        body: Message = {"type": "http.response.body", "body": recorder.body}
        until = time.monotonic() + MAX_AGE_S
        quick = _quick(key[0], recorder)
        self._kept[key] = _Kept(version, until, recorder.start, body, size, quick)
        self._total += size
        while self._total > MAX_TOTAL:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: _Key) -> None:
        old = self._kept.pop(key, None)
        if old is not None:
            self._total -= old.size


class _Recorder:
    """Passes messages on and remembers a small whole 200."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.start: Message | None = None
        self.body = b""
        self.is_whole = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            self.start = {**message, "headers": list(message["headers"])}
        elif message["type"] == "http.response.body" and self.start is not None:
            self.body = message.get("body", b"")
            self.is_whole = not message.get("more_body") and len(self.body) <= MAX_BODY
            if not self.is_whole:
                self.start = None
        elif message["type"] != "http.response.start":
            self.start, self.is_whole = None, False  # an extension sent the body
        await self._send(message)


def _quick(method: str, recorder: _Recorder) -> Quick | None:
    assert recorder.start is not None
    body = recorder.body if method == "GET" else b""
    length = len(body) if method == "GET" else None
    lines = header_lines(recorder.start["headers"], length)
    return None if lines is None else Quick(lines, body)


def _key(scope: Scope, credentials: bytes) -> _Key:
    # the raw path: encoded slashes make another name
    return scope["method"], scope["raw_path"], scope["query_string"], credentials


def _credentials(scope: Scope) -> bytes:
    return b"\0".join(value for name, value in scope["headers"] if name == b"authorization")


def _is_candidate(scope: Scope) -> bool:
    """Whether nothing but method, path, query and catalog decides the answer."""
    path = scope.get("raw_path")
    if not path or not path.startswith(b"/v2/"):
        return False
    for name, _ in scope["headers"]:
        if name in _VARYING:
            return False
    method = scope["method"]
    if method == "HEAD":
        # with a query it may be a direct URL, which ends at a moment of its own
        is_blob = b"/blobs/sha256:" in path and not scope["query_string"]
        return is_blob or b"/manifests/" in path
    return method == "GET" and (b"/manifests/" in path or path.endswith(b"/tags/list"))
