"""Events become NDJSON; the first error decides the status, a later one is the last line."""

import json

import pytest
from starlette.responses import StreamingResponse

from registry.core.digest import Digest
from registry.core.errors import OperationFailed, RequestInvalid
from registry.core.events import Done, Event, Events, Status, Transfer
from registry.web.streams import as_json, respond

pytestmark = pytest.mark.anyio

DIGEST = Digest.of(b"x")


class Source:
    """Events, then perhaps an error; remembers whether it was closed."""

    def __init__(self, *items: Event | Exception) -> None:
        self.items = items
        self.closed = False

    async def events(self) -> Events:
        try:
            for item in self.items:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed = True


async def lines(source: Source) -> list[dict[str, object]]:
    response = await respond(source.events(), stream=True)
    assert isinstance(response, StreamingResponse)
    assert response.headers["content-type"] == "application/x-ndjson"
    raw = b"".join([bytes(part) async for part in response.body_iterator])  # type: ignore[arg-type]
    return [json.loads(line) for line in raw.splitlines()]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Status("writing manifest"), {"status": "writing manifest"}),
        (Done(), {"status": "success"}),
        (
            Transfer("pulling", DIGEST, 10, 0),
            {"status": f"pulling {DIGEST.short}", "digest": str(DIGEST), "total": 10},
        ),
        (
            Transfer("pushing", DIGEST, 10, 4),
            {
                "status": f"pushing {DIGEST.short}",
                "digest": str(DIGEST),
                "total": 10,
                "completed": 4,
            },
        ),
    ],
)
def test_each_event_has_its_line(event: Event, expected: dict[str, object]) -> None:
    assert as_json(event) == expected


async def test_a_stream_is_one_object_per_line() -> None:
    source = Source(Status("a"), Done())
    assert await lines(source) == [{"status": "a"}, {"status": "success"}]
    assert source.closed


async def test_an_error_before_the_first_event_keeps_its_status() -> None:
    source = Source(RequestInvalid("unknown type"))
    response = await respond(source.events(), stream=True)
    assert (response.status_code, response.body) == (400, b'{"error":"unknown type"}')
    assert response.headers["content-type"] == "application/json"
    assert source.closed


async def test_a_later_error_is_the_last_line() -> None:
    assert await lines(Source(Status("a"), OperationFailed("disk on fire"))) == [
        {"status": "a"},
        {"error": "disk on fire"},
    ]


async def test_without_a_stream_the_last_event_is_the_answer() -> None:
    response = await respond(Source(Status("a"), Done()).events(), stream=False)
    assert response.body == b'{"status":"success"}'
    assert response.headers["content-type"] == "application/json"


async def test_without_a_stream_any_error_has_its_status() -> None:
    source = Source(Status("a"), OperationFailed("no"))
    response = await respond(source.events(), stream=False)
    assert (response.status_code, response.body) == (500, b'{"error":"no"}')
    assert source.closed


async def test_a_client_that_leaves_ends_the_work() -> None:
    source = Source(Status("a"), Status("b"), Done())
    response = await respond(source.events(), stream=True)
    assert isinstance(response, StreamingResponse)
    body = response.body_iterator
    await anext(aiter(body))
    await body.aclose()  # type: ignore[attr-defined]
    assert source.closed
