"""Small bodies: what is larger, slower or broken off costs one clear error."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from registry.core.errors import RegistryError, SizeInvalid, TooLarge
from registry.web import reading
from registry.web.reading import read_bounded
from tests.support.asgi import Caller

pytestmark = pytest.mark.anyio


class Reader:
    """An application that reads up to nine bytes and keeps what came of it."""

    def __init__(self) -> None:
        self.read = b""
        self.error: RegistryError | None = None
        self.was_asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self.read = await read_bounded(Request(scope, self._counted(receive)), 9)
        except RegistryError as error:
            self.error = error
        await Response()(scope, receive, send)

    def _counted(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        async def counted() -> Message:
            self.was_asked += 1
            return await receive()

        return counted


@pytest.mark.parametrize("body", [b"", b"123456789", [b"1234", b"5678", b"9"]])
async def test_what_fits_is_read(body: bytes | list[bytes]) -> None:
    reader = Reader()
    await Caller(reader)("POST", "/", body)
    assert (reader.read, reader.error) == (b"".join([body] if isinstance(body, bytes) else body),
                                           None)  # fmt: skip


async def test_what_says_that_it_is_larger_is_not_read() -> None:
    reader = Reader()
    await Caller(reader)("POST", "/", b"1234567890")
    assert isinstance(reader.error, TooLarge)
    assert (str(reader.error), reader.was_asked) == ("request body larger than 9 bytes", 0)


@pytest.mark.parametrize("length", ["", "x", "-5", "9" * 30, "\u0661"])
async def test_what_turns_out_larger_is_read_no_further(length: str) -> None:
    reader = Reader()
    pieces = [b"12345"] * 100
    headers = {"content-length": length} if length else {}
    await Caller(reader, headers)("POST", "/", pieces)
    assert isinstance(reader.error, TooLarge)
    assert reader.was_asked == 2


async def test_a_sender_that_goes_away_or_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader()
    await Caller(reader)("POST", "/", [b"1"], breaks_off=True)
    assert (type(reader.error), str(reader.error)) == (SizeInvalid, "the client went away")
    monkeypatch.setattr(reading, "_SMALL_S", 0.01)

    async def never() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    request = Request({"type": "http", "method": "POST", "headers": []}, never)
    with pytest.raises(SizeInvalid, match="in time"):
        await read_bounded(request, 9)
