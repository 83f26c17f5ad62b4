"""Events as NDJSON, or the last of them as one JSON object.

The first event is drawn before the status line goes out, so that an early error has a true status;
a late one is the last line. Source: spec ollama-api 2.1, "Errors in streams".
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, assert_never

from starlette.responses import Response

from registry.core.errors import RegistryError
from registry.core.events import Advance, Count, Done, Event, Events, Status, Transfer
from registry.core.gojson import dumps
from registry.web.answers import json_response
from registry.web.leaving import LiveResponse
from registry.web.statuses import headers_of, status_of

NDJSON = "application/x-ndjson"


def as_json(event: Event) -> dict[str, Any]:
    """An event as clients see it. `completed` is left out while it is 0."""
    match event:
        case Transfer() | Advance():
            line = {"status": event.text, "digest": str(event.digest), "total": event.total}
            return line | ({"completed": event.completed} if event.completed else {})
        case Count():
            return {"status": event.text, "count": event.count, "size": event.size}
        case Status() | Done():
            return {"status": event.text}
        case _:
            assert_never(event)


async def respond(events: Events, *, stream: bool) -> Response:
    """Answer with the events as they come, or with the last one when all is done.

    Work that fails before its first event (or at all, without `stream`) has its error's status.
    """
    try:
        if not stream:
            return _object(as_json(await _last(events)))
        first = await anext(events)
    except RegistryError as error:
        await events.aclose()
        return failure(error)
    except BaseException:
        await events.aclose()
        raise
    return LiveResponse(_lines(first, events), headers={"content-type": NDJSON})


async def _last(events: Events) -> Event:
    last: Event = Done()
    async with aclosing(events):
        async for event in events:
            last = event
    return last


def _object(value: dict[str, Any], status: int = 200) -> Response:
    return json_response(value, status, "application/json")  # no charset, as recorded


def failure(error: RegistryError) -> Response:
    """The answer to work that failed before anything was sent."""
    response = _object({"error": str(error)}, status_of(error))
    response.headers.update(headers_of(error))
    return response


async def _lines(first: Event, rest: Events) -> AsyncIterator[bytes]:
    async with aclosing(rest):  # a client that leaves ends the service's work
        try:
            yield dumps(as_json(first)) + b"\n"
            async for event in rest:
                yield dumps(as_json(event)) + b"\n"
        except RegistryError as error:  # the status has gone out: the last line must tell
            yield dumps({"error": str(error)}) + b"\n"
