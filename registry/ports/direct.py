"""The store's own address: clients read and write bytes there without passing through this service.

Every method that gives a URL gives one that is good for a single request on a single object, for a
limited time, and that carries nothing but the store's signature. Part of what an object store
offers besides `ports/blobs.py`; a folder offers none of it.

Bytes on their way in have a key, as those of `Incoming` have: `BlobStore` lets go of them by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from registry.core.digest import Digest
from registry.ports.blobs import Arrived


@dataclass(frozen=True, slots=True)
class SentPart:
    """A part as the store has it. `etag` names these very bytes: another upload changes it."""

    number: int
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Landed:
    """A complete object. `sha256` only if the store itself computed it of all the bytes."""

    size: int
    sha256: Digest | None


@dataclass(frozen=True, slots=True)
class DirectPut:
    """A URL to PUT a whole object to, with headers that must come with the request."""

    url: str
    headers: dict[str, str]


class Direct(Protocol):
    """What clients may do with the store by themselves, and how it is looked at afterwards.

    All but `address` raise Unavailable where the store does not answer.
    """

    @property
    def address(self) -> str:
        """`scheme://host[:port]` of the URLs."""

    @property
    def is_public(self) -> bool:
        """Whether clients are known to reach it: it was named for them, or is a public service."""

    async def read_url(self, storage_key: str, expires_s: int) -> str:
        """A URL to GET an object, or ranges of it."""

    async def begin(self) -> str:
        """Begin an object of parts; nobody can read it, or a part, yet. Returns its key."""

    async def part_url(self, key: str, number: int, size: int, expires_s: int) -> str:
        """A URL to PUT a part of just that size, as often as it takes."""

    async def parts(self, key: str) -> list[SentPart]:
        """The parts that are there, by number.

        Raises:
            UploadUnknown: there is no such object begun; it may have been completed.
        """

    async def complete(self, key: str, parts: Sequence[SentPart]) -> None:
        """Make one object of just these parts.

        Raises:
            Conflict: one of them was sent anew meanwhile.
            UploadUnknown: as for `parts`.
        """

    async def checks_sums(self) -> bool:
        """Whether the store refuses bytes that are not those of the checksum sent with them."""

    def new_key(self) -> str:
        """The key of an object that is to come whole."""

    async def put_url(self, key: str, digest: Digest, size: int, expires_s: int) -> DirectPut:
        """A URL to PUT a whole object, which the store takes only if its sha256 is `digest`."""

    async def landed(self, key: str) -> Landed | None:
        """The complete object, None if there is none."""

    def arrived(self, key: str, landed: Landed) -> Arrived:
        """An object's bytes on their way into the catalog.

        They are read back to hash them, unless the store vouches for the digest.
        """

    async def drop(self, key: str) -> None:
        """Delete the object, complete or not; absent is fine."""
