"""Quotas: how many bytes the repositories of a namespace may take together.

Room is set aside while bytes arrive (`reserve`), asked for before a pull fetches any (`check`), and
taken in the transaction that gives a repository a blob; that one is what cannot be outwitted.
"""

from collections.abc import Sequence

from registry.core.digest import Digest
from registry.core.errors import NameInvalid, NotFound, RequestInvalid
from registry.core.names import RepositoryName
from registry.ports.catalog import Catalog
from registry.ports.transfers import Upload
from registry.ports.upkeep import Quota

_MOST = 1 << 62


async def set_aside(catalog: Catalog, upload: Upload, size: int) -> Upload:
    """Reserve `size` bytes in all for a session before it takes them; returns it as it is then.

    Raises:
        QuotaExceeded: they do not fit.
    """
    if size <= upload.reserved or not await catalog.read(lambda tx: tx.has_quotas()):
        return upload
    return await catalog.write(lambda tx: tx.reserve(upload, size))


class Quotas:
    """The use case."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def all(self) -> list[Quota]:
        """All quotas, by namespace."""
        return await self._catalog.scan(lambda tx: tx.quotas())

    async def set(self, namespace: str, size: int) -> Quota:
        """Let a namespace take so many bytes. One that takes more already can only shrink.

        Raises:
            RequestInvalid: no namespace is called so, or the size is out of range.
        """
        if not 0 <= size <= _MOST:
            raise RequestInvalid("a quota is a number of bytes")
        try:
            path = RepositoryName.parse(f"{namespace}/x").path
        except NameInvalid as error:
            raise RequestInvalid(f"invalid namespace: {namespace[:100]!r}") from error
        namespace = path.removesuffix("/x")
        return await self._catalog.write(lambda tx: tx.put_quota(namespace, size))

    async def remove(self, namespace: str) -> None:
        """Let a namespace take what it likes.

        Raises:
            NotFound: it has no quota.
        """
        if not await self._catalog.write(lambda tx: tx.delete_quota(namespace)):
            raise NotFound(f"there is no quota of {namespace[:100]!r}")

    async def check(self, name: RepositoryName, blobs: Sequence[tuple[Digest, int]]) -> None:
        """Let pass what fits: digests and sizes that are to come into a repository.

        Raises:
            QuotaExceeded: they do not fit.
        """
        await self._catalog.scan(lambda tx: tx.check_room(name, blobs))
