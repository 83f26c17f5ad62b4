"""What every `/v2/` handler starts from besides `reading.py`: rights, and the request's facts."""

import re
from dataclasses import dataclass
from enum import Enum

from starlette.requests import Request

from registry.core.access import Right
from registry.core.challenge import repository_scope
from registry.core.errors import SizeInvalid
from registry.web import auth
from registry.web.oci_paths import Target

_LENGTH = re.compile(r"[0-9]{1,19}")


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


def has_etag(request: Request, etag: str) -> bool:
    """Whether If-None-Match names the tag: the client has what it asks for."""
    header = request.headers.get("if-none-match", "")
    known = (item.strip().removeprefix("W/") for item in header.split(","))
    return header.strip() == "*" or etag in known
