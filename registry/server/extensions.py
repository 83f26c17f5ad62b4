"""What this server offers an ASGI application beyond the protocol, in `scope["extensions"]`.

An application that finds none of it (another server, TLS, HTTP/1.0) does the same with plain
messages.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from registry.ports.blobs import Sink

ZERO_COPY = "http.response.zerocopysend"
"""ASGI's own: after `http.response.start`, messages of this type name a file, offset and count."""

TAKE_OVER = "registry.request.takeover"
"""Ours: the value is a `BodyOffer`. Only for requests whose body is large or of unknown length."""

LEAVING = "registry.leaving"
"""Ours: the value is called with a function, which is called when the client goes away before its
answer is complete, and with None when that matters no more. One function at a time."""


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


class Quick(NamedTuple):
    """A 200 that is ready to be sent: its header lines, without the server's own, and its body."""

    lines: bytes
    body: bytes  # nothing for HEAD


def quick_of(app: object) -> Callable[[Any], Quick | None] | None:
    """The method `quick` of an application, if it has one.

    It gives the answer to a GET or HEAD without a body, or None: then the application is called. It
    is asked before there is a task for the request, so it must not take long; where it returns
    None, it must not have logged or counted anything.
    """
    return getattr(app, "quick", None)
