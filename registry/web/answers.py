"""Answers as the Ollama API gives them: compact JSON, its content types, its times."""

import time
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from registry.core.gojson import dumps

JSON = "application/json; charset=utf-8"


def json_response(value: Any, status: int = 200, media_type: str = JSON) -> Response:
    """A JSON answer without a trailing newline. The media type is sent exactly as given."""
    return bytes_response(dumps(value), status, media_type)


def bytes_response(body: bytes, status: int = 200, media_type: str = JSON) -> Response:
    """An answer of bytes that are JSON already."""
    return Response(body, status, headers={"content-type": media_type})


def empty_response(status: int = 200) -> Response:
    """No body and no content type."""
    return Response(b"", status)


def rfc3339(ns: int) -> str:
    """A time in the server's zone, with up to nine fractional digits, trailing zeros trimmed."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    local = datetime.fromtimestamp(seconds, UTC).astimezone()
    text = local.strftime("%Y-%m-%dT%H:%M:%S")
    digits = f".{fraction:09d}".rstrip("0").rstrip(".")
    zone = local.strftime("%z")
    return text + digits + ("Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}")


def utc_now(ns: int) -> str:
    """The same in UTC, for `created_at`."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    digits = f".{fraction:09d}".rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + digits + "Z"
