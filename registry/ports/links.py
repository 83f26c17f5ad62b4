"""Links: workers on other machines, which call the library and keep a line open to it.

The web edge brings what arrives; whoever keeps the links makes `Worker`s of them.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from registry.core.digest import Digest


@dataclass(frozen=True, slots=True)
class Member:
    """Who calls: a worker by the name it was enrolled with. `session` is one run of its process."""

    name: str
    session: str


@dataclass(frozen=True, slots=True)
class Passed:
    """A worker's request on its way to another replica."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: AsyncIterator[bytes] | None


class PassedReply(Protocol):
    """What that replica answers."""

    @property
    def status(self) -> int:
        """Its status."""
        ...

    def header(self, name: str) -> str:
        """A header, empty if there is none."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        ...


class Courier(Protocol):
    """Reaches other replicas."""

    def send(self, url: str, passed: Passed) -> AbstractAsyncContextManager[PassedReply]:
        """Ask the replica at a URL.

        Raises:
            UpstreamFailed: it cannot be reached, or the connection broke.
        """
        ...

    async def close(self) -> None:
        """Drop all connections."""
        ...


class WorkerLinks(Protocol):
    """All links of this process."""

    def open(self, member: Member) -> AsyncGenerator[bytes, None]:
        """What the worker is to be told, as lines, for as long as it listens.

        A second line of the same session takes over from the first, one of another session ends
        all that the former had.
        """
        ...

    async def answer(self, member: Member, call: str, body: AsyncIterator[bytes]) -> None:
        """What the worker answers to a call; a body that breaks off is an answer that broke off.

        Raises:
            NotFound: nobody waits for it (any more).
            RequestInvalid: it cannot be read.
        """
        ...

    def beat(self, member: Member, report: bytes) -> None:
        """A sign of life, with what the worker says of itself.

        Raises:
            Conflict: it has no line.
            RequestInvalid: the report cannot be read.
        """
        ...

    def may_read(self, member: Member, digest: Digest) -> bool:
        """Whether the worker was told to run a model with that blob, not long ago."""
        ...

    def let_read(self, member: Member, digest: Digest) -> None:
        """Another replica has told the worker to run a model with that blob."""
        ...

    def dismiss(self, name: str) -> None:
        """End a worker's link: it may be one no more."""
        ...

    def leave(self) -> None:
        """End each line as soon as nothing runs behind it: this process stops."""
        ...
