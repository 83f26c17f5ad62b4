"""The access log: one line per request, written once per turn of the event loop."""

import asyncio
import contextlib
import re
import sys
from collections.abc import Callable

import orjson
import pytest
import structlog
from starlette.types import Message, Receive, Scope, Send

from registry.logs import Access, AccessLog, access_writer, configure

pytestmark = pytest.mark.anyio

ACCESS = Access("GET", "/v2/a/tags/list", 200, 0.1, "127.0.0.1", "0123456789abcdef")


def writer(*, json: bool = False) -> Callable[[Access], None]:
    write = access_writer("info", json=json)
    assert write is not None
    return write


async def test_a_line_tells_all_and_has_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    writer()(ACCESS)
    await asyncio.sleep(0)
    line = capsys.readouterr().err
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \[info     \] request method=GET "
        r"path=/v2/a/tags/list status=200 ms=0\.1 client=127\.0\.0\.1 id=0123456789abcdef\n",
        line,
    )


async def test_json_lines_have_the_same_fields(capsys: pytest.CaptureFixture[str]) -> None:
    writer(json=True)(ACCESS)
    await asyncio.sleep(0)
    line = orjson.loads(capsys.readouterr().err)
    assert {key: line[key] for key in ACCESS._fields} == ACCESS._asdict()
    assert (line["event"], line["level"]) == ("request", "info")


async def test_a_path_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    writer()(ACCESS._replace(path="/x\n2026 [info] request"))
    await asyncio.sleep(0)
    assert capsys.readouterr().err.count("\n") == 1


async def test_lines_of_one_turn_keep_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    write = writer()
    for number in range(3):
        write(ACCESS._replace(path=f"/{number}"))
    assert capsys.readouterr().err == ""
    await asyncio.sleep(0)
    assert re.findall(r"path=/(\d)", capsys.readouterr().err) == ["0", "1", "2"]


async def test_a_log_that_cannot_be_written_fails_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        configure("info", json=True)
        structlog.get_logger().warning("housekeeping failed")
        writer()(ACCESS)
        await asyncio.sleep(0)
        monkeypatch.undo()
        structlog.reset_defaults()
        with contextlib.suppress(OSError):
            full.close()
    assert faults == []


@pytest.mark.parametrize("level", ["warning", "error"])
def test_a_higher_level_writes_none(level: str) -> None:
    assert access_writer(level, json=False) is None


async def test_each_request_gets_an_id_of_its_own_and_the_message_stays_as_it_was() -> None:
    start: Message = {"type": "http.response.start", "status": 204, "headers": [(b"a", b"b")]}
    sent: list[Message] = []
    lines: list[Access] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start)

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    log = AccessLog(app, lines.append)
    for _ in range(600):
        await log({"type": "http", "method": "GET", "path": "/"}, receive, send)
    ids = {dict(message["headers"])[b"x-request-id"] for message in sent}
    assert len(ids) == 600
    assert {line.id.encode() for line in lines} == ids
    assert start["headers"] == [(b"a", b"b")]


async def test_a_one_time_code_in_a_path_is_not_logged() -> None:
    lines: list[Access] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def nothing(*_: object) -> Message:
        return {"type": "http.request"}

    async def drop(message: Message) -> None:
        pass

    for path in ("/ui/enrol/SECRET", "/ui/keys"):
        scope = {"type": "http", "method": "GET", "path": path, "client": ("127.0.0.1", 1)}
        await AccessLog(app, lines.append)(scope, nothing, drop)
    assert [line.path for line in lines] == ["/ui/enrol/…", "/ui/keys"]
