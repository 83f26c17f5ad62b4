"""What every `/v2/` handler starts from: the services, the caller's rights, the request's facts."""

import re
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from registry.core.errors import SizeInvalid, TooLarge
from registry.core.names import RepositoryName
from registry.services import Services

PULL, PUSH, DELETE, CATALOG = "pull", "push", "delete", "catalog"

_LENGTH = re.compile(r"[0-9]{1,19}")


def services(request: Request) -> Services:
    """The bundle that the application was built with."""
    bundle: Services = request.app.state.services
    return bundle


async def authorize(request: Request, repository: RepositoryName | None, action: str) -> None:
    """Say whether the caller may do `action` (a constant of this module) on a repository.

    Everybody may do everything: the service has no accounts yet. This is the one place that
    changes with them.
    """


@dataclass(frozen=True, slots=True)
class Length:
    """How long the body of a request is: `size` None means that it comes in chunks."""

    size: int | None

    @classmethod
    def of(cls, request: Request) -> "Length":
        """Read it from the headers.

        Raises:
            SizeInvalid: a Content-Length that is no number.
        """
        text = request.headers.get("content-length")
        if text is None:
            return cls(None if "transfer-encoding" in request.headers else 0)
        if not _LENGTH.fullmatch(text):
            raise SizeInvalid("invalid Content-Length")
        return cls(int(text))


async def read_bounded(request: Request, limit: int) -> bytes:
    """A whole body of at most `limit` bytes.

    Raises:
        TooLarge: it is larger.
        SizeInvalid: the client went away.
    """
    if (Length.of(request).size or 0) > limit:
        raise TooLarge(f"the document is larger than {limit} bytes")
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > limit:
                raise TooLarge(f"the document is larger than {limit} bytes")
    except ClientDisconnect as error:
        raise SizeInvalid("the client went away") from error
    return bytes(body)


def has_etag(request: Request, etag: str) -> bool:
    """Whether If-None-Match names the tag: the client has what it asks for."""
    header = request.headers.get("if-none-match", "")
    known = (item.strip().removeprefix("W/") for item in header.split(","))
    return header.strip() == "*" or etag in known
