"""Answers whose body is a blob: whole or a range of it, by zero copy where the server offers that.

Source: RFC 9110 13.1.2, 13.1.5, 14; spec registry-protocol 1.3 (probe) and 3.3 ("Blob GET/Range").
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from registry.core import ranges
from registry.core.digest import Digest
from registry.core.ranges import Span, Unsatisfiable
from registry.ports.blobs import Opened
from registry.server.extensions import ZERO_COPY
from registry.web.proxies import SENDS_FILES

PROBE_S = 0.15
_PIECE = 256 << 10
"""What one message holds of a file: each slow reader costs some six times this under TLS. Four
times as much is a tenth faster, and 200 slow readers took 870 MiB."""
_YEAR_S = 31_536_000
_CONDITIONS = {"if-none-match", "if-range", "if-match", "if-modified-since", "if-unmodified-since"}


def blob_headers(digest: Digest, *, private: bool = False) -> dict[str, str]:
    """Headers of every answer about a blob: they hold for as long as its digest does."""
    scope = "private" if private else "public"
    return {
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "ETag": f'"{digest}"',
        "Cache-Control": f"{scope}, max-age={_YEAR_S}, immutable",
    }


@dataclass(frozen=True, slots=True)
class _Plan:
    status: int
    span: Span | None  # None: no body
    headers: dict[str, str]


class BlobResponse(Response):
    """Sends an opened blob, or what Range and If-None-Match ask for, and closes it.

    The headers are those of `blob_headers`, then `headers`. A `probe` waits a moment after the
    headers for the client to hang up: Ollama's does, having read where the blob is, and would
    otherwise be sent megabytes that nobody reads. The answer to HEAD has no body.

    `file` is the blob's file name in the store: a proxy that has the files sends them in our place
    (`Forwarded`), ranges too, but for what it would answer otherwise than we do.
    """

    def __init__(
        self,
        blob: Opened,
        digest: Digest,
        headers: Mapping[str, str] | None = None,
        *,
        private: bool = False,
        probe: bool = False,
        file: str = "",
    ) -> None:
        self._blob = blob
        self._file = file
        self._etag = f'"{digest}"'
        self._probe = probe
        self.status_code = 200
        self.background = None
        self.init_headers({**blob_headers(digest, private=private), **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        async with self._blob as blob:
            asked = Headers(scope=scope)
            if self._is_sent_by_proxy(scope, asked):
                await self._hand_over(scope[SENDS_FILES], send)
                return
            plan = self._plan(asked, blob.size)
            self.status_code = plan.status
            self.headers.update(plan.headers)
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            if not plan.span or scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
            elif self._probe and await _hung_up(receive):
                return
            elif ZERO_COPY in scope.get("extensions", {}) and blob.fileno() is not None:
                await send(_zero_copy(blob, plan.span))
            else:
                await self._stream(blob, plan.span, receive, send)

    def _is_sent_by_proxy(self, scope: Scope, asked: Headers) -> bool:
        if not (self._file and scope.get(SENDS_FILES)) or self._blob.fileno() is None:
            return False
        plain = _CONDITIONS.isdisjoint(asked.keys())
        return plain and scope["method"] == "GET" and not self._probe

    async def _hand_over(self, location: str, send: Send) -> None:
        self.headers["X-Accel-Redirect"] = f"{location}/{self._file}"
        self.headers["Content-Length"] = "0"
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        await send({"type": "http.response.body", "body": b""})

    def _plan(self, asked: Headers, size: int) -> _Plan:
        if _matches(asked.get("if-none-match"), self._etag):
            return _Plan(304, None, {})
        wanted = asked.get("range")
        if asked.get("if-range", self._etag) != self._etag:
            wanted = None
        try:
            span = ranges.requested(wanted, size)
        except Unsatisfiable:
            return _Plan(416, None, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
        if span is None:
            return _Plan(200, Span(0, size), {"Content-Length": str(size)})
        return _Plan(206, span, {"Content-Range": span.of(size), "Content-Length": str(len(span))})

    async def _stream(self, blob: Opened, span: Span, receive: Receive, send: Send) -> None:
        """Send the bytes as messages, until the client goes: a server may not say that it went."""
        gone = asyncio.create_task(_disconnected(receive))
        left = len(span)
        is_file = blob.fileno() is not None
        parts = _pieces(blob, span) if is_file else blob.chunks(span.start, span.stop)
        try:
            async for part in parts:
                if gone.done():
                    return
                left -= len(part)
                await send({"type": "http.response.body", "body": part, "more_body": left > 0})
        finally:
            gone.cancel()
            if isinstance(parts, AsyncGenerator):  # what it fetches ahead ends with it
                await parts.aclose()


async def _pieces(blob: Opened, span: Span) -> AsyncIterator[bytes]:
    for begin in range(span.start, span.stop, _PIECE):
        yield await blob.read(begin, min(begin + _PIECE, span.stop))


def _zero_copy(blob: Opened, span: Span) -> Message:
    return {
        "type": ZERO_COPY,
        "file": blob,
        "offset": span.start,
        "count": len(span),
        "more_body": False,
    }


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _hung_up(receive: Receive) -> bool:
    """Whether the client hangs up within `PROBE_S`."""
    try:
        async with asyncio.timeout(PROBE_S):
            await _disconnected(receive)
    except TimeoutError:
        return False
    return True


def _matches(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return etag in tags or "*" in tags
