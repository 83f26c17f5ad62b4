"""Small blobs of our own making on their way into the store and one transaction.

    async with Staging(catalog, store) as staging:
        await staging.add(contents)
        await catalog.write(lambda tx: staging.commit(tx, now))

Contents that are here already are not written again, unless `everything` is asked for, which does
not depend on others keeping them until the transaction. Leaving the block without a commit deletes
what was added.
"""

from collections.abc import Mapping
from typing import Self

from registry.core.digest import Digest
from registry.ports.blobs import BlobStore, Small
from registry.ports.catalog import Catalog, Reader, Transaction


class Staging:
    """Contents that become blobs together."""

    def __init__(self, catalog: Catalog, store: BlobStore, *, everything: bool = False) -> None:
        self._everything = everything
        self._catalog = catalog
        self._store = store
        self._sizes: dict[Digest, int] = {}
        self._small: Small | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is not None and self._small is not None:
            await self._catalog.write(self._undo)

    def _undo(self, tx: Transaction) -> None:
        """Take published bytes back that nobody else made a blob of meanwhile."""
        for digest, key in self._small.keys.items() if self._small else ():
            if tx.blob(digest) is None:
                self._store.remove(key)

    async def add(self, contents: Mapping[Digest, bytes]) -> None:
        """Write those into the store that it does not have, or all if `everything` is wanted; once.

        Raises:
            StorageFull: no space for them.
        """

        def absent(tx: Reader) -> dict[Digest, bytes]:
            return {
                digest: content
                for digest, content in contents.items()
                if self._everything or tx.blob(digest) is None
            }

        new = await self._catalog.read(absent)
        if new:
            self._sizes = {digest: len(content) for digest, content in new.items()}
            self._small = self._store.small(new)
            await self._small.publish()

    def commit(self, tx: Transaction, now: int) -> None:
        """Make them blobs, inside a transaction."""
        if self._small is None:
            return
        self._small.confirm()
        for digest, key in self._small.keys.items():
            tx.put_blob(digest, self._sizes[digest], key, now)
