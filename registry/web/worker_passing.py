"""Requests of workers that are for another replica than the one that got them: passed on.

A worker keeps a line with each replica, all by the library's one address; which process a balancer
picks is chance. See ADR 0013.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from registry.core.errors import NotFound, UpstreamFailed, UpstreamUnreachable
from registry.ports.links import Passed, PassedReply
from registry.web.reading import services

REPLICA = "x-replica"
_PASSED = "x-replica-passed"
_KEPT = ("authorization", "content-type", "x-worker-session", REPLICA)
_SHOWN = ("content-type", "cache-control", "x-accel-buffering")


async def elsewhere(request: Request) -> Response | None:
    """The answer of the replica that the request names; None if that is this one.

    Raises:
        NotFound: there is no such replica (any more).
        UpstreamFailed: it cannot be reached.
    """
    wanted = request.headers.get(REPLICA, "")
    replicas = services(request).replicas
    if wanted in {"", replicas.id}:
        return None
    url = replicas.url_of(wanted)
    if not url or _PASSED in request.headers:
        raise NotFound("there is no such replica here (any more)")
    body = body_of(request) if request.method == "POST" else None
    return await _passed_on(request, url, Passed(request.method, _path(request), {}, body))


async def allowed_elsewhere(request: Request, path: str) -> bool:
    """Whether another replica answers a question of the worker with yes."""
    found = services(request)
    for id_ in found.replicas.ids()[1:]:
        url = found.replicas.url_of(id_)
        asked = Passed("GET", path, {**_headers(request), REPLICA: id_}, None)
        try:
            async with found.courier.send(url, asked) as reply:
                if reply.status == 204:
                    return True
        except UpstreamFailed:
            continue
    return False


async def body_of(request: Request) -> AsyncIterator[bytes]:
    """The body as it arrives; one that breaks off ends early."""
    try:
        async for part in request.stream():
            yield part
    except ClientDisconnect:
        return


async def _passed_on(request: Request, url: str, passed: Passed) -> Response:
    asked = Passed(passed.method, passed.path, _headers(request), passed.body)
    async with AsyncExitStack() as stack:
        try:
            reply = await stack.enter_async_context(services(request).courier.send(url, asked))
        except UpstreamUnreachable as error:
            raise UpstreamFailed("that replica cannot be reached from here") from error
        shown = {name: reply.header(name) for name in _SHOWN if reply.header(name)}
        shown["connection"] = "close"  # the next one may lead to the right process at once
        return StreamingResponse(_streamed(reply, stack.pop_all()), reply.status, shown)


async def _streamed(reply: PassedReply, stack: AsyncExitStack) -> AsyncGenerator[bytes, None]:
    """The body; where it breaks off it ends, and the worker opens another line."""
    async with stack:
        try:
            async for chunk in reply.chunks():
                yield chunk
        except UpstreamFailed:
            return


def _headers(request: Request) -> dict[str, str]:
    kept = {name: request.headers[name] for name in _KEPT if name in request.headers}
    return {**kept, _PASSED: "1"}


def _path(request: Request) -> str:
    return str(request.scope["path"])
