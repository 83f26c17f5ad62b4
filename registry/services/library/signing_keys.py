"""The keys that sign direct URLs: shared by all replicas, replaced on demand.

They lie among the catalog's secrets, `direct-url` and then `direct-url-<number>`. The newest signs;
the one before it is still accepted, so that downloads that run are not cut. Rotating with `revoke`
skips a number: every URL that was given out is void.
"""

import secrets
from collections.abc import Callable

from registry.core.direct_url import SigningKey
from registry.ports.catalog import Catalog, Reader, Transaction

_MAX_ROTATIONS = 10_000
_KEPT_NS = 5 * 10**9  # for so long this process may not know that another one has rotated


class SigningKeys:
    """The key ring. One per process; `clock` gives nanoseconds."""

    def __init__(self, catalog: Catalog, clock: Callable[[], int]) -> None:
        self._catalog = catalog
        self._clock = clock
        self._ring: tuple[SigningKey, ...] = ()
        self._number = 0  # of the newest
        self._until = 0

    async def ring(self) -> tuple[SigningKey, ...]:
        """The accepted keys, at least one; the first is the one to sign with."""
        if self._clock() >= self._until or not self._ring:
            await self._load()
        return self._ring

    async def rotate(self, *, revoke: bool = False) -> None:
        """Begin a new key; with `revoke` what older ones signed is refused from now on.

        Other processes follow within seconds.
        """
        await self._load()

        def work(tx: Transaction) -> None:
            number = _newest(tx, self._number)
            for step in (1, 2) if revoke else (1,):
                tx.put_secret(_name(number + step), secrets.token_bytes(32))

        await self._catalog.write(work)
        await self._load()

    async def _load(self) -> None:
        found = await self._catalog.read(lambda tx: _ring(tx, self._number))
        if not found[1]:
            fresh = secrets.token_bytes(32)
            found = (0, [await self._catalog.write(lambda tx: tx.put_secret(_name(0), fresh))])
        known = {key.id: key for key in self._ring}
        keys = [SigningKey(secret) for secret in found[1]]
        self._number = found[0]
        self._ring = tuple(known.get(key.id, key) for key in keys)
        self._until = self._clock() + _KEPT_NS


def _name(number: int) -> str:
    return f"direct-url-{number}" if number else "direct-url"


def _newest(tx: Reader, known: int) -> int:
    """The number of the newest key, looked for from one that is known to be there."""
    for number in range(known, _MAX_ROTATIONS):
        if tx.secret(_name(number + 1)) is None:
            return number
    return _MAX_ROTATIONS


def _ring(tx: Reader, known: int) -> tuple[int, list[bytes]]:
    """That number, its secret and the one before; no secret at all at the very first start."""
    newest = _newest(tx, known)
    names = [_name(number) for number in (newest, newest - 1) if number >= 0]
    found = [tx.secret(name) for name in names]
    return newest, [secret for secret in found if secret is not None]
