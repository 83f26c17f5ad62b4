"""What every handler starts from: the bundle of services, and a body that is small enough to hold.

Large bodies, those of blobs, go into the store piece by piece: `bodies.py`.
"""

import asyncio

from starlette.requests import ClientDisconnect, Request

from registry.core.errors import SizeInvalid, TooLarge
from registry.services import Services

_SMALL = 64 << 10
_SMALL_S = 30.0
_LARGE_S = 300.0
_DIGITS = 19


def services(request: Request) -> Services:
    """The bundle that the application was built with."""
    bundle: Services = request.app.state.services
    return bundle


async def read_bounded(request: Request, limit: int) -> bytes:
    """A whole body of at most `limit` bytes, in bounded memory and time.

    One that says at once that it is larger is not read.

    Raises:
        TooLarge: it is larger.
        SizeInvalid: the sender went away, or took longer than anybody needs for so much.
    """
    if _announced(request) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_SMALL_S if limit <= _SMALL else _LARGE_S):
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
    except ClientDisconnect as error:
        raise SizeInvalid("the client went away") from error
    except TimeoutError as error:
        raise SizeInvalid("the body did not come whole in time") from error
    return b"".join(parts)


async def read_json(request: Request) -> bytes:
    """The body of a JSON request: at most `limits.json_body_bytes`.

    Raises:
        TooLarge, SizeInvalid: see `read_bounded`.
    """
    return await read_bounded(request, services(request).settings.limits.json_body_bytes)


def _announced(request: Request) -> int:
    """What Content-Length says; 0 if nothing that is a number of bytes."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else 0


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"request body larger than {limit} bytes")
