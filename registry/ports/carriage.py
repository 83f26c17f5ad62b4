"""What import takes models from, and what export writes them to."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from registry.core.digest import Digest
from registry.core.names import ModelName


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that a source has. `label` is what it is called there, which may be no name."""

    label: str
    name: ModelName | None
    body: bytes
    media_type: str | None = None
    modified_at: int | None = None  # ns since the epoch, where that is known


@dataclass(frozen=True, slots=True)
class Loan:
    """Bytes that were put among the store's incoming ones without being copied."""

    key: str
    size: int


class Source(Protocol):
    """Models in files that others made: nothing of it is believed.

    Every method raises `OperationFailed` for what cannot be read, with no path in its message but
    those of the source itself.
    """

    async def labels(self) -> list[str]:
        """What there is, in order."""

    async def offer(self, label: str) -> Offer:
        """One of them."""

    async def manifest(self, digest: Digest) -> bytes:
        """A manifest that an index refers to.

        Raises:
            BlobUnknown: it is not there.
            TooLarge: it is larger than any manifest.
        """

    async def lend(self, digest: Digest) -> Loan | None:
        """Have the store share a blob's file; None where that cannot be, or is not wanted."""

    def chunks(self, digest: Digest) -> AsyncIterator[bytes]:
        """The bytes of a blob, in pieces.

        Raises:
            BlobUnknown: it is not there.
        """

    def close(self) -> None:
        """Let go of it."""


class Target(Protocol):
    """Files that are written one after the other. Those that are there already may be skipped."""

    def has(self, path: str, size: int) -> bool:
        """Whether there is such a file already."""

    async def put(self, path: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        """Write a file whole, or not at all.

        Raises:
            StorageFull: no room for it.
        """

    async def finish(self) -> None:
        """Make everything durable and visible."""

    async def discard(self) -> None:
        """Take away what is not finished."""
