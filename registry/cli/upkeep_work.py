"""What the commands of `upkeep.py` do on the library itself, beside a server or without one."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar
from urllib.parse import urlsplit

from registry import logs
from registry.cli.administration import Deed, check_library, system_user
from registry.cli.client import Report
from registry.cli.library import opened
from registry.cli.render import Board
from registry.core.events import Advance, Count, Events, Transfer
from registry.core.names import ModelName
from registry.ports.catalog import Tag
from registry.ports.upkeep import TagEvent
from registry.services import Services
from registry.services.access.rights import TagGuard
from registry.services.upkeep.gc import Plan
from registry.services.upkeep.retention import Outlived
from registry.services.upkeep.scrub import Findings, ScrubWish, Subset
from registry.services.upkeep.storage import Taken, Totals
from registry.settings import Settings

T = TypeVar("T")

_PAGE = 500


def keep(
    settings: Settings, work: Callable[[Services], Awaitable[T]], deed: Deed | None = None
) -> T:
    """Do `work` on the library of the settings; `deed` goes into the audit.

    Raises:
        OperationFailed: there is no library.
        RegistryError: what `work` raises.
    """
    check_library(settings)
    return asyncio.run(_keep(settings, work, deed))


async def _keep(
    settings: Settings, work: Callable[[Services], Awaitable[T]], deed: Deed | None
) -> T:
    logs.configure("error", json=False)  # warnings are told as events; never on standard output
    async with opened(settings, deed) as services:
        return await work(services)


async def _drawn(events: Events) -> list[Count]:
    """Show events on standard error, to the last; the last sum of each kind."""
    sums: dict[str, Count] = {}
    with Board() as board:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Count):
                    sums[event.text] = event
                elif isinstance(event, Transfer | Advance):
                    digest = str(event.digest)
                    board.show(Report(event.text, digest, event.total, event.completed))
                else:
                    board.show(Report(event.text))
    return list(sums.values())


def plan(settings: Settings, grace_s: int | None, *, untagged: bool, orphans: bool) -> Plan:
    """What a collection would do."""
    return keep(
        settings,
        lambda it: it.upkeep.collection.plan(grace_s, untagged=untagged, orphans=orphans),
    )


def collect(settings: Settings, grace_s: int | None, *, untagged: bool) -> list[Count]:
    """Do a collection; what went."""
    return keep(
        settings,
        lambda it: _drawn(it.chores.collect(grace_s, untagged=untagged)),
        Deed("gc", "untagged" if untagged else ""),
    )


def scrub(settings: Settings, subset: str, rate: int, source: str, *, damaged: bool) -> Findings:
    """Check blobs, and repair those that are wrong from `source`, if it is given."""
    wish = ScrubWish(Subset.parse(subset), rate, damaged)
    if source:  # whoever types the command wants to go there
        host = urlsplit(source).hostname or ""
        allowed = (*settings.upstream_allow, host)
        settings = settings.model_copy(update={"upstream_allow": allowed})

    async def work(services: Services) -> Findings:
        found: list[Findings] = []
        await _drawn(services.chores.scrub(wish, source, take=found.append))
        return found[-1]

    return keep(settings, work, Deed("scrub", subset))


def taken(settings: Settings, name: str) -> tuple[Totals, list[Taken]]:
    """The totals, and what is below a name, all pages."""

    async def work(services: Services) -> tuple[Totals, list[Taken]]:
        storage = services.upkeep.storage
        rows: list[Taken] = []
        after = ""
        while True:
            if name:
                page = await storage.within(name, after, _PAGE)
            else:
                page = await storage.namespaces(after, _PAGE)
            rows += page
            if len(page) < _PAGE:
                return await storage.totals(), rows
            after = storage.cursor(page[-1].name)

    return keep(settings, work)


def changes(settings: Settings, name: ModelName, limit: int) -> list[TagEvent]:
    """What became of a tag."""
    return keep(settings, lambda it: it.upkeep.history.of(name, limit=limit))


def restore(settings: Settings, name: ModelName, to: int) -> Tag:
    """Point a tag at what it was."""
    guard = TagGuard(who=system_user())
    deed = Deed("model.restore", f"{name} {to}")
    return keep(settings, lambda it: it.upkeep.history.restore(name, to, guard), deed)


def retain(settings: Settings, *, dry_run: bool) -> list[Outlived]:
    """The tags that no rule keeps; without `dry_run` they are deleted."""

    async def work(services: Services) -> list[Outlived]:
        retention = services.upkeep.retention
        return await _all(retention.victims() if dry_run else retention.deleting())

    return keep(settings, work, None if dry_run else Deed("retention", ""))


async def _all(victims: AsyncGenerator[Outlived, None]) -> list[Outlived]:
    async with aclosing(victims):
        return [victim async for victim in victims]


def age_s(since_ns: int) -> int:
    """Seconds since then."""
    return max(0, (time.time_ns() - since_ns) // 10**9)
