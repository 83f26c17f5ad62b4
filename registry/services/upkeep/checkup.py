"""A look at the library's own state: does what the rows say agree with what the store has?

It changes nothing and repairs nothing; each finding says what to do. Bytes are not hashed: that is
what scrub is for.
"""

import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

from registry.core.errors import RegistryError
from registry.ports.blobs import BlobStore
from registry.ports.catalog import Blob, Catalog, Reader
from registry.services.library.strays import Strays

Level = Literal["ok", "warning", "problem"]
_SAMPLES = 250
_EACH = 4
_PAGE = 1_000
_DAY_NS = 86_400 * 10**9
_MINUTE_NS = 60 * 10**9
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `advice` says what to do about it."""

    level: Level
    what: str
    advice: str = ""


class Checkup:
    """The use case. `clock` gives nanoseconds."""

    def __init__(self, catalog: Catalog, store: BlobStore, clock: Callable[[], int]) -> None:
        self._catalog = catalog
        self._store = store
        self._clock = clock

    async def run(self, *, deep: bool = False) -> AsyncIterator[Finding]:
        """Look at everything; `deep` at every blob instead of a thousand of them."""
        yield await self._writable()
        yield await self._rows(deep)
        if deep:
            yield await self._strays()
        async for finding in self._standing():
            yield finding

    async def _writable(self) -> Finding:
        try:
            await self._store.check()
        except RegistryError as error:
            return Finding("problem", f"the store cannot be written: {error}", "make it writable")
        return Finding("ok", "the store can be written")

    async def _rows(self, deep: bool) -> Finding:
        """Blobs that the catalog knows and the store has not, or has shorter or longer."""
        looked = 0
        lost: list[Blob] = []
        async for page in self._every_page() if deep else self._some_pages():
            for blob in page:
                looked += 1
                if not await self._is_there(blob):
                    lost.append(blob)
        whole = f"{looked} blobs" if deep else f"{looked} blobs, chosen at random,"
        if not lost:
            return Finding("ok", f"the bytes of {whole} are there" if looked else "no blobs yet")
        names = await self._catalog.scan(lambda tx: _users(tx, lost[:_NAMED]))
        return Finding(
            "problem",
            f"the bytes of {len(lost)} of {whole} are not in the store, among them those of "
            f"{', '.join(names) or 'no model'}",
            "push or pull these models again, or `registry restore` a backup with bytes",
        )

    async def _every_page(self) -> AsyncIterator[list[Blob]]:
        after = ""
        while page := await self._page(after, _PAGE):
            yield page
            after = str(page[-1].digest)

    async def _some_pages(self) -> AsyncIterator[list[Blob]]:
        """All of them if they are few, else some from all over."""
        first = await self._page("", _SAMPLES * _EACH)
        if len(first) < _SAMPLES * _EACH:
            yield first
            return
        for _ in range(_SAMPLES):
            yield await self._page(f"sha256:{secrets.token_hex(8)}", _EACH) or first[:_EACH]

    async def _page(self, after: str, limit: int) -> list[Blob]:
        return await self._catalog.scan(lambda tx: tx.blobs_after(after, limit))

    async def _is_there(self, blob: Blob) -> bool:
        if await self._store.exists(blob.storage_key) == blob.size:
            return True
        return await self._catalog.read(lambda tx: _is_waiting(tx, blob))

    async def _strays(self) -> Finding:
        """Bytes that no row knows: a crash leaves some, and the sweep takes them."""
        count = size = 0
        async for _, length in Strays(self._catalog, self._store).unknown(self._clock() - _DAY_NS):
            count, size = count + 1, size + length
        if not count:
            return Finding("ok", "the store has nothing old that the catalog does not know")
        return Finding(
            "warning",
            f"the store has {count} blobs ({size} bytes) of more than a day that the catalog does "
            "not know",
            "`registry gc` deletes them, or `registry doctor --rebuild` if the database was lost",
        )

    async def _standing(self) -> AsyncIterator[Finding]:
        now = self._clock()

        def look(tx: Reader) -> tuple[int, int, int, int]:
            suspects = tx.suspects("", _PAGE)
            stale = tx.upload_tally(now)
            newest = max((blob.used_at for blob in tx.blobs_after("", _PAGE)), default=0)
            return len(suspects), stale.count, tx.upload_tally().count, newest

        suspects, stale, uploads, newest = await self._catalog.scan(look)
        if suspects:
            advice = "`registry scrub --repair-from URL`, or push these models again"
            yield Finding("problem", f"{suspects} blobs were found to be damaged", advice)
        if stale:
            advice = "a running server ends them; if one runs, see its log"
            yield Finding("warning", f"{stale} of {uploads} uploads are past their end", advice)
        else:
            yield Finding("ok", f"{uploads} uploads are under way, none past its end")
        if newest > now + _MINUTE_NS:
            late = (newest - now) // 10**9
            yield Finding(
                "problem",
                f"rows were written {late} s in the future: this clock is behind, or another "
                "machine's was ahead",
                "keep the clocks of all machines by NTP: tokens, leases and grace go by them",
            )


def _is_waiting(tx: Reader, blob: Blob) -> bool:
    """Whether a blob's bytes are still rows, or it has been freed or moved since it was read."""
    found = tx.blob(blob.digest)
    return (
        found is None
        or found.storage_key != blob.storage_key
        or tx.content(blob.digest) is not None
    )


def _users(tx: Reader, blobs: list[Blob]) -> list[str]:
    names = {str(name) for blob in blobs for name in tx.blob_repositories(blob.digest, _NAMED)}
    return sorted(names)[:_NAMED]
