"""Small blobs of our own making on their way into the store and one transaction.

    async with Staging(catalog, store) as staging:
        await staging.add(digest, content)
        await catalog.write(lambda tx: staging.commit(tx, now))

Contents that are here already are not written again, unless `everything` is asked for, which does
not depend on others keeping them until the transaction. Leaving the block without a commit deletes
what was added.
"""

from typing import Self

from registry.core.digest import Digest
from registry.ports.blobs import BlobStore, Incoming
from registry.ports.catalog import Catalog, Transaction


class Staging:
    """Contents that become blobs together."""

    def __init__(self, catalog: Catalog, store: BlobStore, *, everything: bool = False) -> None:
        self._everything = everything
        self._catalog = catalog
        self._store = store
        self._added: list[tuple[Digest, int, str, Incoming]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            if kind is not None and self._added:
                await self._catalog.write(self._undo)
        finally:
            for _, _, _, incoming in self._added:
                await incoming.close()

    def _undo(self, tx: Transaction) -> None:
        """Take published bytes back that nobody else made a blob of meanwhile."""
        for digest, _, key, _ in self._added:
            if tx.blob(digest) is None:
                self._store.remove(key)

    async def add(self, digest: Digest, content: bytes) -> None:
        """Write `content` into the store, unless it has it and not `everything` is wanted.

        Raises:
            StorageFull: no space for it.
        """
        here = await self._catalog.read(lambda tx: tx.blob(digest))
        if here is not None and not self._everything:
            return
        incoming = await self._store.create(len(content))
        try:
            await incoming.write(content)
            await incoming.seal()
            key = await incoming.publish(digest)
        except BaseException:
            await incoming.discard()
            raise
        self._added.append((digest, len(content), key, incoming))

    def commit(self, tx: Transaction, now: int) -> None:
        """Make them blobs, inside a transaction."""
        for digest, size, key, incoming in self._added:
            incoming.confirm()
            tx.put_blob(digest, size, key, now)
