"""What long work reports: a stream of typed events, written by services, drawn by web and cli.

A stream ends with `Done`; a failure is an exception out of the generator, never an event.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from registry.core.digest import Digest


@dataclass(frozen=True, slots=True)
class Status:
    """A step was reached; `text` is one of the API's status texts."""

    text: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bytes of one blob on their way: `completed` of `total`, never falling back.

    `verb` is "pulling" or "pushing"; the status line is `<verb> <first 12 hex digits>`.
    """

    verb: str
    digest: Digest
    total: int
    completed: int

    @property
    def text(self) -> str:
        """The status text of the progress line."""
        return f"{self.verb} {self.digest.short}"


@dataclass(frozen=True, slots=True)
class Advance:
    """Work on a blob's content goes on: `completed` of `total` bytes, never falling back.

    `text` is the status of the step, `digest` that of what is worked on.
    """

    text: str
    digest: Digest
    total: int
    completed: int


@dataclass(frozen=True, slots=True)
class Count:
    """Work on many things goes on: so many of them so far, and their bytes together."""

    text: str
    count: int
    size: int


@dataclass(frozen=True, slots=True)
class Done:
    """The work is finished and its result visible: status `success`."""

    @property
    def text(self) -> str:
        """The status text of the last line."""
        return "success"


Event = Status | Transfer | Advance | Count | Done
Events = AsyncGenerator[Event, None]
