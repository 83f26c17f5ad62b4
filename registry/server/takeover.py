"""Taking over a request body: from the socket straight into the sink's buffers.

No `bytes` object is made, no parser looks at the payload and no flow control runs: what is left is
one copy out of the kernel. The kernel is asked to wake us for a good piece only (SO_RCVLOWAT). No
buffer is held while nothing comes, so thousands of slow senders cost no memory here.
"""

import asyncio
import contextlib
import socket
from typing import Protocol

from registry.core.errors import SizeInvalid, TooLarge
from registry.ports.blobs import Sink
from registry.server.chunks import ChunkDecoder

_PIECE = 1 << 20  # worth waking up for
_PATIENCE_S = 1.0  # for a good piece; a trickle is taken as it comes then
_EAGER_S = 0.002  # chunked: the end may be here already, smaller than a piece
_EAGER_FROM = 256 << 10  # a chunked sender that fast is worth waiting for pieces of
_CAREFUL = 64 << 10  # read at once from a sender of tiny chunks, whose framing keeps the loop busy
_TINY = 512

_NOTHING = memoryview(b"")

GONE = "the sender went away before the body was complete"
SILENT = "the sender was silent for too long"


class Wire:
    """The reading side of a socket that a transport of the same loop has stopped reading."""

    def __init__(self, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock.dup()  # a loop does not let a transport's own be watched
        self._watched = False
        self._waiting: asyncio.Future[bool] | None = None
        self._low = 1

    def want(self, count: int) -> None:
        """Ask to be woken only when `count` bytes are here."""
        if count != self._low:
            self._low = count
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    async def readable(self, timeout_s: float) -> bool:
        """Wait for bytes; False: what was wanted did not come in time, though some may have."""
        self._waiting = self._loop.create_future()
        if not self._watched:
            self._watched = True
            self._loop.add_reader(self._sock, self._wake, True)
        timer = self._loop.call_later(timeout_s, self._wake, False)
        try:
            return await self._waiting
        finally:
            self._waiting = None
            timer.cancel()

    def is_dry(self) -> bool:
        """Whether there is nothing to read, not even an end."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def read_into(self, view: memoryview) -> int | None:
        """Read what is here; 0: the sender has gone; None: nothing is here.

        Raises:
            SizeInvalid: the connection broke.
        """
        try:
            return self._sock.recv_into(view)
        except BlockingIOError:
            return None
        except OSError as error:
            raise SizeInvalid(GONE) from error

    def close(self) -> None:
        """Leave the socket as it was found."""
        if self._watched:
            self._loop.remove_reader(self._sock)
        with contextlib.suppress(OSError):  # closed under our hands
            self.want(1)
        self._sock.close()

    def _wake(self, ready: bool) -> None:
        if self._waiting is None:
            self._loop.remove_reader(self._sock)  # nobody looks now; the bytes stay where they are
            self._watched = False
        elif not self._waiting.done():
            self._waiting.set_result(ready)


class Framing(Protocol):
    """How the end of a body is found, and at what pace it is read."""

    leftover: bytes

    @property
    def done(self) -> bool:
        """Whether the body is complete."""

    def pace(self) -> tuple[int, float]:
        """How many bytes to be woken for, and after how long to look for fewer."""

    def room(self, view: memoryview) -> memoryview:
        """The part of a buffer that may be read into."""

    def took(self, view: memoryview, count: int, *, ready: bool) -> int:
        """`count` bytes were read into `view`: how many of payload are at its front now."""


class Counted:
    """A body whose length is known."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.leftover = b""

    @property
    def done(self) -> bool:
        """Whether the body is complete."""
        return self._left == 0

    def pace(self) -> tuple[int, float]:
        """A good piece, or the rest."""
        return min(_PIECE, self._left), _PATIENCE_S

    def room(self, view: memoryview) -> memoryview:
        """Never beyond the body's end."""
        return view[: self._left]

    def took(self, view: memoryview, count: int, *, ready: bool) -> int:
        """All of it is payload."""
        self._left -= count
        return count


class Chunked:
    """A body in chunks, whose end shows only when it is here."""

    def __init__(self) -> None:
        self._decoder = ChunkDecoder()
        self._fast = False
        self._payload = 0
        self.leftover = b""

    @property
    def done(self) -> bool:
        """Whether the body is complete."""
        return self._decoder.done

    def pace(self) -> tuple[int, float]:
        """A good piece of a fast sender, but not for long; of a slow one whatever comes."""
        return (_PIECE, _EAGER_S) if self._fast else (1, _PATIENCE_S)

    def room(self, view: memoryview) -> memoryview:
        """All of it, unless the chunks are tiny."""
        tiny = self._payload < _TINY * self._decoder.frames
        return view[:_CAREFUL] if tiny or not self._decoder.frames else view

    def took(self, view: memoryview, count: int, *, ready: bool) -> int:
        """Take the framing out."""
        self._fast = count >= _EAGER_FROM or (self._fast and ready)
        payload = self._decoder.decode(view, count)
        self._payload += payload
        self.leftover = self._decoder.leftover
        return payload


class Taken:
    """A body on its way from a socket into a sink."""

    def __init__(self, framing: Framing, sink: Sink, limit: int, idle_s: float) -> None:
        self._framing = framing
        self._sink = sink
        self._limit = limit
        self._idle_s = idle_s
        self._size = 0
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()

    async def run(self, sock: socket.socket, begun: bytes) -> int:
        """Feed the sink: `begun` first, which the transport had read, then from the socket.

        Raises:
            SizeInvalid: the sender went away or was silent for too long.
            RequestInvalid: chunked encoding is broken.
            TooLarge: more than the limit.
        """
        if begun:
            await self._begin(begun)
        if not self._framing.done:
            wire = Wire(sock)
            try:
                while not self._framing.done:
                    await self._more(wire)
            finally:
                wire.close()
        return self._size

    async def _begin(self, begun: bytes) -> None:
        view = memoryview(bytearray(begun))
        while view and not self._framing.done:
            part = self._framing.room(view)
            count = self._framing.took(part, len(part), ready=False)
            await self._sink.write(part[:count])
            self._count(count)
            view = view[len(part) :]
        self._framing.leftover += bytes(view)

    async def _more(self, wire: Wire) -> None:
        want, patience_s = self._framing.pace()
        wire.want(want)
        ready = await wire.readable(min(patience_s, self._idle_s))
        now = self._loop.time()
        if not ready and wire.is_dry():
            self._framing.took(_NOTHING, 0, ready=False)
            if now - self._heard >= self._idle_s:
                raise SizeInvalid(SILENT)
            return
        self._heard = now
        buffer = self._framing.room(await self._sink.borrow())
        payload = 0
        try:
            count = wire.read_into(buffer)
            if count == 0:
                raise SizeInvalid(GONE)
            payload = self._framing.took(buffer, count or 0, ready=ready)
        finally:
            await self._sink.fill(payload)
        self._count(payload)

    def _count(self, payload: int) -> None:
        self._size += payload
        if self._size > self._limit:
            raise TooLarge(f"blob is larger than the limit of {self._limit} bytes")
