"""Work that ends when the client leaves: an answer that nobody waits for is not made."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from registry.core.errors import RequestInvalid
from registry.server.extensions import LEAVING

T = TypeVar("T")


class ClientLeft(RequestInvalid):
    """The client went away; nobody reads the answer, so its words matter little."""


async def attended(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, whose request's body was read; it is cancelled when the client goes away.

    Raises:
        ClientLeft: it did.
    """
    watch = request.scope.get("extensions", {}).get(LEAVING)
    task = asyncio.current_task()
    if watch is None or task is None:
        return await _attended(request, work)
    has_left = False

    def leave() -> None:
        nonlocal has_left
        has_left = True
        task.cancel()

    watch(leave)
    try:
        return await work
    except asyncio.CancelledError:
        if has_left and not task.uncancel():
            raise ClientLeft("request canceled") from None
        raise
    finally:
        watch(None)


async def _attended(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The same on a server that tells of it only to who asks: two tasks."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft("request canceled")
        return working.result()
    finally:
        gone.cancel()
        working.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class LiveResponse(StreamingResponse):
    """An answer that is sent while it is made, and not made on when the client has left."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with contextlib.suppress(ClientLeft):
            await attended(Request(scope, receive), self.stream_response(send))
