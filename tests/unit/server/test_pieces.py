"""Bodies of unknown length: what is said in one turn arrives in one piece, and nothing waits."""

import asyncio
import socket

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.settings import Limits
from tests.support.serving import connected, serving

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def saying(*parts: bytes | asyncio.Event | Exception) -> ASGIApp:
    """An application that sends pieces, waits for events in between, or fails."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        for part in parts:
            if isinstance(part, asyncio.Event):
                await part.wait()
            elif isinstance(part, Exception):
                raise part
            else:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


async def test_pieces_of_one_turn_leave_with_the_head_in_one_write(limits: Limits) -> None:
    async with serving(saying(b"one", b"two"), limits) as port, connected(port) as client:
        for _ in range(2):  # the connection is kept
            await client.send(GET)
            head, _, body = (await client.reader.read(1 << 16)).partition(b"\r\n\r\n")
            assert b"x: y\r\ntransfer-encoding: chunked" in head
            assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


async def test_a_piece_does_not_wait_for_the_next(limits: Limits) -> None:
    later = asyncio.Event()
    app = saying(b"now", later, b"", b"then")
    async with serving(app, limits) as port, connected(port) as client:
        await client.send(GET)
        assert (await client.reader.read(1 << 16)).endswith(b"\r\n\r\n3\r\nnow\r\n")
        later.set()
        assert await client.reader.read(1 << 16) == b"4\r\nthen\r\n0\r\n\r\n"


async def test_what_was_said_before_a_failure_arrives(limits: Limits) -> None:
    app = saying(b"one", RuntimeError("and no more"))
    async with serving(app, limits) as port, connected(port) as client:
        await client.send(GET)
        assert (await client.reader.read()).endswith(b"3\r\none\r\n")


async def test_a_client_that_reads_slowly_is_waited_for(limits: Limits) -> None:
    piece, sent = bytes(1 << 16), [0]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(1, 1001):
            sent[0] = number
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    loop = asyncio.get_running_loop()
    async with serving(app, limits) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setblocking(False)
            await loop.sock_sendall(client, GET)
            await asyncio.sleep(0.3)
            assert 0 < sent[0] < 500
            left = 1000 << 16
            while left > 0:
                left -= len(await loop.sock_recv(client, 1 << 20))
