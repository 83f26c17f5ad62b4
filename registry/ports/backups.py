"""What a backup is made of: the rows of a database, and a place that keeps them and the bytes.

Both are for a command that runs alone: every method blocks, unless it is `async`.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from registry.core.digest import Digest
from registry.core.dump import Item, Summary


class Rows(Protocol):
    """All rows of a database."""

    def snapshot(self) -> AbstractContextManager[tuple[str, Iterator[Item]]]:
        """The schema's revision and every row, as they are at one moment.

        Raises:
            OperationFailed: there is no library in it.
            Unavailable: it cannot be read.
        """

    def check(self, schema: str, *, force: bool) -> None:
        """Find out whether `load` would be allowed to.

        Raises:
            Conflict: a server uses it, or it holds a library and this is not forced.
            OperationFailed: this version does not know the schema.
        """

    def load(self, schema: str, items: Iterable[Item], *, force: bool) -> None:
        """Replace everything by rows of that schema, and bring it up to date; all or nothing.

        Raises:
            Conflict, OperationFailed: as `check`; also rows that contradict each other.
            Unavailable: it cannot be written.
        """


class BackupPlace(Protocol):
    """Where a backup is kept: one database, and the blobs of it and of those before it."""

    def begin(self) -> None:
        """Make the place, for nobody else to look into.

        Raises:
            OperationFailed: it cannot be written.
        """

    def write_database(self, lines: Iterable[bytes]) -> tuple[str, str]:
        """Keep the lines of a dump; their file's name and its SHA-256 in hex."""

    def write_list(self, digests: Iterable[Digest]) -> None:
        """Keep the list of the database's blobs."""

    def read_list(self) -> Iterator[Digest]:
        """That list."""

    def finish(self, summary: Summary) -> None:
        """Make the new database the backup, and forget older ones."""

    def summary(self) -> Summary:
        """What the backup says of itself.

        Raises:
            OperationFailed: there is none, or it is of a later format.
        """

    def lines(self, summary: Summary) -> Iterator[bytes]:
        """The lines of the database.

        Raises:
            OperationFailed: the file is not what `summary` says.
        """

    def blob(self, digest: Digest) -> int | None:
        """The size of a blob that is kept; None if it is not."""

    def share(self, digest: Digest, path: str, *, link: bool) -> bool:
        """Keep the file at `path` without copying it: as a clone, or a second name with `link`.

        False where that cannot be.
        """

    async def put(self, digest: Digest, chunks: AsyncIterator[bytes]) -> None:
        """Keep a copy of a blob.

        Raises:
            DigestMismatch: the bytes are not those of `digest`; nothing is kept.
            StorageFull: no room.
        """

    def get(self, digest: Digest) -> AsyncIterator[bytes]:
        """The bytes of a blob that is kept."""
