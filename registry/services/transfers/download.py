"""Fetching one blob from another registry: in parallel ranges, resumable, checked.

The parts of a blob are rows in the catalog (`Fetch`), brought up to date every few seconds, after
the bytes themselves are on disk. So a pull that was cancelled or killed goes on: complete parts
count once their bytes hash to what was recorded, the others go on behind their last recorded byte.
Nothing is visible before the whole blob hashes to its digest.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

from anyio import CancelScope, to_thread

from registry.core.digest import Digest
from registry.core.errors import (
    RegistryError,
    UploadUnknown,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamUnknown,
    UpstreamUnreachable,
)
from registry.core.multipart import Coverage
from registry.core.parts import split
from registry.core.retries import pause_s
from registry.ports.blobs import BlobStore, Incoming
from registry.ports.catalog import Catalog, Transaction
from registry.ports.transfers import Fetch, Part
from registry.ports.upstream import RemoteBlob, Stream, Upstream
from registry.services.transfers.pieces import BLOCK, Pace, Piece, held
from registry.settings import Settings
from registry.settings import Upstream as Knobs

T = TypeVar("T")

PERSIST_S = 2.0
"""How much work a crash may cost."""

_PATIENCE_S = 0.05
"""Bytes that come slowly are written so soon, so that progress is seen and kept."""
_PROGRESS = 256 << 10
"""A try that brought at least so many bytes does not count as a failure."""
_REPAIRS = 2


@dataclass(frozen=True, slots=True)
class Workshop:
    """What downloads work with. `clock` gives nanoseconds since the epoch."""

    catalog: Catalog
    store: BlobStore
    clock: Callable[[], int]
    knobs: Knobs
    lease_ns: int

    @classmethod
    def of(
        cls, catalog: Catalog, store: BlobStore, settings: Settings, clock: Callable[[], int]
    ) -> Self:
        """As the settings have it."""
        lease_ns = settings.retention.lease_s * 1_000_000_000
        return cls(catalog, store, clock, settings.upstream, lease_ns)


class ContentMismatch(UpstreamFailed):
    """The registry serves other bytes than those of the digest; none of them is kept."""


class _Unranged(Exception):
    """The registry does not do ranges: the blob has to come in one go."""


class Download:
    """One blob on its way in. `conclude` is called in the transaction that makes it visible.

    It returns whose leases the blob gets.
    """

    def __init__(
        self,
        workshop: Workshop,
        upstream: Upstream,
        digest: Digest,
        size: int,
        conclude: Callable[[Transaction], Iterable[str]],
    ) -> None:
        self._workshop = workshop
        self._upstream = upstream
        self._conclude = conclude
        self.digest = digest
        self.size = size
        self._pieces: list[Piece] = []
        self._serial = False  # bytes come in order, so that the store can hash them on the way
        self._remote: RemoteBlob | None = None
        self._locating = asyncio.Lock()
        self._saved: list[Part] | None = None

    @property
    def completed(self) -> int:
        """How many bytes are here."""
        return sum(piece.done for piece in self._pieces)

    async def run(self) -> None:
        """Fetch, check and publish the blob. Cancelled, it keeps what is there.

        Raises:
            ContentMismatch: twice fetched, and still not the bytes of the digest.
            UpstreamFailed: the tries are used up, or the registry has no such blob of that size.
            StorageFull: no space for it.
        """
        incoming = await self._begin()
        try:
            for repair in range(_REPAIRS + 1):
                await self._fill(incoming)
                got = await incoming.seal()
                if got == self.digest:
                    break
                incoming = await self._reopen(incoming)
                if repair == _REPAIRS or not await self._doubt(incoming):
                    raise self._mismatch(got)
            await self._publish(incoming)
        except ContentMismatch:
            await self._workshop.catalog.write(lambda tx: tx.delete_fetch(self.digest))
            await incoming.discard()
            raise
        except BaseException:
            # Also when cancelled: what has come is worth two writes.
            with CancelScope(shield=True):
                await self._leave(incoming)
            raise
        with suppress(RegistryError):  # it is a blob, and the sweep finds what is left
            await incoming.discard()

    # ---- where it begins and ends

    async def _begin(self) -> Incoming:
        """Go on with an earlier fetch if there is one, else begin anew."""
        await self._check_size()
        fetch = await self._workshop.catalog.read(lambda tx: tx.fetch(self.digest))
        if fetch is not None and fetch.size == self.size:
            with suppress(UploadUnknown):
                return await self._take_up(fetch)
        shop = self._workshop
        spans = split(self.size, shop.knobs.part_bytes, shop.store.boundary)
        self._pieces = [Piece(start, stop) for start, stop in spans]
        self._serial = len(spans) <= 1
        return await shop.store.create(self.size)

    async def _check_size(self) -> None:
        """Ask the registry for the blob's size, which has to be the manifest's."""
        if self.size == 0:
            return
        found = await self._tried(lambda: self._upstream.size(self.digest))
        if found is None:
            raise UpstreamUnknown("file does not exist")
        if found not in {-1, self.size}:
            raise UpstreamFailed(
                f"{self.digest} has {found} bytes at the registry, {self.size} in the manifest"
            )

    async def _take_up(self, fetch: Fetch) -> Incoming:
        """Believe of an earlier fetch what its bytes in the store bear out."""
        end = max((part.start + part.done for part in fetch.parts if part.done), default=0)
        incoming = await self._workshop.store.resume(fetch.storage_key, end, sparse=True)
        try:
            there = Coverage(await incoming.durable())
            for part in fetch.parts:
                piece = Piece(part.start, part.stop)
                self._pieces.append(piece)
                if not incoming.rereads:
                    piece.believe(held(part, there).done)
                    continue
                await piece.hash_again(incoming, part.done)
                if part.sha256 and piece.sha256 != part.sha256:
                    piece.reset()
                    piece.before = ""
        except BaseException:
            with CancelScope(shield=True):
                await incoming.close()
            raise
        return incoming

    async def _publish(self, incoming: Incoming) -> None:
        key = await incoming.publish(self.digest)
        now = self._workshop.clock()

        def commit(tx: Transaction) -> None:
            incoming.confirm()
            tx.put_blob(self.digest, self.size, key, now)
            tx.delete_fetch(self.digest)
            for holder in self._conclude(tx):
                tx.lease([self.digest], holder, now + self._workshop.lease_ns)

        await self._workshop.catalog.write(commit)

    async def _leave(self, incoming: Incoming) -> None:
        """Keep what is here for the next try, or nothing if that is nothing."""
        if self.completed:
            await incoming.flush()
            await self._persist(incoming)
            await incoming.close()
        else:
            await incoming.discard()

    async def _persist(self, incoming: Incoming) -> None:
        """Make the parts durable, first their bytes, then the rows that vouch for them."""
        parts = [piece.row() for piece in self._pieces]
        if parts == self._saved:
            return
        there = Coverage(await incoming.durable())
        rows = [held(part, there) for part in parts]
        if rows != self._saved:
            now = self._workshop.clock()
            fetch = Fetch(self.digest, self.size, incoming.key, now, tuple(rows))
            await self._workshop.catalog.write(lambda tx: tx.put_fetch(fetch))
            self._saved = rows

    # ---- wrong bytes

    def _mismatch(self, got: Digest) -> ContentMismatch:
        what = f"want {self.digest}, got {got}"
        return ContentMismatch(f"digest mismatch, file must be downloaded again: {what}")

    async def _reopen(self, incoming: Incoming) -> Incoming:
        """Sealed bytes, writable again; an object never is, so all of it has to come anew."""
        store = self._workshop.store
        if incoming.rereads:
            await incoming.close()
            return await store.resume(incoming.key, self.size)
        await incoming.discard()
        return await store.create(self.size)

    async def _doubt(self, incoming: Incoming) -> bool:
        """Mark the parts that may be wrong; False if there is no hope.

        Parts that the disk changed are known by their hash. If there are none, the registry sent
        something wrong: fetch all again, and give up if it sends the same once more.
        """
        if all(piece.came_twice for piece in self._pieces):
            return False
        self._serial = self._serial and not incoming.rereads
        seen = self._pieces if incoming.rereads else []
        wrong = [piece for piece in seen if not await self._is_intact(incoming, piece)]
        for piece in wrong or self._pieces:
            piece.reset()
        return True

    async def _is_intact(self, incoming: Incoming, piece: Piece) -> bool:
        recorded = piece.sha256
        await piece.hash_again(incoming, piece.stop - piece.start)
        return piece.sha256 == recorded

    # ---- bytes in

    async def _fill(self, incoming: Incoming) -> None:
        """Fetch every part that is not complete."""
        waiting = deque(piece for piece in self._pieces if not piece.complete)
        if not waiting:
            return
        keeper = asyncio.create_task(self._keep(incoming))
        try:
            streams = min(self._workshop.knobs.streams, len(waiting))
            await _all(self._work(incoming, waiting) for _ in range(streams))
        except _Unranged:
            await self._tried(lambda: self._in_one_go(incoming))
        finally:
            keeper.cancel()
            await asyncio.wait({keeper})
        if not keeper.cancelled():
            keeper.result()

    async def _keep(self, incoming: Incoming) -> None:
        while True:
            await asyncio.sleep(PERSIST_S)
            await self._persist(incoming)

    async def _work(self, incoming: Incoming, waiting: deque[Piece]) -> None:
        """Fetch parts until none is left: as many of these run as there are streams."""
        while waiting:
            piece = waiting.popleft()
            await self._tried(partial(self._part, incoming, piece), piece.progress)

    async def _part(self, incoming: Incoming, piece: Piece) -> None:
        """Fetch what is missing of a part."""
        begin = piece.start + piece.done
        remote, fresh = await self._located()
        try:
            async with remote.read(begin, piece.stop) as stream:
                if stream.start != begin:
                    raise _Unranged
                await self._receive(incoming, stream, [piece])
        except (UpstreamRefused, UpstreamUnknown) as error:
            self._forget(remote)
            if fresh:
                raise
            raise UpstreamBusy(str(error)) from error  # the address may just have expired
        except UpstreamFailed:
            self._forget(remote)
            raise

    async def _in_one_go(self, incoming: Incoming) -> None:
        """Read the whole blob in one stream, passing over what is here already."""
        remote, _ = await self._located()
        async with remote.read(0, self.size) as stream:
            if stream.start != 0:
                raise UpstreamFailed("unexpected answer to a range request")
            await self._receive(incoming, stream, self._pieces)

    async def _receive(self, incoming: Incoming, stream: Stream, pieces: list[Piece]) -> None:
        """Write a stream into the parts that it belongs to."""
        todo = deque(piece for piece in pieces if not piece.complete)
        loop = asyncio.get_running_loop()
        base, filled, since = stream.start, 0, loop.time()
        pace = Pace(2 * self._workshop.knobs.stall_s, since)
        block = memoryview(bytearray(min(BLOCK, pieces[-1].stop - base)))
        try:
            async for chunk in stream.chunks():
                pace.note(len(chunk), loop.time())
                while chunk:
                    size = min(len(chunk), len(block) - filled)
                    block[filled : filled + size] = chunk[:size]
                    chunk, filled = chunk[size:], filled + size
                    if filled == len(block) or loop.time() - since > _PATIENCE_S:
                        full, filled = block[:filled], 0
                        await self._store(incoming, base, full, todo)
                        base, since = base + len(full), loop.time()
        finally:
            # What came before the stream broke, or before we were told to stop, is good.
            with CancelScope(shield=True):
                await self._store(incoming, base, block[:filled], todo)
        if todo:
            raise UpstreamBusy("unexpected EOF")

    async def _store(
        self, incoming: Incoming, base: int, data: memoryview, todo: deque[Piece]
    ) -> None:
        """Write bytes that begin at `base`; parts that are complete leave `todo`."""
        end = base + len(data)
        while todo:
            piece = todo[0]
            at = piece.start + piece.done
            if not base <= at < end:
                return
            view = data[at - base : piece.stop - base]
            in_order = self._serial and at == incoming.size
            written = incoming.write(view) if in_order else incoming.write_at(at, view)
            await asyncio.gather(written, to_thread.run_sync(piece.update, view))
            piece.done += len(view)
            if piece.complete:
                todo.popleft()

    async def _located(self) -> tuple[RemoteBlob, bool]:
        """Where the blob is, and whether that was asked just now."""
        async with self._locating:
            if self._remote is not None:
                return self._remote, False
            self._remote = await self._upstream.locate(self.digest)
            return self._remote, True

    def _forget(self, remote: RemoteBlob) -> None:
        if self._remote is remote:
            self._remote = None

    async def _tried(
        self, step: Callable[[], Awaitable[T]], progress: Callable[[], int] = lambda: 0
    ) -> T:
        """Do a step, again and again with growing pauses while that may help."""
        failures = 0
        while True:
            before = progress()
            try:
                return await step()
            except (UpstreamBusy, UpstreamUnreachable) as error:
                failures = 1 if progress() - before >= _PROGRESS else failures + 1
                if failures > self._workshop.knobs.retries:
                    raise UpstreamFailed(f"max retries exceeded: {error}") from error
                wished = error.retry_after_s if isinstance(error, UpstreamBusy) else 0.0
                chance = random.random()  # noqa: S311
                await asyncio.sleep(pause_s(failures, wished, chance))


async def _all(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run jobs side by side; the first error ends the others and is raised."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        with CancelScope(shield=True):
            await asyncio.wait(tasks)
    for task in done:
        task.result()
