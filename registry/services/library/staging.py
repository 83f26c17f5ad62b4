"""Contents of our own making on their way into the catalog and the store, in one transaction.

    async with Staging(catalog, store) as staging:
        await staging.add(contents)
        await catalog.write(lambda tx: staging.commit(tx, now))

Small ones become rows, out of which `Filing` makes files: no file has to be synced before the
answer (ADR 0007), and whether one is here already is looked up in the transaction itself. Large
ones go through the store first, like any upload, and again if they are here already.
"""

from collections.abc import Mapping
from typing import Self

from registry.core.digest import Digest
from registry.ports.blobs import BlobStore, Incoming
from registry.ports.catalog import Catalog, Freed, Transaction
from registry.services.library.removal import delete_freed

SMALL = 256 << 10
"""Bytes up to which a content is kept as a row meanwhile: a license has 10 KiB."""


class Staging:
    """Contents that become blobs together."""

    def __init__(self, catalog: Catalog, store: BlobStore) -> None:
        self._catalog = catalog
        self._store = store
        self._small: list[tuple[Digest, str, bytes]] = []
        self._large: list[tuple[Digest, str, Incoming]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        for _, _, incoming in self._large:
            await incoming.discard()
        if kind is not None and self._large:  # published, and nobody else's blobs meanwhile
            freed = [Freed(digest, key) for digest, key, _ in self._large]
            await delete_freed(self._catalog, self._store, freed)

    async def add(self, contents: Mapping[Digest, bytes]) -> None:
        """Take contents in.

        Raises:
            StorageFull: no space for a large one.
        """
        for digest, content in contents.items():
            if len(content) <= SMALL:
                self._small.append((digest, self._store.new_key(digest), content))
            else:
                await self._publish(digest, content)

    async def _publish(self, digest: Digest, content: bytes) -> None:
        incoming = await self._store.create(len(content))
        try:
            await incoming.write(content)
            await incoming.seal()
            self._large.append((digest, await incoming.publish(digest), incoming))
        except BaseException:
            await incoming.discard()
            raise

    def commit(self, tx: Transaction, now: int) -> None:
        """Make them blobs, inside a transaction."""
        for digest, key, content in self._small:
            known = tx.blob(digest)
            if known is None or known.suspect:
                tx.put_content(tx.put_blob(digest, len(content), key, now), content)
        for digest, key, incoming in self._large:
            incoming.confirm()
            tx.put_blob(digest, incoming.size, key, now)
