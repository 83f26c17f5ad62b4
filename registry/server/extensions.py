"""What this server offers an ASGI application beyond the protocol, in `scope["extensions"]`.

An application that finds none of it (another server, TLS, HTTP/1.0) does the same with plain
messages.
"""

from typing import Protocol

from registry.ports.blobs import Sink

ZERO_COPY = "http.response.zerocopysend"
"""ASGI's own: after `http.response.start`, messages of this type name a file, offset and count."""

TAKE_OVER = "registry.request.takeover"
"""Ours: the value is a `BodyOffer`. Only for requests whose body is large or of unknown length."""


class BodyOffer(Protocol):
    """A request body that can be read from its socket straight into a sink's buffers."""

    @property
    def open(self) -> bool:
        """Whether it still can: nothing of the body was received in the ordinary way."""

    async def feed(self, sink: Sink, limit: int) -> int:
        """Send all of it to `sink`; return the number of bytes. Once only, while `open`.

        Raises:
            SizeInvalid: the sender went away, or was silent for too long.
            RequestInvalid: it is not framed as chunks must be.
            TooLarge: it has more than `limit` bytes.
        """
