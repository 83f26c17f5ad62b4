"""Answers as the Ollama API gives them: compact JSON, its content types, its times."""

import time
from functools import lru_cache
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
    date, zone = _local(seconds)
    return f"{date}.{fraction:09d}".rstrip("0") + zone if fraction else date + zone


@lru_cache(1024)  # models come many to a second, and in order
def _local(seconds: int) -> tuple[str, str]:
    local = time.localtime(seconds)
    # formatted by hand: strftime alone would take longer than all the rest of a list's entry
    date = (
        f"{local.tm_year:04d}-{local.tm_mon:02d}-{local.tm_mday:02d}"
        f"T{local.tm_hour:02d}:{local.tm_min:02d}:{local.tm_sec:02d}"
    )
    return date, _zone(local.tm_gmtoff)


def _zone(seconds: int) -> str:
    if not seconds:
        return "Z"
    hours, minutes = divmod(abs(seconds) // 60, 60)
    return f"{'-' if seconds < 0 else '+'}{hours:02d}:{minutes:02d}"


def utc_now(ns: int) -> str:
    """The same in UTC, for `created_at`."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    digits = f".{fraction:09d}".rstrip("0").rstrip(".")
    return f"{_utc(seconds)}{digits}Z"


@lru_cache(16)  # one second after the other, many frames in each
def _utc(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
