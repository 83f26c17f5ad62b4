"""Models made out of stored files by work on their tensors: quantized, converted, joined.

One conversion per order in this process: who asks for one that is under way waits for it with the
others, and it ends when the last of them leaves. So many at once as the settings allow; the rest
wait for their turn. What comes out is a blob under a lease of each who waited; of one that failed
or was left nothing is kept.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from anyio import CancelScope

from registry.core.digest import Digest
from registry.core.errors import BlobUnknown, GgufInvalid, OperationFailed, TooLarge
from registry.core.facts import Facts
from registry.ports.blobs import Incoming
from registry.ports.catalog import Blob, Freed, Transaction
from registry.ports.tensors import Making, TensorJob, TensorWorkshop
from registry.services.gguf_facts import read_facts
from registry.services.manifests import Manifests
from registry.settings import Settings

_FILES = 512
"""All of them are open at once. The largest checkpoints have some 200."""
_LEASE_NS = 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made; equal orders make equal bytes. See `TensorJob` for the fields."""

    kind: Literal["gguf", "checkpoint", "adapter"]
    files: tuple[tuple[str, Digest], ...]
    target: str = ""
    canonical: bool = False
    options: str = "{}"  # as JSON

    @classmethod
    def of(cls, job: TensorJob, files: Mapping[str, Digest]) -> "Order":
        """The order for a job that has no files opened yet."""
        options = json.dumps(dict(job.options), sort_keys=True)
        return cls(job.kind, tuple(files.items()), job.target, job.canonical, options)

    @property
    def plain_options(self) -> dict[str, Any]:
        """The options as they were given."""
        return dict(json.loads(self.options))


@dataclass(frozen=True, slots=True)
class Converted:
    """What came out. `new` if its bytes were not here before."""

    blob: Blob
    facts: Facts
    warnings: tuple[str, ...] = ()
    new: bool = True


@dataclass(slots=True, eq=False)
class Conversion:
    """A conversion as one who waits for it sees it."""

    holders: set[str]
    task: "asyncio.Task[Converted]" = field(init=False)
    making: Making | None = None
    queued: bool = False  # others come first
    leaving: bool = False
    made: Digest | None = None  # once its bytes may be in the store
    new: bool = True
    taken: bool = False

    @property
    def done(self) -> int:
        """How many bytes of the sources have been dealt with."""
        return self.making.done if self.making else 0

    @property
    def total(self) -> int:
        """How many there are; 0 until that is known."""
        return self.making.total if self.making else 0

    @property
    def level(self) -> str:
        """What the sources are stored as, empty until that is known."""
        return self.making.level if self.making else ""

    async def wait(self, timeout_s: float) -> Converted | None:
        """Wait a while for what comes out.

        Raises:
            RegistryError: nothing will, and why.
        """
        await asyncio.wait({self.task}, timeout=timeout_s)
        if not self.task.done():
            return None
        found = await self.task
        self.taken = True
        return found


class Conversions:
    """The conversions of this process."""

    def __init__(self, manifests: Manifests, workshop: TensorWorkshop, settings: Settings) -> None:
        self._catalog = manifests.catalog
        self._store = manifests.store
        self._housekeeping = manifests.housekeeping
        self._clock = manifests.clock
        self._workshop = workshop
        self._limit = settings.limits.blob_bytes
        self._turns = asyncio.Semaphore(settings.conversion.jobs)
        self._running: dict[Order, Conversion] = {}

    @asynccontextmanager
    async def join(self, order: Order, holder: str) -> AsyncIterator[Conversion]:
        """Wait with others for what an order makes, or begin to make it; `holder` gets a lease.

        Leaving the block leaves the conversion.
        """
        while (conversion := self._running.get(order)) is not None and conversion.leaving:
            await asyncio.wait({conversion.task})
        if conversion is None or conversion.task.done():
            conversion = self._running[order] = Conversion({holder})
            conversion.task = asyncio.create_task(self._make(order, conversion))
        conversion.holders.add(holder)
        try:
            yield conversion
        finally:
            conversion.holders.discard(holder)
            if not conversion.holders:
                with CancelScope(shield=True):
                    await self._end(order, conversion, holder)

    async def _end(self, order: Order, conversion: Conversion, holder: str) -> None:
        """Stop a conversion that nobody waits for; what came out too late is deleted."""
        conversion.leaving = True
        conversion.task.cancel()
        await asyncio.wait({conversion.task})
        if conversion.made and not conversion.taken:
            await self.release(holder, drop=[conversion.made] if conversion.new else [])
        if not conversion.task.cancelled():
            conversion.task.exception()  # whoever waited was told; nobody is left to tell
        if self._running.get(order) is conversion:
            del self._running[order]

    async def release(self, holder: str, *, drop: list[Digest]) -> None:
        """Give up a holder's leases, and those blobs made for it that nothing came to need."""

        def work(tx: Transaction) -> list[Freed]:
            tx.release(holder)
            return tx.free(drop, self._clock())

        freed = await self._catalog.write(work)
        if freed:
            await self._housekeeping.settle(freed)

    async def _make(self, order: Order, conversion: Conversion) -> Converted:
        if len(order.files) > _FILES:
            raise OperationFailed(f"the model has {len(order.files)} files, more than {_FILES}")
        conversion.queued = self._turns.locked()
        async with self._turns, AsyncExitStack() as stack:
            conversion.queued = False
            files = [
                (name, await stack.enter_async_context(await self._store.open(key)))
                for name, key in await self._keys(order)
            ]
            job = TensorJob(order.kind, files, order.target, order.canonical, order.plain_options)
            making = await stack.enter_async_context(self._workshop.begin(job))
            conversion.making = making
            if making.size > self._limit:
                raise TooLarge(f"the model would have {making.size} bytes, more than {self._limit}")
            incoming = await self._store.create(making.size)
            try:
                await incoming.receive(making)
                return await self._publish(incoming, conversion)
            finally:
                await incoming.discard()

    async def _keys(self, order: Order) -> list[tuple[str, str]]:
        """The name and storage key of each file."""
        digests = {digest for _, digest in order.files}
        found = await self._catalog.read(lambda tx: {d: tx.blob(d) for d in digests})
        keys = []
        for name, digest in order.files:
            blob = found[digest]
            if blob is None:
                raise BlobUnknown(str(digest))
            keys.append((name, blob.storage_key))
        return keys

    async def _publish(self, incoming: Incoming, conversion: Conversion) -> Converted:
        digest = await incoming.seal()
        facts = await _checked_facts(incoming)
        conversion.new = await self._catalog.read(lambda tx: tx.blob(digest) is None)
        conversion.made = digest
        key = await incoming.publish(digest)
        now = self._clock()

        def work(tx: Transaction) -> Blob:
            incoming.confirm()
            blob = tx.put_blob(digest, incoming.size, key, now)
            for holder in conversion.holders:
                tx.lease([digest], holder, now + _LEASE_NS)
            return blob

        blob = await self._catalog.write(work)
        warnings = tuple(conversion.making.warnings) if conversion.making else ()
        return Converted(blob, facts, warnings, conversion.new)


async def _checked_facts(incoming: Incoming) -> Facts:
    """What came out, read as if somebody had sent it."""
    try:
        return await read_facts(incoming)
    except GgufInvalid as error:
        raise OperationFailed(f"the conversion came out wrong: {error}") from error
