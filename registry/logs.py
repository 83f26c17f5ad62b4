"""Logging: structured lines, a request id, one line per request. Never a secret."""

import asyncio
import contextlib
import logging
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TextIO, cast

import orjson
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.server.extensions import Quick, quick_of

_CODES = "/enrol/"  # what follows is a one-time code
_KEY = re.compile(r"hf_[A-Za-z0-9]{10,}")  # an API key that stands in a wrong place
_QUIET = frozenset({"/healthz", "/readyz"})
_LINK = ("/api/v1/link/calls/", "/api/v1/link/report")  # of workers: several for each request
_IDS_AT_ONCE = 256


class Access(NamedTuple):
    """What an access line tells."""

    method: str
    path: str
    status: int
    ms: float
    client: str
    id: str


class _StandardError:
    """Standard error as it is at the moment: loggers are kept, and it may be redirected later.

    A line that cannot be written (the disk of the log is full, its reader has gone) is lost, and
    what it tells of goes on.
    """

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


_STANDARD_ERROR = _StandardError()


def configure(level: str, *, json: bool) -> None:
    """Set up structlog, on standard error: JSON for machines, coloured lines for a terminal."""
    renderer: structlog.typing.Processor
    if json:
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _STANDARD_ERROR)),
        cache_logger_on_first_use=True,
    )


class AccessLog:
    """ASGI middleware: the request id, and one INFO line per request.

    The path is logged without its query, which may hold the signature of a direct URL. The line is
    written past structlog's processors: those would cost more than a cached answer does.
    """

    def __init__(self, app: ASGIApp, write: Callable[[Access], None] | None) -> None:
        self._app = app
        self._quick = quick_of(app)
        self._write = write
        self._ids = _request_ids()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = next(self._ids)
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = (b"x-request-id", request_id.encode())
                # a new message: this one may be kept to be sent again
                message = {**message, "headers": [*message.get("headers", ()), extra]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            self._tell(scope, status, began, request_id)

    def quick(self, scope: Scope) -> Quick | None:
        """See `quick_of`."""
        if self._quick is None:
            return None
        began = time.perf_counter()
        answer = self._quick(scope)
        if answer is None:
            return None
        request_id = next(self._ids)
        self._tell(scope, 200, began, request_id)
        lines = b"%bx-request-id: %b\r\n" % (answer.lines, request_id.encode())
        return Quick(lines, answer.body)

    def _tell(self, scope: Scope, status: int, began: float, request_id: str) -> None:
        path = scope["path"]
        if self._write is None or path in _QUIET or path.startswith(_LINK):
            return
        ms = round((time.perf_counter() - began) * 1000, 1)
        client = (scope.get("client") or ("",))[0]
        if _CODES in path:
            path = path.partition(_CODES)[0] + _CODES + "…"
        elif "hf_" in path:
            path = _KEY.sub("hf_…", path)
        self._write(Access(scope["method"], path, status, ms, client, request_id))


def access_writer(level: str, *, json: bool) -> Callable[[Access], None] | None:
    """What writes access lines in the format of `configure`; None if the level hides them."""
    if level not in {"debug", "info"}:
        return None
    word, now, lines = _as_json if json else _as_text, _Now(), _Lines()
    return lambda access: lines.add(word(access, now()))


def _as_json(access: Access, now: str) -> str:
    line = {**access._asdict(), "event": "request", "level": "info", "timestamp": now}
    return orjson.dumps(line).decode() + "\n"


def _as_text(access: Access, now: str) -> str:
    method, path, status, ms, client, request_id = access
    if not path.isprintable():  # control characters could forge a line
        path = ascii(path)
    return (
        f"{now} [info     ] request method={method} path={path} status={status} ms={ms} "
        f"client={client} id={request_id}\n"
    )


class _Lines:
    """Lines on their way to standard error: those of one turn of the event loop in one write."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._flush)
        self._lines.append(line)

    def _flush(self) -> None:
        text = "".join(self._lines)
        self._lines.clear()
        _STANDARD_ERROR.write(text)


class _Now:
    """The time in ISO 8601; all but the fraction is worded once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def __call__(self) -> str:
        second, fraction = divmod(time.time_ns() // 1000, 1_000_000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{fraction:06d}Z"


def _request_ids() -> Iterator[str]:
    """Random ids. The system is asked for many at once: each time would be a system call."""
    while True:
        text = secrets.token_hex(8 * _IDS_AT_ONCE)
        for start in range(0, len(text), 16):
            yield text[start : start + 16]
