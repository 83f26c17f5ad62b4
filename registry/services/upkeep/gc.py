"""Garbage collection: a report of what can go and why, and the work itself, beside everything else.

It runs while models are pushed and pulled: each step is a short transaction that looks again at
what holds a blob (manifests, links, leases). The same happens by itself every few minutes; this is
for those who want to see it, or want the room now.

Source: spec registry-protocol 6.2, rules 3, 4 and 6.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from registry.core.digest import Digest
from registry.core.events import Count, Done, Events, Status
from registry.ports.catalog import Reader
from registry.ports.upkeep import Tally
from registry.services.library.history import History
from registry.services.library.housekeeping import Housekeeping, Swept
from registry.services.library.manifests import Manifests
from registry.services.library.strays import STRAY_NS, Strays
from registry.services.upkeep.adoption import Adoption
from registry.services.uploading.uploads import Uploads
from registry.settings import Retention

_BATCH = 1_000
_NS = 10**9

REASONS = {
    "deleted": "of deleted models that can be brought back no longer",
    "untagged": "manifests that have no tag any more",
    "unused": "blobs that no model refers to, past their grace",
    "upload": "uploads that were given up",
    "fetch": "fetches that were given up",
    "orphan": "files in the store that the catalog does not know",
    "leftover": "leftovers of crashes",
    "freed": "files that are being deleted",
    "restorable": "of deleted models that can be brought back",
    "grace": "blobs that no model refers to yet",
    "open upload": "uploads under way",
    "open fetch": "fetches under way",
}
"""Why bytes go or stay, in words."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Bytes that go, or that no model refers to and that stay. `since`: nanoseconds, 0 unknown."""

    reason: str
    count: int
    size: int
    since: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a collection would do now."""

    goes: tuple[Finding, ...]
    stays: tuple[Finding, ...]

    @property
    def size(self) -> int:
        """Bytes that go."""
        return sum(item.size for item in self.goes)


class Collection:
    """The use case."""

    def __init__(
        self,
        manifests: Manifests,
        uploads: Uploads,
        history: History,
        adoption: Adoption,
        retention: Retention,
    ) -> None:
        self._catalog = manifests.catalog
        self._store = manifests.store
        self._housekeeping: Housekeeping = manifests.housekeeping
        self._clock = manifests.clock
        self._uploads = uploads
        self._history = history
        self._adoption = adoption
        self._retention = retention
        self._strays = Strays(manifests.catalog, manifests.store)

    async def plan(
        self, grace_s: int | None = None, *, untagged: bool = False, orphans: bool = True
    ) -> Plan:
        """What would go, and what no model refers to and stays; nothing is changed.

        `untagged`: see `run`. With `orphans` the store is listed too, which takes seconds for a
        million files.
        """
        now = self._clock()
        before = self._before(now, grace_s)

        def tallies(tx: Reader) -> tuple[dict[str, Tally], dict[str, Tally]]:
            deleted = now - self._housekeeping.undelete_ns
            goes = {
                "deleted": tx.condemned_tally(deleted),
                "untagged": tx.untagged_tally(before) if untagged else Tally(),
                "unused": tx.unreferenced_tally(before, now),
                "upload": tx.upload_tally(now),
                "fetch": tx.fetch_tally(before),
                "freed": tx.freed_tally(),
            }
            every = {
                "restorable": (tx.condemned_tally(), goes["deleted"]),
                "grace": (tx.unused_tally(), goes["unused"]),
                "open upload": (tx.upload_tally(), goes["upload"]),
                "open fetch": (tx.fetch_tally(), goes["fetch"]),
            }
            return goes, {reason: _less(*pair) for reason, pair in every.items()}

        goes, stays = await self._catalog.scan(tallies)
        if orphans:
            goes["orphan"] = await self._orphans(now - self._retention.leftover_s * _NS)
        return Plan(_findings(goes), _findings(stays))

    def _before(self, now: int, grace_s: int | None) -> int:
        return now - (self._retention.grace_s if grace_s is None else grace_s) * _NS

    async def _orphans(self, before: int) -> Tally:
        count = size = 0
        async with aclosing(self._unknown(before)) as found:
            async for some in found:
                count += len(some)
                size += sum(some)
        return Tally(count, size)

    async def _unknown(self, before: int) -> AsyncGenerator[list[int], None]:
        """Sizes of files, old enough to go, that are no blob's."""
        if not self._store.reuses_keys:
            async for _, size in self._strays.unknown(before - STRAY_NS):
                yield [size]
            return
        batch: dict[Digest, int] = {}
        async for key, size in self._store.keys(before):
            batch[Digest.parse(key)] = size
            if len(batch) >= _BATCH:
                yield await self._those(batch)
                batch = {}
        yield await self._those(batch)

    async def _those(self, batch: dict[Digest, int]) -> list[int]:
        unknown = await self._catalog.scan(lambda tx: tx.unknown(list(batch)))
        return [batch[digest] for digest in unknown]

    async def run(self, grace_s: int | None = None, *, untagged: bool = False) -> Events:
        """Collect; tells what went, reason by reason, and goes on where it was if asked again.

        With `untagged` go manifests that have had no tag for the grace, such as those that a push
        under the same tag replaced. Whoever pulls by digest alone would miss them.
        """
        yield Status("collecting")
        now = self._clock()
        uploads = await self._catalog.scan(lambda tx: tx.upload_tally(now))
        if uploads.count:
            await self._uploads.sweep()
            yield Count(REASONS["upload"], uploads.count, uploads.size)
        all_steps = [self._history.sweeping(), self._housekeeping.sweeping(grace_s)]
        if untagged:
            all_steps.insert(0, self._history.dropping(self._before(now, grace_s)))
        for steps in all_steps:
            async with aclosing(_summed(steps)) as events:
                async for event in events:
                    yield event
        yield Status("deleting files")
        orphans = await self._adoption.run()
        if orphans:
            yield Count(REASONS["orphan"], orphans, 0)
        yield Done()


async def _summed(steps: AsyncGenerator[Swept, None]) -> AsyncGenerator[Count, None]:
    """Steps as sums so far, by reason."""
    sums: dict[str, tuple[int, int]] = {}
    async with aclosing(steps):
        async for step in steps:
            count, size = sums.get(step.reason, (0, 0))
            sums[step.reason] = count, size = count + step.count, size + step.size
            if size or count:
                yield Count(REASONS[step.reason], count, size)


def _less(whole: Tally, part: Tally) -> Tally:
    count = whole.count - part.count
    return Tally(count, whole.size - part.size, whole.since if count else 0)


def _findings(tallies: dict[str, Tally]) -> tuple[Finding, ...]:
    return tuple(
        Finding(reason, item.count, item.size, item.since)
        for reason, item in tallies.items()
        if item.count or item.size
    )
