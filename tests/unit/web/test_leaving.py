"""Work ends when its client leaves, on our server and on others."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from registry.settings import Limits
from registry.web.leaving import ClientLeft, LiveResponse, attended
from tests.support.serving import connected, serving

pytestmark = pytest.mark.anyio

LIMITS = Limits.model_validate({})


@pytest.fixture(params=["fast", "h11"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Work:
    """Says how it ended."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        self.left: list[BaseException] = []

    async def work(self, seconds: float) -> str:
        self.began.set()
        try:
            await asyncio.sleep(seconds)
        finally:
            self.ended.set()
        return "done"

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        yield b"begun"
        yield (await self.work(60)).encode()

    def app(self) -> Starlette:
        async def whole(request: Request) -> Response:
            await request.body()
            try:
                text = await attended(request, self.work(float(request.query_params["s"])))
            except ClientLeft as error:
                self.left.append(error)
                raise
            return PlainTextResponse(text)

        async def stream(request: Request) -> Response:
            return LiveResponse(self.pieces())

        return Starlette(routes=[Route("/whole", whole), Route("/stream", stream)])


async def test_work_whose_client_stays_is_finished(way: str) -> None:
    async with serving(Work().app(), LIMITS, way) as port, connected(port) as client:
        for _ in range(2):
            await client.send(b"GET /whole?s=0.01 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.answer()).body == b"done"


@pytest.mark.parametrize("path", ["/whole?s=60", "/stream"])
async def test_work_whose_client_leaves_is_ended(way: str, path: str) -> None:
    work = Work()
    async with serving(work.app(), LIMITS, way) as port:
        async with connected(port) as client:
            await client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await asyncio.wait_for(work.began.wait(), 5)
        await asyncio.wait_for(work.ended.wait(), 5)
        await asyncio.sleep(0.05)
    assert len(work.left) == (path != "/stream")


async def test_other_cancellations_are_not_taken_for_it(way: str) -> None:
    seen: list[str] = []

    async def handler(request: Request) -> Response:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(0.05, task.cancel)
        try:
            await attended(request, asyncio.sleep(60))
        except asyncio.CancelledError:
            seen.append("cancelled")
            task.uncancel()
        return PlainTextResponse("here")

    app = Starlette(routes=[Route("/", handler)])
    async with serving(app, LIMITS, way) as port, connected(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.answer()).body == b"here"
    assert seen == ["cancelled"]
