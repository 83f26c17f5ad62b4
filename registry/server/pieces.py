"""A body of unknown length: what is sent within one turn of the event loop leaves in one write.

Each write costs a system call and wakes the client up; an engine's tokens come many at a time.
"""

import asyncio

_AT_MOST = 1 << 16
"""Bytes that wait for the end of the turn. Beyond that the transport's own flow control counts."""


class Pieces:
    """Chunks of an answer on their way to its transport, from its head on."""

    __slots__ = ("_held", "_loop", "_parts", "_transport")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, head: bytes
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._parts = [head]
        self._held = len(head)
        loop.call_soon(self.flush)

    def add(self, body: bytes, *, last: bool) -> None:
        """Send a piece; the last one may be empty, and leaves now."""
        if not self._parts and not last:
            self._loop.call_soon(self.flush)
        if body:
            self._parts += (b"%x\r\n" % len(body), body, b"\r\n")
            self._held += len(body)
        if last:
            self._parts.append(b"0\r\n\r\n")
        if last or self._held > _AT_MOST:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        parts, self._parts, self._held = self._parts, [], 0
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))
