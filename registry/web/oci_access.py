"""What every `/v2/` handler starts from: the services, the caller's rights, the request's facts."""

import re
from dataclasses import dataclass
from enum import Enum

from starlette.requests import ClientDisconnect, Request

from registry.core.access import Right
from registry.core.challenge import repository_scope
from registry.core.errors import SizeInvalid, TooLarge
from registry.services import Services
from registry.web import auth
from registry.web.oci_paths import Target

_LENGTH = re.compile(r"[0-9]{1,19}")


def services(request: Request) -> Services:
    """The bundle that the application was built with."""
    bundle: Services = request.app.state.services
    return bundle


class Action(Enum):
    """What requests do with a repository: the right it needs, and what a token is asked for."""

    PULL = (Right.READ, ("pull",))
    PUSH = (Right.CREATE_TAG, ("pull", "push"))
    DELETE = (Right.DELETE, ("delete",))


PULL, PUSH, DELETE = Action.PULL, Action.PUSH, Action.DELETE


async def authorize(request: Request, target: Target, action: Action) -> None:
    """Let the request pass if its caller may do that with the target's repository.

    Raises:
        Unauthenticated, Denied: see `auth.authorize`.
    """
    right, words = action.value
    scope = repository_scope(target.name, *words)
    await auth.authorize(request, target.repository, right, scope)


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
