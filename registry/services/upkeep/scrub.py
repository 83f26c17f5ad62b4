"""Scrub: reads blobs again and compares them with their digests; repairs those that are wrong.

A blob whose bytes are not those of its digest any more becomes suspect: it counts as absent for
whoever would send or fetch it, so that the next push or pull repairs it, and reading it is refused
with a sentence. Another registry that has it can be named to repair it at once.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

import structlog
from anyio import to_thread

from registry.core.digest import Digest
from registry.core.errors import BlobUnknown, OperationFailed, RegistryError, RequestInvalid
from registry.core.events import Advance, Done, Events, Status
from registry.core.names import RepositoryName
from registry.ports.blobs import BlobStore
from registry.ports.catalog import Blob, Catalog, Reader, Transaction
from registry.services.library.held import open_blob

_BATCH = 256
_SOURCES = 10
_TICK_BYTES = 64 << 20

log = structlog.get_logger()

Fetch = Callable[[RepositoryName, Digest, int], Awaitable[None]]
"""Gets a blob of that size from a repository of another registry and puts it into the store."""


@dataclass(frozen=True, slots=True)
class Subset:
    """The part `number` of `of` of all blobs, by their digests: parts are as good as equal."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> "Subset":
        """Read `2/7`. Behind the last part comes the first again: `9/7` is `2/7`.

        Raises:
            RequestInvalid: it is no part of a whole.
        """
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and len(text) <= 9):
            raise RequestInvalid(f"a subset is written as 2/7, not {text[:20]!r}")
        if not (int(number) and int(of)):
            raise RequestInvalid("parts are counted from 1")
        return cls((int(number) - 1) % int(of) + 1, int(of))

    def bounds(self) -> tuple[str, str]:
        """The digest texts between which its blobs lie, the first excluded."""
        edge = (1 << 32) * (self.number - 1) // self.of, (1 << 32) * self.number // self.of
        start = f"sha256:{edge[0]:08x}" if self.number > 1 else ""
        return start, f"sha256:{edge[1]:08x}" if self.number < self.of else "sha256:g"


@dataclass(slots=True)
class Findings:
    """What a scrub came upon so far. Sizes in bytes; `after` is how far it noted what it found."""

    blobs: int = 0
    size: int = 0
    damaged: int = 0
    repaired: int = 0
    after: str = ""

    @property
    def text(self) -> str:
        """A line about it."""
        return (
            f"{self.blobs} blobs read, {self.size} bytes: "
            f"{self.damaged} damaged, {self.repaired} repaired"
        )


@dataclass(frozen=True, slots=True)
class ScrubWish:
    """What is asked for. `rate`: bytes read in a second, 0 for as many as there can be."""

    subset: Subset = Subset()
    rate: int = 0
    only_suspect: bool = False


class Scrub:
    """The use case."""

    def __init__(self, catalog: Catalog, store: BlobStore, clock: Callable[[], int]) -> None:
        self._catalog = catalog
        self._store = store
        self._clock = clock

    async def run(
        self, wish: ScrubWish, fetch: Fetch | None = None, found: Findings | None = None
    ) -> Events:
        """Check all blobs of a subset; with `fetch`, repair those that are wrong.

        `found` is kept up to date meanwhile, and gone on from. A blob that comes or goes meanwhile
        is passed over.
        """
        found = Findings() if found is None else found
        after, until = wish.subset.bounds()
        after = max(after, found.after)
        while blobs := await self._some(wish, after, until):
            sound: list[Blob] = []
            for blob in blobs:
                damaged = found.damaged
                async with aclosing(self._check(blob, wish.rate, found, sound)) as events:
                    async for event in events:
                        yield event
                if fetch is not None and found.damaged > damaged:
                    yield await self._repair(blob, fetch, found)
            await self._note(sound)
            found.after = after = str(blobs[-1].digest)
            yield Status(found.text)
        yield Done()

    async def size_of(self, wish: ScrubWish) -> int:
        """How many bytes that will read, if that is known: all of them. 0: it is not."""
        if wish.only_suspect or wish.subset.of > 1:
            return 0
        return (await self._catalog.scan(lambda tx: tx.blob_tally())).size

    async def _some(self, wish: ScrubWish, after: str, until: str) -> list[Blob]:
        def work(tx: Reader) -> list[Blob]:
            if wish.only_suspect:
                known = [tx.blob(item.digest) for item in tx.suspects(after, _BATCH)]
                blobs = [blob for blob in known if blob is not None]
            else:
                blobs = tx.blobs_after(after, _BATCH)
            return [blob for blob in blobs if str(blob.digest) < until]

        return await self._catalog.scan(work)

    async def _check(self, blob: Blob, rate: int, found: Findings, sound: list[Blob]) -> Events:
        """Read a blob; add it to the sound ones, or note in the catalog that it is suspect."""
        began = asyncio.get_running_loop().time()
        hasher, read, told = hashlib.sha256(), 0, 0
        try:
            async with await open_blob(self._catalog, self._store, blob, damaged=True) as opened:
                async for chunk in opened.chunks(0, opened.size):
                    await to_thread.run_sync(hasher.update, chunk)
                    read += len(chunk)
                    if rate:
                        due = began + read / rate - asyncio.get_running_loop().time()
                        await asyncio.sleep(max(due, 0))
                    if read - told >= _TICK_BYTES:
                        told = read
                        yield Advance("checking", blob.digest, blob.size, min(read, blob.size))
        except BlobUnknown:
            read = -1
        except OperationFailed as error:  # the disk's fault or the store's: it may pass
            found.damaged += 1
            yield Status(f"not readable: {blob.digest} ({error})")
            return
        found.blobs += 1
        found.size += max(read, 0)
        now = self._clock()
        if read == blob.size and hasher.hexdigest() == blob.digest.hex:
            sound.append(blob)
        elif await self._catalog.write(lambda tx: _suspect(tx, blob, now)):
            found.damaged += 1
            log.warning("a blob is damaged", digest=str(blob.digest), missing=read < 0)
            yield Status(f"damaged: {blob.digest}{' (its bytes are gone)' if read < 0 else ''}")

    async def _note(self, blobs: list[Blob]) -> None:
        """Write down that they are sound."""
        now = self._clock()

        def work(tx: Transaction) -> None:
            for blob in blobs:
                tx.verified(blob.digest, blob.storage_key, now)

        await self._catalog.write(work)

    async def _repair(self, blob: Blob, fetch: Fetch, found: Findings) -> Status:
        names = await self._catalog.read(lambda tx: tx.blob_repositories(blob.digest, _SOURCES))
        reason = "no repository has it"
        for name in names:
            try:
                await fetch(name, blob.digest, blob.size)
            except RegistryError as error:
                reason = str(error)
            else:
                found.repaired += 1
                return Status(f"repaired: {blob.digest}")
        return Status(f"not repaired: {blob.digest} ({reason})")


def _suspect(tx: Transaction, blob: Blob, now: int) -> bool:
    """Note that it is; False if these bytes went meanwhile, or others came in their place.

    In a folder others have the same key: what was read then says nothing about a blob that was
    freed and has come again, or was suspect before and has been put.
    """
    known = tx.blob(blob.digest)
    if known is None or known != replace(blob, used_at=known.used_at):
        return False
    return tx.suspect(blob.digest, blob.storage_key, now)
