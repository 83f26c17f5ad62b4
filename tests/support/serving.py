"""A small application over a blob store, served in the test's loop, and a client of raw bytes."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.adapters.blobs_fs import FileBlobStore
from registry.core.digest import Digest
from registry.core.errors import RegistryError, RequestInvalid, TooLarge
from registry.server.extensions import TAKE_OVER, ZERO_COPY
from registry.server.protocol import LibraryProtocol
from registry.settings import Limits
from registry.web.bodies import request_body
from registry.web.files import BlobResponse

WAYS = ["fast", "plain", "h11"]
"""Our protocol; ours with its extensions passed over; another server."""


@dataclass
class Seen:
    """What the application noticed."""

    errors: list[BaseException] = field(default_factory=list)
    offers: list[bool] = field(default_factory=list)


def blob_app(store: FileBlobStore, limits: Limits, seen: Seen) -> ASGIApp:
    """POST /blobs/<digest>, GET /blobs/<digest>, POST /early, /size and /sleep."""

    async def post(request: Request) -> Response:
        seen.offers.append(TAKE_OVER in request.scope.get("extensions", {}))
        digest = Digest.parse(request.path_params["digest"])
        body = request_body(request, limits)
        try:
            incoming = await store.create(body.length)
            try:
                await incoming.receive(body)
                await incoming.publish(digest)
            finally:
                await incoming.discard()
        except asyncio.CancelledError as error:
            seen.errors.append(error)
            raise
        except RegistryError as error:
            seen.errors.append(error)
            return PlainTextResponse(str(error), _status(error))
        return Response(status_code=201)

    async def get(request: Request) -> Response:
        digest = Digest.parse(request.path_params["digest"])
        blob = await store.open(digest.file_name)
        return BlobResponse(blob, digest, probe="probe" in request.query_params)

    async def early(request: Request) -> Response:
        return PlainTextResponse("no", 403)

    async def size(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    async def sleep(request: Request) -> Response:
        await asyncio.sleep(float(request.query_params["s"]))
        return PlainTextResponse("slept")

    return Starlette(
        routes=[
            Route("/blobs/{digest}", post, methods=["POST"]),
            Route("/blobs/{digest}", get, methods=["GET"]),
            Route("/early", early, methods=["POST"]),
            Route("/size", size, methods=["POST", "GET"]),
            Route("/sleep", sleep),
        ]
    )


def _status(error: RegistryError) -> int:
    if isinstance(error, TooLarge):
        return 413
    return 400 if isinstance(error, RequestInvalid) else 507


def _without_extensions(app: ASGIApp) -> ASGIApp:
    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            extensions = scope.get("extensions") or {}
            left = {key: extensions[key] for key in extensions if key not in {TAKE_OVER, ZERO_COPY}}
            scope = {**scope, "extensions": left}
        await app(scope, receive, send)

    return wrapped


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    limits: Limits,
    way: str = "fast",
    tls: ssl.SSLContext | None = None,
    keep_alive_s: int = 20,
) -> AsyncIterator[int]:
    """Serve `app` on a free port, one of `WAYS`; with `tls` by HTTPS."""
    ours = LibraryProtocol.with_limits(limits)
    ours.drain_s = 0.2
    http: Any = "h11" if way == "h11" else ours
    config = uvicorn.Config(
        _without_extensions(app) if way == "plain" else app,
        port=0,
        http=http,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=keep_alive_s,
        ssl_context_factory=(lambda *_: tls) if tls else None,
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    await server.on_tick(0)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        await server.shutdown()


@dataclass
class Answer:
    """A parsed answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection on which a test writes what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: bytes, pause_s: float = 0.0) -> None:
        """Write the parts, each for itself."""
        for part in parts:
            self.writer.write(part)
            with contextlib.suppress(ConnectionError):
                await self.writer.drain()
            await asyncio.sleep(pause_s)

    async def answer(self, *, head: bool = False) -> Answer:
        """Read one answer; interim ones are passed over."""
        async with asyncio.timeout(20):
            while True:
                lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                status = int(lines[0].split(" ")[1])
                if status != 100:
                    break
            headers = {
                name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:-2])
            }
            if head or status in {204, 304}:
                return Answer(status, headers, b"")
            if headers.get("transfer-encoding") == "chunked":
                return Answer(status, headers, await self._chunks())
            body = await self.reader.readexactly(int(headers["content-length"]))
            return Answer(status, headers, body)

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return body

    async def is_closed(self) -> bool:
        """Whether the server has closed the connection; waits for it."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True


@contextlib.asynccontextmanager
async def connected(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    """A client; with `tls` by HTTPS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64 << 20, ssl=tls)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
