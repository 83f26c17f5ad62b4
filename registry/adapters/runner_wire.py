"""HTTP to a runner: one connection per request, over a Unix socket or loopback.

A runner is llama.cpp's server in a child process of ours. It closes a connection behind each
streamed answer, and a kept one holds one of its threads, which looks every 10 ms whether there is
anything to do.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from typing import cast

import httptools

from registry.adapters.replies import beginning
from registry.core.errors import WorkerLost

STALL_S = 600.0
"""No byte for so long: the engine hangs. A slow machine may be silent for minutes at a prompt."""
_HIGH = 1 << 18
_CONNECT_S = 10.0


class RunnerWire:
    """Requests to one runner. `address` is a socket's path, or a host and a port.

    `broken` is called when the runner is there no more for us: nobody listens, an answer broke off,
    or nothing came for too long.
    """

    def __init__(
        self,
        address: str | tuple[str, int],
        api_key: str,
        broken: Callable[[], None] = lambda: None,
        stall_s: float = STALL_S,
    ) -> None:
        self.address = address
        self._broken = broken
        self._stall_s = stall_s
        self._head = (
            f"Host: runner\r\nAuthorization: Bearer {api_key}\r\n"
            "Content-Type: application/json\r\nConnection: close\r\n"
        )

    async def send(self, method: str, path: str, body: bytes = b"") -> "RunnerReply":
        """Send a request; the reply is there when its status is.

        Raises:
            WorkerLost: nobody listens, or the connection broke before the status came.
        """
        reply = RunnerReply(asyncio.get_running_loop(), self._stall_s, self._broken)
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        request = head.encode() + body
        try:
            if isinstance(self.address, str):
                reply.write(await _over_socket(self.address, request, reply))
            else:
                await _over_network(self.address, reply)
                reply.write(request)
        except OSError as error:  # TimeoutError is one too
            self._broken()
            raise WorkerLost from error
        try:
            await reply.started()
        except BaseException:
            await reply.close()
            raise
        return reply


async def _over_network(address: tuple[str, int], reply: "RunnerReply") -> None:
    async with asyncio.timeout(_CONNECT_S):
        await asyncio.get_running_loop().create_connection(lambda: reply, *address)


async def _over_socket(path: str, request: bytes, reply: "RunnerReply") -> bytes:
    """Connect, and send what fits at once: the runner then works while we get ready to listen.

    What did not fit is returned. A Unix socket is connected without waiting, or refuses.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.setblocking(False)
        connection.connect(path)
        try:
            sent = connection.send(request)
        except BlockingIOError:
            sent = 0
        await asyncio.get_running_loop().create_unix_connection(lambda: reply, sock=connection)
    except BaseException:
        connection.close()
        raise
    return request[sent:]


class RunnerReply(asyncio.Protocol):
    """An answer while it arrives. Not more than some 256 KiB of it are held."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, stall_s: float, broken: Callable[[], None]
    ) -> None:
        self.status = 0
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._chunks: list[bytes] = []
        self._held = 0
        self._paused = False
        self._complete = False
        self._lost = False
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._stall_s = stall_s
        self._broken = broken
        self._seen = loop.time()
        self._watch = loop.call_later(stall_s, self._look)

    def write(self, data: bytes) -> None:
        """Send the request."""
        if self._transport is not None and data:
            self._transport.write(data)

    async def started(self) -> None:
        """Wait for the status.

        Raises:
            WorkerLost: it never came.
        """
        while not self.status:
            await self._wait()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives.

        Raises:
            WorkerLost: the connection broke before the body's end.
        """
        while True:
            if self._chunks:
                held = b"".join(self._chunks)
                self._chunks.clear()
                self._held = 0
                if self._paused and self._transport is not None:
                    self._paused = False
                    self._transport.resume_reading()
                yield held
            elif self._complete:
                return
            else:
                await self._wait()

    async def read(self, limit: int) -> bytes:
        """The whole body, of which no more than `limit` bytes are looked at.

        Raises:
            WorkerLost: as `chunks`.
        """
        return await beginning(self.chunks(), limit)

    async def close(self) -> None:
        """Let go; an answer that is not complete is stopped by it."""
        self._closed = True
        self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        if self._lost or self._closed:
            raise WorkerLost
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _look(self) -> None:
        silent = self._loop.time() - self._seen
        if silent < self._stall_s or self._paused:
            self._watch = self._loop.call_later(max(1.0, self._stall_s - silent), self._look)
            return
        self._give_up()

    def _give_up(self) -> None:
        """The answer will not be complete: tell who waits for it, and the runner's owner."""
        if not self._lost and not self._closed:
            self._lost = True
            self._broken()
        self._wake()

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of no class of asyncio

    def data_received(self, data: bytes) -> None:
        """Parse; read no further while too much is held."""
        self._seen = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._give_up()
        if self._held > _HIGH and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits is told, if the body's end had not come."""
        self._watch.cancel()
        if not self._complete:
            self._give_up()

    # --- what the parser calls

    def on_headers_complete(self) -> None:
        """The status is known."""
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        self._chunks.append(data)
        self._held += len(data)

    def on_message_complete(self) -> None:
        """The body ended where the runner meant it to."""
        self._complete = True
