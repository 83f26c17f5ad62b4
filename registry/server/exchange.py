"""One request and its answer: where the extensions are served.

uvicorn's cycle keeps the state of an exchange; this stands between it and the application.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any, Protocol

from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from registry.server.extensions import LEAVING, ZERO_COPY
from registry.server.heads import header_lines
from registry.server.pieces import Pieces
from registry.server.zerocopy import FileSender

_CLOSE = (b"connection", b"close")  # else the client may use the connection again
_BODILESS = {204, 304}
_LINGER_S = 0.5  # as Go's own server waits


class Connection(Protocol):
    """What an exchange needs of the protocol."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    flow: FlowControl
    cycle: RequestResponseCycle
    sender: FileSender | None
    leave: Callable[[], None] | None
    idle_s: float
    drain_s: float

    def let_go(self) -> None:
        """Give the parser the bytes of the body that were held back."""

    def begin_draining(self) -> None:
        """Throw away what comes of the request's body."""

    @property
    def will_drain(self) -> bool:
        """Whether the whole body is known to be small enough for that."""

    @property
    def can_drain(self) -> bool:
        """Whether it is worth going on with that."""


class Exchange:
    """An ASGI application around the real one, for one request."""

    __slots__ = ("_app", "_connection", "_cycle", "_pieces", "_start", "_wait_for_body")

    def __init__(
        self, app: ASGI3Application, connection: Connection, cycle: RequestResponseCycle
    ) -> None:
        self._app = app
        self._connection = connection
        self._cycle = cycle
        self._start: Any = None  # of an answer, until its body's first message
        self._pieces: Pieces | None = None  # of a body of unknown length
        self._wait_for_body = True

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Run the application."""
        extended: Any = scope
        extended.setdefault("extensions", {})[LEAVING] = self._watch
        try:
            await self._app(scope, self._receive, self._send)
        finally:
            if self._pieces is not None:
                self._pieces.flush()

    def _watch(self, leave: Callable[[], None] | None) -> None:
        self._connection.leave = leave
        if leave is not None and self._cycle.disconnected:
            leave()

    async def _receive(self) -> Any:
        if self._start is not None:  # what the client does now may depend on the head
            start, self._start = self._start, None
            await self._cycle.send(start)
        if self._connection.cycle is self._cycle:
            self._connection.let_go()
        return await self._cycle.receive()

    async def _send(self, message: Any) -> None:
        cycle = self._cycle
        if message["type"] == "http.response.start" and not cycle.more_body:
            self._start = message
            return
        if self._start is not None:
            start, self._start = self._start, None
            if self._write_whole(start, message):
                return
            if not self._begin_pieces(start, message):
                await cycle.send(start)
        if message["type"] == ZERO_COPY:
            await self._zero_copy(message)
        elif self._pieces is not None:
            await self._write_piece(self._pieces, message)
        elif not cycle.more_body or cycle.disconnected:
            await cycle.send(message)
        else:
            await self._send_early(message)

    async def _send_early(self, message: Any) -> None:
        """Answer a request whose body was not read."""
        cycle = self._cycle
        if not cycle.response_started:
            if cycle.waiting_for_100_continue:  # the client has not begun, and now need not
                cycle.keep_alive = self._wait_for_body = False
            elif not self._connection.will_drain:
                message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
            await cycle.send(message)
        elif message.get("more_body", False) or not self._wait_for_body:
            await cycle.send(message)
        else:
            body = message.get("body", b"")
            await cycle.send({"type": "http.response.body", "body": body, "more_body": True})
            await self._drain()
            await cycle.send({"type": "http.response.body", "body": b"", "more_body": False})

    def _write_whole(self, start: Any, message: Any) -> bool:
        """Write an answer that is complete with its first body message; False if this one is not.

        Does what two calls of `cycle.send` do, but with one system call and one packet: half the
        cost of a small answer.
        """
        cycle = self._cycle
        if message.get("more_body", False) or message["type"] != "http.response.body":
            return False
        if cycle.disconnected or cycle.flow.write_paused or not cycle.keep_alive:
            return False
        body = message.get("body", b"")
        is_head = cycle.scope["method"] == "HEAD"
        headers = [*cycle.default_headers, *start["headers"]]
        head = _head(start["status"], headers, None if is_head else len(body))
        if head is None:
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        self._connection.transport.writelines([head] if is_head else [head, body])
        cycle.message_event.set()
        cycle.on_response()
        return True

    def _begin_pieces(self, start: Any, message: Any) -> bool:
        """Begin an answer of unknown length; False for what uvicorn's own way has to do."""
        cycle = self._cycle
        if message["type"] != "http.response.body" or not message.get("more_body", False):
            return False
        if cycle.scope["method"] == "HEAD" or start["status"] in _BODILESS:
            return False
        if cycle.disconnected or cycle.flow.write_paused or not cycle.keep_alive:
            return False
        headers = [*cycle.default_headers, *start.get("headers", ())]
        if any(name.lower() == b"content-length" for name, _ in headers):
            return False
        head = _head(start["status"], headers, None)
        if head is None:
            return False
        cycle.response_started = cycle.chunked_encoding = True
        cycle.waiting_for_100_continue = False
        connection = self._connection
        head = head[:-2] + b"transfer-encoding: chunked\r\n\r\n"
        self._pieces = Pieces(connection.loop, connection.transport, head)
        return True

    async def _write_piece(self, pieces: Pieces, message: Any) -> None:
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        last = not message.get("more_body", False)
        pieces.add(message.get("body", b""), last=last)
        if last:
            self._pieces = None
            cycle.response_complete = True
            cycle.message_event.set()
            cycle.on_response()

    async def _drain(self) -> None:
        """Let the client send the rest of a body that nobody wants, as far as that is bearable."""
        cycle, connection = self._cycle, self._connection
        connection.begin_draining()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(connection.drain_s):
                while cycle.more_body and not cycle.disconnected and connection.can_drain:
                    cycle.message_event.clear()
                    await cycle.message_event.wait()
        if not cycle.more_body:
            return
        cycle.keep_alive = False
        if not cycle.disconnected:
            # Go's client takes up to 50 ms from reading the answer to handing it on, and reports
            # a reset in between instead: so stop reading, and close only when it has had time.
            connection.flow.pause_reading()
            await asyncio.sleep(_LINGER_S)

    async def _zero_copy(self, message: Any) -> None:
        cycle = self._cycle
        if not cycle.response_started or cycle.response_complete:
            raise RuntimeError(f"{ZERO_COPY} outside of a response's body")
        file = message["file"]
        descriptor = file if isinstance(file, int) else file.fileno()
        offset, count = _extent(descriptor, message.get("offset"), message.get("count"))
        if count and cycle.scope["method"] != "HEAD":
            if not cycle.chunked_encoding:
                if count > cycle.expected_content_length:
                    raise RuntimeError("Response content longer than Content-Length")
                cycle.expected_content_length -= count
                await self._send_file(descriptor, offset, count)
            else:
                if self._pieces is not None:
                    self._pieces.flush()
                self._connection.transport.write(b"%x\r\n" % count)
                await self._send_file(descriptor, offset, count)
                self._connection.transport.write(b"\r\n")
        if not message.get("more_body", False):
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_file(self, descriptor: int, offset: int, count: int) -> None:
        """Send it behind what the transport still has; a client that goes ends it silently."""
        connection = self._connection
        await self._flush()
        if self._cycle.disconnected:
            return
        sock = connection.transport.get_extra_info("socket")
        sender = FileSender(sock, descriptor, offset, count)
        connection.sender = sender
        try:
            await sender.run(connection.idle_s)
        except (OSError, EOFError):  # what was promised cannot be kept: cut, so that it shows
            connection.transport.abort()
            self._cycle.disconnected = True
        finally:
            connection.sender = None

    async def _flush(self) -> None:
        """Wait until the transport's own buffer is empty: the file must come after it."""
        transport, flow = self._connection.transport, self._connection.flow
        await asyncio.sleep(0)  # uvloop writes at the end of a turn
        if transport.is_closing() or not transport.get_write_buffer_size():
            return
        transport.set_write_buffer_limits(high=0)
        try:
            while not self._cycle.disconnected and transport.get_write_buffer_size():
                await flow.drain()
                await asyncio.sleep(0 if flow.write_paused else 0.005)
        finally:
            transport.set_write_buffer_limits()


def _head(status: int, headers: list[tuple[bytes, bytes]], length: int | None) -> bytes | None:
    lines = header_lines(headers, length)
    return None if lines is None else STATUS_LINE[status] + lines + b"\r\n"


def _extent(descriptor: int, offset: int | None, count: int | None) -> tuple[int, int]:
    """Where to begin and how many bytes, where the message leaves it open."""
    if offset is None:
        offset = os.lseek(descriptor, 0, os.SEEK_CUR)
    if count is None:
        count = os.fstat(descriptor).st_size - offset
    return offset, count
