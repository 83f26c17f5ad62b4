"""Answers that leave from inside the protocol: as the ordinary ones, in order, and never old."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest
from starlette.types import Receive, Scope, Send

from registry.logs import Access, AccessLog
from registry.settings import Limits
from registry.web.guard import Guard
from registry.web.hot import Hot
from tests.support.serving import Client, connected, serving

pytestmark = pytest.mark.anyio

PATH = "/v2/a/manifests/b"


class Application:
    """Answers with the number of the call; `/slow` takes its time."""

    def __init__(self) -> None:
        self.version = 1
        self.calls = 0
        self.padding = 0
        self.lines: list[Access] = []
        hot = Hot(self.answer, lambda: self.version)
        self.whole = AccessLog(Guard(hot, [], check_host=True), self.lines.append)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        if scope["path"] == "/slow":
            await asyncio.sleep(0.1)
        body = b"%d" % self.calls + b" " * self.padding
        headers = [(b"content-length", b"%d" % len(body)), (b"ETag", b'"x"')]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def request(path: str = PATH, method: str = "GET", more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode()


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def app() -> Application:
    return Application()


@pytest.fixture
async def client(app: Application, limits: Limits) -> AsyncIterator[Client]:
    async with serving(app.whole, limits) as port, connected(port) as client:
        yield client


async def test_it_differs_from_the_ordinary_one_in_nothing_but_its_id(
    client: Client, app: Application
) -> None:
    await client.send(request())
    first = await client.answer()
    await client.send(request())
    again = await client.answer()
    ids = {first.headers.pop("x-request-id"), again.headers.pop("x-request-id")}
    assert first.headers.pop("date")
    assert again.headers.pop("date")
    assert (again.status, again.body) == (200, first.body)
    assert list(again.headers.items()) == list(first.headers.items())
    assert app.calls == 1
    assert {line.id for line in app.lines} == ids
    told = [(line.method, line.path, line.status, line.client) for line in app.lines]
    assert told == [("GET", PATH, 200, "127.0.0.1")] * 2


async def test_head_has_no_body(client: Client) -> None:
    for _ in range(3):
        await client.send(request(method="HEAD"))
        answer = await client.answer(head=True)
        assert answer.headers["content-length"] == "1"


async def test_after_a_write_the_answer_is_made_anew(client: Client, app: Application) -> None:
    for version in (1, 1, 2, 2, 3):
        app.version = version
        await client.send(request())
        assert (await client.answer()).body == b"%d" % version


async def test_quick_and_slow_ones_in_one_packet_are_answered_in_order(
    client: Client, app: Application
) -> None:
    await client.send(request())
    await client.answer()
    post = request("/v2/a", "POST", "Content-Length: 2\r\n") + b"hi"
    await client.send(request() * 2 + request("/slow") + request() + post + request())
    bodies = [(await client.answer()).body for _ in range(6)]
    assert bodies == [b"1", b"1", b"2", b"1", b"3", b"1"]
    await client.send(request()[:9], request()[9:], pause_s=0.05)
    assert (await client.answer()).body == b"1"


async def test_many_in_one_packet_all_get_their_answer(client: Client, app: Application) -> None:
    await client.send(request() * 500)
    assert {(await client.answer()).body for _ in range(500)} == {b"1"}
    assert len({line.id for line in app.lines}) == 500


async def test_a_client_that_does_not_read_fills_no_memory(
    app: Application, limits: Limits
) -> None:
    app.padding = 1_000_000
    async with serving(app.whole, limits) as port, connected(port) as client:
        await client.send(request())
        await client.answer()
        transport = cast("asyncio.Transport", client.writer.transport)
        transport.pause_reading()
        client.writer.write(request() * 200)
        await asyncio.sleep(0.2)
        assert len(app.lines) < 40
        transport.resume_reading()
        assert {len((await client.answer()).body) for _ in range(200)} == {1_000_001}


@pytest.mark.parametrize(
    ("asks", "closes"),
    [
        (request(more="Connection: close\r\n"), True),
        (request().replace(b"HTTP/1.1", b"HTTP/1.0"), True),
        (request(more="Content-Length: 2\r\n") + b"hi", False),
        (request(more="Transfer-Encoding: chunked\r\n") + b"2\r\nhi\r\n0\r\n\r\n", True),
        (request(more="Connection: upgrade\r\nUpgrade: h2c\r\n"), False),
    ],
)
async def test_unusual_requests_go_the_ordinary_way(
    client: Client, asks: bytes, closes: bool
) -> None:
    await client.send(request())
    await client.answer()
    await client.send(asks)
    assert (await client.answer()).body == b"1"
    if closes:
        assert await client.is_closed()
    else:
        await client.send(request())
        assert (await client.answer()).body == b"1"


@pytest.mark.parametrize(
    ("more", "status"),
    [("Origin: http://evil.example\r\n", 403), ("Host: evil.example\r\n", 403)],
)
async def test_the_guard_is_asked_first(client: Client, more: str, status: int) -> None:
    await client.send(request())
    await client.answer()
    await client.send(request(more=more))
    assert (await client.answer()).status == status


async def test_a_connection_with_quick_answers_only_is_kept(
    app: Application, limits: Limits
) -> None:
    async with serving(app.whole, limits) as port:
        async with connected(port) as client:
            await client.send(request())
            await client.answer()
        async with connected(port) as client:
            for _ in range(3):
                await client.send(request())
                assert (await client.answer()).body == b"1"
                await asyncio.sleep(limits.body_idle_s * 0.8)
            await client.send(b"GET /v2/")
            assert await client.is_closed()


async def test_a_slow_one_behind_it_outlasts_the_time_of_an_idle_connection(
    app: Application, limits: Limits
) -> None:
    async with serving(app.whole, limits, keep_alive_s=0) as port, connected(port) as client:
        await client.send(request())
        await client.answer()
        assert await client.is_closed()
    async with serving(app.whole, limits, keep_alive_s=0) as port, connected(port) as client:
        await client.send(request() + request("/slow"))
        assert [(await client.answer()).body for _ in range(2)] == [b"1", b"2"]
        assert await client.is_closed()
