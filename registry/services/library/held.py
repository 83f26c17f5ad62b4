"""Opening a blob whose bytes the store may not have yet: the catalog holds them until it does."""

from collections.abc import AsyncIterator
from typing import Self

from registry.core.errors import BlobDamaged, BlobUnknown
from registry.ports.blobs import BlobStore, Opened
from registry.ports.catalog import Blob, Catalog


class Held:
    """A small blob in memory, opened for reading."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size(self) -> int:
        """Length of the blob in bytes."""
        return len(self._content)

    def fileno(self) -> int | None:
        """None: there is no file."""
        return None

    async def read(self, start: int, stop: int) -> bytes:
        """The bytes `[start, stop)`."""
        return self._content[start:stop]

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """The same in one piece."""
        yield self._content[start:stop]

    async def close(self) -> None:
        """Nothing to let go of."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


async def open_blob(
    catalog: Catalog, store: BlobStore, blob: Blob, *, damaged: bool = False
) -> Opened:
    """Open a blob, wherever its bytes are; one that is `damaged` only if that is asked for.

    Raises:
        BlobUnknown: they are nowhere.
        BlobDamaged: they were found to be wrong.
    """
    if blob.suspect and not damaged:
        raise BlobDamaged(str(blob.digest))
    try:
        return await store.open(blob.storage_key)
    except BlobUnknown:
        content = await catalog.read(lambda tx: tx.content(blob.digest))
        if content is None:
            return await store.open(blob.storage_key)  # written since, and the row forgotten
        return Held(content)
