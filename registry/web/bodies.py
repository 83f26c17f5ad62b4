"""Request bodies that go into the blob store: large, of known length or not.

From our own server the body is taken over: the socket is read straight into the store's buffers.
From any other, and for small ones, it comes as ASGI messages. JSON bodies are not read here.
"""

import asyncio

from starlette.requests import Request

from registry.core.errors import SizeInvalid, TooLarge
from registry.ports.blobs import Sink
from registry.server.extensions import TAKE_OVER, BodyOffer
from registry.settings import Limits

GONE = "the sender went away before the body was complete"
SILENT = "the sender was silent for too long"


class RequestBody:
    """`Body` of `ports/blobs.py`: what a client sends. To be fed to a sink once."""

    def __init__(self, request: Request, limits: Limits) -> None:
        self._request = request
        self._limit = limits.blob_bytes
        self._idle_s = limits.body_idle_s
        self.length = _length(request)

    async def feed(self, sink: Sink) -> int:
        """Send everything to `sink`; return the number of bytes.

        Raises:
            SizeInvalid: the sender went away, was silent for too long, or sent too few bytes.
            TooLarge: more than `limits.blob_bytes`.
        """
        if self.length is not None and self.length > self._limit:
            raise _too_large(self._limit)
        offer: BodyOffer | None = self._request.scope.get("extensions", {}).get(TAKE_OVER)
        if offer is not None and offer.open:
            return await offer.feed(sink, self._limit)
        return await self._stream(sink)

    async def _stream(self, sink: Sink) -> int:
        size, more = 0, True
        while more:
            try:
                async with asyncio.timeout(self._idle_s):
                    message = await self._request.receive()
            except TimeoutError as error:
                raise SizeInvalid(SILENT) from error
            if message["type"] == "http.disconnect":
                raise SizeInvalid(GONE)
            part = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(part)
            if size > self._limit:
                raise _too_large(self._limit)
            if part:
                await sink.write(part)
        if self.length is not None and size != self.length:
            raise SizeInvalid(GONE)
        return size


def request_body(request: Request, limits: Limits | None = None) -> RequestBody:
    """The body of a request, for a blob. Without `limits` those of the application's settings."""
    if limits is None:
        limits = request.app.state.services.settings.limits
        assert isinstance(limits, Limits)
    return RequestBody(request, limits)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"blob is larger than the limit of {limit} bytes")


def _length(request: Request) -> int | None:
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None
