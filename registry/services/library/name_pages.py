"""Pages of repository names, of which a caller sees those that it may read."""

from collections.abc import Callable

from registry.core.names import RepositoryName
from registry.ports.catalog import Catalog, Reader

Readable = Callable[[RepositoryName], bool]
"""Whether the caller may read a repository."""

_SCANNED = 500  # names looked at in one read


async def page_of(
    catalog: Catalog, last: str, limit: int, readable: Readable | None = None
) -> tuple[list[RepositoryName], bool]:
    """Up to `limit` repositories after `last`, and whether there are more.

    With `readable`, only those of which it says yes.
    """
    found: list[RepositoryName] = []
    after = last.lower()
    step = limit + 1 if readable is None else _SCANNED
    while len(found) <= limit:
        some = await catalog.read(_after(after, step))
        found += some if readable is None else filter(readable, some)
        if len(some) < step:
            break
        after = some[-1].key
    return found[:limit], len(found) > limit


def _after(name: str, limit: int) -> Callable[[Reader], list[RepositoryName]]:
    return lambda tx: tx.repositories(name, limit)
