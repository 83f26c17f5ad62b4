"""What follows a change: its files written, freed bytes deleted, leftovers swept.

Every duty is a row first (those of `Filing`, `freed`, an expired upload, a blob past its grace), so
that a crash between the transaction and the deed leaves the duty to the next start or sweep.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from registry.core.errors import OperationFailed, RegistryError
from registry.ports.blobs import BlobStore
from registry.ports.catalog import Catalog, Freed, Transaction
from registry.ports.folder import ModelsFolder
from registry.services.library.filing import Filing
from registry.services.library.removal import delete_freed
from registry.settings import Retention

_BATCH = 256
_NS = 1_000_000_000
_DAY_NS = 86_400 * _NS

log = structlog.get_logger()

Duty = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Swept:
    """What a step of the sweep freed: why it could go, how many it were, how many bytes."""

    reason: str
    count: int
    size: int


class Housekeeping:
    """Duties after changes. One per process; safe beside those of other processes."""

    def __init__(
        self,
        catalog: Catalog,
        store: BlobStore,
        folder: ModelsFolder,
        retention: Retention,
        clock: Callable[[], int],
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._filing = Filing(catalog, store, folder)
        self._retention = retention
        self._clock = clock
        self._poked = asyncio.Event()

    @property
    def prunes(self) -> bool:
        """Whether blobs go as soon as their last model is gone."""
        return self._retention.prune

    @property
    def undelete_ns(self) -> int:
        """How long a deleted model can be brought back; 0: it cannot."""
        return self._retention.undelete_s * _NS

    @property
    def lease_ns(self) -> int:
        """How long a blob is kept for a client that was told it is here."""
        return self._retention.lease_s * _NS

    async def settle(self, freed: Sequence[Freed]) -> None:
        """After a change of names: write its files; deleting bytes is left to `run`."""
        await self._filing.write()
        if freed:
            self._poked.set()

    async def recover(self) -> None:
        """Before anything is served: write the files that an earlier run left due."""
        await self._filing.recover()

    async def finish(self) -> None:
        """Wait for what goes on in the background; to be called before the catalog is closed."""
        await self._filing.finish()

    async def purge(self) -> int:
        """Delete freed bytes; return how many blobs. A blob that came back meanwhile is spared."""
        count = 0
        while freed := await self._catalog.read(lambda tx: tx.freed(_BATCH)):
            await self._filing.write()  # no tag file may outlive the blobs it names
            await delete_freed(self._catalog, self._store, freed)
            count += len(freed)
        return count

    async def sweep(self) -> None:
        """Free what outlived its grace: unused blobs, abandoned fetches, leftovers of crashes."""
        async with aclosing(self.sweeping()) as steps:
            async for _ in steps:
                pass

    async def sweeping(self, grace_s: int | None = None) -> AsyncGenerator[Swept, None]:
        """`sweep` step by step, perhaps with another grace; tells what went with each step."""
        now = self._clock()
        before = now - (self._retention.grace_s if grace_s is None else grace_s) * _NS
        while await self._catalog.write(lambda tx: tx.expire(now, _BATCH)):
            pass

        def free(tx: Transaction) -> Swept:
            sizes = {blob.digest: blob.size for blob in tx.unreferenced(before, now, _BATCH)}
            gone = tx.free(list(sizes), now)
            return Swept("unused", len(gone), sum(sizes[item.digest] for item in gone))

        while (step := await self._catalog.write(free)).count:
            yield step
        for fetch in await self._catalog.scan(lambda tx: tx.stale_fetches(before, _BATCH)):
            await self._catalog.write(lambda tx, d=fetch.digest: tx.delete_fetch(d))  # type: ignore[misc]
            await self._store.discard(fetch.storage_key)
            yield Swept("fetch", 1, sum(part.done for part in fetch.parts))
        kept = await self._catalog.scan(lambda tx: tx.incoming_keys())
        size = await self._store.sweep(kept, now - self._retention.leftover_s * _NS)
        yield Swept("leftover", 0, size)
        await self.purge()

    async def run(self, sweepers: Sequence[Duty] = (), daily: Sequence[Duty] = ()) -> None:
        """Purge when poked, sweep at the start and every `sweep_every_s`; until cancelled.

        `daily` duties are done at the start and once a day, or sooner if one failed.
        """
        swept_at = look_at = 0
        while True:
            self._poked.clear()
            now = self._clock()
            if now - swept_at >= self._retention.sweep_every_s * _NS:
                await self._try(self.sweep, *sweepers)
                swept_at = now
            if now >= look_at:
                well = await self._try(*daily)
                look_at = now + (_DAY_NS if well else self._retention.sweep_every_s * _NS)
            await self._try(self._filing.write, self.purge)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poked.wait(), self._retention.sweep_every_s)

    async def _try(self, *duties: Duty) -> bool:
        """Do them all; one that fails is logged and comes again. Whether all went well."""
        well = True
        for duty in duties:
            try:
                await duty()
            except RegistryError as error:
                well = False
                log.warning("housekeeping failed", duty=duty.__name__, error=str(error))
        return well


async def check_place(catalog: Catalog, *, in_folder: bool) -> None:
    """Look whether the catalog's blobs are where the settings say.

    Raises:
        OperationFailed: they are in the other kind of store.
    """
    for blob in await catalog.read(lambda tx: tx.blobs_after("", 1)):
        if in_folder != (blob.storage_key == blob.digest.file_name):
            place = "an object store" if in_folder else "the data folder"
            raise OperationFailed(
                f"the blobs of this database are in {place}, and REGISTRY_STORAGE_URL says "
                "otherwise: registry backup and restore move them"
            )
