"""Server-sent events: frames, and an answer streamed as them.

The first event of an answer is awaited before the status line goes out, so an early failure has a
true status; a late one is told by the writer's own error frame.

Source: WHATWG HTML, "Server-sent events"; spec ollama-api 19.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol

from starlette.requests import Request

from registry.core.errors import RegistryError
from registry.core.generation import Answer, AnswerEvent
from registry.core.gojson import dumps
from registry.web.leaving import LiveResponse, attended

_HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would collect the frames otherwise
}


class Frames(Protocol):
    """What writes the events of one answer; it may count them."""

    def write(self, event: AnswerEvent) -> bytes:
        """The frames of an event, maybe none; those of the last one end the stream."""
        ...

    def failed(self, error: RegistryError) -> bytes:
        """The frames that tell of a failure in the middle."""
        ...


def data_frame(value: Any) -> bytes:
    """A frame without a name."""
    return b"data: %b\n\n" % dumps(value)


def event_frame(name: str, value: Any) -> bytes:
    """A frame with a name."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), dumps(value))


async def stream(request: Request, answer: Answer, frames: Frames) -> LiveResponse:
    """Send an answer frame by frame; it is closed in every case, also when the client leaves.

    Raises:
        RegistryError: it failed before its first event.
    """
    try:
        first = await attended(request, _first(answer))
    except BaseException:
        await answer.aclose()
        raise
    return LiveResponse(_written(first, answer, frames), headers=_HEADERS)


async def _first(answer: Answer) -> AnswerEvent:
    return await anext(answer)


async def _written(first: AnswerEvent, rest: Answer, frames: Frames) -> AsyncIterator[bytes]:
    async with aclosing(rest):
        try:
            yield frames.write(first)
            async for event in rest:
                if written := frames.write(event):
                    yield written
        except RegistryError as error:  # the status has gone out: the stream must tell
            yield frames.failed(error)
