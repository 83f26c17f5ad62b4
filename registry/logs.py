"""Logging: structured lines, a request id, one line per request. Never a secret."""

import logging
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import orjson
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry import __version__

_QUIET = frozenset({"/healthz", "/readyz"})
_SERVER = (b"server", b"registry/" + __version__.encode())


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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


class AccessLog:
    """ASGI middleware: the request id and `Server` header, and one INFO line per request.

    The path is logged without its query, which may hold the signature of a direct URL. The line is
    written past structlog's processors: those would cost more than a cached answer does.
    """

    def __init__(self, app: ASGIApp, write: Callable[[Mapping[str, object]], None] | None) -> None:
        self._app = app
        self._write = write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        extra = ((b"x-request-id", request_id.encode()), _SERVER)
        began = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            if self._write is not None and scope["path"] not in _QUIET:
                self._write(
                    {
                        "method": scope["method"],
                        "path": scope["path"],
                        "status": status,
                        "ms": round((time.perf_counter() - began) * 1000, 1),
                        "client": (scope.get("client") or ("",))[0],
                        "id": request_id,
                    }
                )


def access_writer(level: str, *, json: bool) -> Callable[[Mapping[str, object]], None] | None:
    """What writes access lines in the format of `configure`; None if the level hides them."""
    if level not in {"debug", "info"}:
        return None

    def as_json(fields: Mapping[str, object]) -> None:
        line = {**fields, "event": "request", "level": "info", "timestamp": _now()}
        sys.stderr.write(orjson.dumps(line).decode() + "\n")

    def as_text(fields: Mapping[str, object]) -> None:
        text = " ".join(f"{key}={_safe(value)}" for key, value in fields.items())
        sys.stderr.write(f"{_now()} [info     ] request {text}\n")

    return as_json if json else as_text


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _safe(value: object) -> str:
    """A value that cannot forge a line: control characters are escaped."""
    text = str(value)
    return text if text.isprintable() else ascii(text)
