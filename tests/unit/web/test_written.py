"""Lists too long for memory over HTTP: as the short ones, bodies, conditions, rights and all."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.adapters.scratch_file import ScratchFile
from registry.core.access import Right
from registry.services.library import listing
from registry.services.library.listing import Written
from registry.settings import Limits
from registry.web.written import written_response
from tests.support.secured import Secured, basic, secured
from tests.support.serving import connected, serving

pytestmark = pytest.mark.anyio

_HEAD = b"%s / HTTP/1.1\r\nhost: x\r\n%s\r\n"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Secured]:
    async with secured(tmp_path / "data", credentials={"tries_per_minute": 1000}) as made:
        for name in ("alice", "stranger"):
            await made.user(name)
        await made.user("root", admin=True)
        await made.grant("user:alice", "team/*", Right.READ)
        yield made


@pytest.fixture(params=["fast", "h11"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def app(body: Written) -> Starlette:
    async def get(request: Request) -> Response:
        return written_response(request, body)

    return Starlette(routes=[Route("/", get)])


async def test_get_head_and_a_condition(tmp_path: Path, way: str) -> None:
    scratch = ScratchFile(tmp_path)
    content = bytes(range(256)) * 3000
    for start in range(0, len(content), 100_000):
        scratch.write(content[start : start + 100_000])
    assert list(tmp_path.iterdir()) == []  # it has no name
    body = Written(scratch, len(content), '"e"')
    limits = Limits.model_validate({})
    async with serving(app(body), limits, way) as port, connected(port) as client:
        await client.send(_HEAD % (b"GET", b""))
        answer = await client.answer()
        assert (answer.status, answer.headers["etag"], answer.body) == (200, '"e"', content)
        await client.send(_HEAD % (b"HEAD", b""))
        head = await client.answer(head=True)
        assert head.headers["content-length"] == answer.headers["content-length"]
        assert head.headers["content-type"] == "application/json; charset=utf-8"
        await client.send(_HEAD % (b"GET", b'if-none-match: "e"\r\n'))
        assert (await client.answer()).status == 304


class Endless:
    """A scratch that says how far it was read, and when reading ended."""

    def __init__(self) -> None:
        self.read = 0
        self.ended = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Nothing is written."""

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            while True:
                self.read += 1 << 18
                yield bytes(1 << 18)
                await asyncio.sleep(0)
        finally:
            self.ended.set()


async def test_it_is_read_as_the_client_takes_it_and_no_longer(way: str) -> None:
    scratch = Endless()
    limits = Limits.model_validate({})
    async with serving(app(Written(scratch, 1 << 40, '"e"')), limits, way) as port:
        async with connected(port) as client:
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(_HEAD % (b"GET", b""))
            await asyncio.sleep(0.5)
            had = scratch.read
            await asyncio.sleep(0.2)
            assert scratch.read == had < 32 << 20
            client.writer.transport.abort()
        await asyncio.wait_for(scratch.ended.wait(), 10)


@pytest.mark.parametrize("path", ["/api/tags", "/v1/models"])
async def test_every_caller_gets_what_a_short_list_gave(
    place: Secured, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = [{}, *({"authorization": basic(name)} for name in ("root", "alice", "stranger"))]
    root = callers[1]
    for name in ("team/llama", "team/other", "secret/model"):
        assert (await place.push(name, "1", name.encode(), **root)).status == 201
    short = [await place.ask("GET", path, **headers) for headers in callers]
    assert b"team/llama:1" in short[1].body
    assert len({answer.body for answer in short}) > 2
    monkeypatch.setattr(listing, "MOST_KEPT", 0)
    assert (await place.push("team/llama", "2", b"z", **root)).status == 201
    gone = json.dumps({"model": "team/llama:2"}).encode()
    assert (await place.ask("DELETE", "/api/delete", gone, **root)).status == 200
    assert await place.services.listing.written() is not None
    for headers, before in zip(callers, short, strict=True):
        answer = await place.ask("GET", path, **headers)
        assert (answer.status, answer.body) == (before.status, before.body)
        assert answer.headers["content-type"] == before.headers["content-type"]
