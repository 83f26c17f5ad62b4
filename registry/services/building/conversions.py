"""Models made out of stored files by work on their tensors: quantized, converted, joined.

One conversion per order: who asks for one that is under way waits for it with the others, and it
ends when the last of them leaves (`sharing.py`). A process does so many at once as the settings
allow; the rest wait for their turn. What goes in and what comes out is under a lease of each who
waits; of one that failed or was left nothing is kept.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from anyio import CancelScope

from registry.core.digest import Digest
from registry.core.errors import BlobUnknown, GgufInvalid, OperationFailed, TooLarge
from registry.core.facts import Facts
from registry.ports.blobs import Incoming, Opened
from registry.ports.catalog import Blob, Freed, Transaction
from registry.ports.tensors import Kind, TensorJob, TensorWorkshop
from registry.services.library.gguf_facts import read_facts
from registry.services.library.manifests import Manifests
from registry.services.sharing.efforts import Asking, Effort, Progress, What
from registry.services.sharing.sharing import Share, Sharing
from registry.settings import Settings

_FILES = 512
"""All of them are open at once. The largest checkpoints have some 200."""
_LEASE_NS = 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made; equal orders make equal bytes. See `TensorJob` for the fields."""

    kind: Kind
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
    def what(self) -> What:
        """The order as a piece of work; equal ones have equal keys."""
        files = [[name, str(digest)] for name, digest in self.files]
        text = json.dumps([self.kind, files, self.target, self.canonical, self.options])
        kind = "quantize" if self.target else "convert"
        title = f"{kind} to {self.target}" if self.target else f"{kind} {self.kind}"
        return What(kind, f"{kind} {hashlib.sha256(text.encode()).hexdigest()}", title)

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


class Conversion:
    """A conversion as one who waits for it sees it."""

    def __init__(self, share: Share, take: Callable[[str], Awaitable[Converted]]) -> None:
        self._share = share
        self._take = take

    @property
    def progress(self) -> Progress:
        """How much of the sources has been dealt with; `note`: what they are stored as."""
        return self._share.progress

    async def wait(self, timeout_s: float) -> Converted | None:
        """Wait a while for what comes out.

        Raises:
            RegistryError: nothing will, and why.
        """
        result = await self._share.wait(timeout_s)
        return None if result is None else await self._take(result)


class Conversions:
    """Conversions that are done here, or by another process for those who wait here."""

    def __init__(
        self,
        manifests: Manifests,
        sharing: Sharing,
        workshop: TensorWorkshop,
        settings: Settings,
    ) -> None:
        self._catalog = manifests.catalog
        self._store = manifests.store
        self._housekeeping = manifests.housekeeping
        self._clock = manifests.clock
        self._sharing = sharing
        self._workshop = workshop
        self._limit = settings.limits.blob_bytes
        self._turns = asyncio.Semaphore(settings.conversion.jobs)

    @asynccontextmanager
    async def join(self, order: Order, asking: Asking) -> AsyncIterator[Conversion]:
        """Wait with others for what an order makes, or begin to make it; who asks gets a lease.

        Leaving the block leaves the conversion.
        """
        outcome = _Outcome()
        needs = sorted({digest for _, digest in order.files}, key=str)
        take = partial(self._taken, asking.holder, outcome)
        try:
            work = partial(self._make, order, outcome)
            async with self._sharing.join(order.what, replace(asking, needs=needs), work) as share:
                yield Conversion(share, take)
        finally:
            if outcome.made and not outcome.taken:
                drop = [outcome.made] if outcome.new else []
                with CancelScope(shield=True):
                    await self.release(asking.holder, drop=drop)

    async def release(self, holder: str, *, drop: list[Digest]) -> None:
        """Give up a holder's leases, and those blobs made for it that nothing came to need."""

        def work(tx: Transaction) -> list[Freed]:
            tx.release(holder)
            return tx.free(drop, self._clock())

        freed = await self._catalog.write(work)
        if freed:
            await self._housekeeping.settle(freed)

    async def _make(self, order: Order, outcome: "_Outcome", effort: Effort) -> str:
        if len(order.files) > _FILES:
            raise OperationFailed(f"the model has {len(order.files)} files, more than {_FILES}")
        effort.look = lambda: Progress(queued=True)
        async with self._turns, AsyncExitStack() as stack:
            effort.look = Progress
            files = [
                (name, await stack.enter_async_context(await self._store.open(key)))
                for name, key in await self._keys(order)
            ]
            digests = [digest for _, digest in order.files]
            job = TensorJob(
                order.kind, files, order.target, order.canonical, order.plain_options, digests
            )
            making = await stack.enter_async_context(self._workshop.begin(job))
            effort.look = lambda: Progress(making.done, making.total, making.level)
            if making.size > self._limit:
                raise TooLarge(f"the model would have {making.size} bytes, more than {self._limit}")
            incoming = await self._store.create(making.size)
            try:
                await incoming.receive(making)
                outcome.warnings = tuple(making.warnings)
                return await self._publish(incoming, outcome, effort)
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

    async def _publish(self, incoming: Incoming, outcome: "_Outcome", effort: Effort) -> str:
        digest = await incoming.seal()
        await _checked_facts(incoming)
        outcome.new = await self._catalog.read(lambda tx: tx.blob(digest) is None)
        outcome.made = digest
        key = await incoming.publish(digest)
        result = outcome.to_json()
        now = self._clock()

        def work(tx: Transaction) -> None:
            incoming.confirm()
            tx.put_blob(digest, incoming.size, key, now)
            for holder in effort.conclude(tx, result):
                tx.lease([digest], holder, now + _LEASE_NS)

        await self._catalog.write(work)
        return result

    async def _taken(self, holder: str, outcome: "_Outcome", result: str) -> Converted:
        """What came out, wherever it was made, under a lease of the holder."""
        outcome.taken = True
        outcome = _Outcome.of_json(result)
        digest = outcome.made
        assert digest is not None
        until = self._clock() + _LEASE_NS

        def work(tx: Transaction) -> Blob | None:
            tx.lease([digest], holder, until)
            return tx.blob(digest)

        blob = await self._catalog.write(work)
        if blob is None:
            raise OperationFailed("what came out was deleted meanwhile; ask again")
        async with await self._store.open(blob.storage_key) as opened:
            facts = await _checked_facts(opened)
        return Converted(blob, facts, outcome.warnings, outcome.new)


@dataclass(slots=True)
class _Outcome:
    """What became of an order: the blob, once its bytes may be in the store."""

    made: Digest | None = None
    new: bool = True
    taken: bool = False
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps({"made": str(self.made), "new": self.new, "warnings": self.warnings})

    @classmethod
    def of_json(cls, text: str) -> "_Outcome":
        found = json.loads(text)
        made = Digest.parse(found["made"])
        return cls(made, found["new"], warnings=tuple(found["warnings"]))


async def _checked_facts(made: Incoming | Opened) -> Facts:
    """What came out, read as if somebody had sent it."""
    try:
        return await read_facts(made)
    except GgufInvalid as error:
        raise OperationFailed(f"the conversion came out wrong: {error}") from error
