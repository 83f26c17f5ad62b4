"""The books: tokens and seconds by model, account and worker, hour by hour.

Kept in memory for some seconds and then added to the catalog's rows, so a request never waits for
them; what is not written when the process is killed is lost.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from registry.core.errors import RegistryError
from registry.ports.catalog import Catalog
from registry.ports.fleet import HOUR_NS, Usage
from registry.services.inference.metering import Use

_PAUSE_S = 10.0
_KEYS_MAX = 20_000
_ROWS_MAX = 100_000
_ROW_KEPT_NS = 400 * 24 * HOUR_NS

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Line:
    """What is told apart in the books."""

    hour: int
    account: str
    model: str
    worker: str


class Ledger:
    """Adds up what leases used, and writes it."""

    def __init__(self, catalog: Catalog, clock: Callable[[], int]) -> None:
        self._catalog = catalog
        self._clock = clock
        self._sums: dict[Line, Counter[str]] = {}
        self._lost = 0
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._writing = asyncio.Lock()

    def record(self, use: Use, seconds: float) -> None:
        """A lease is over. Never waits; drops what is out of all bounds, and logs that."""
        hour = self._clock() // HOUR_NS * HOUR_NS
        line = Line(hour, use.account[:80], use.model.short, use.worker[:80])
        counts = Counter(
            requests=1,
            prompt_tokens=use.prompt_tokens,
            tokens=use.tokens,
            milliseconds=round(seconds * 1e3),
        )
        if line in self._sums:
            self._sums[line] += counts
        elif len(self._sums) < _KEYS_MAX:
            self._sums[line] = counts
        else:
            self._lost += 1
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def rows(self, since: int, until: int, limit: int = _ROWS_MAX) -> list[Usage]:
        """Rows with an hour in `[since, until)`, newest first, what was just used included."""
        await self.flush()
        return await self._catalog.scan(lambda tx: tx.usage(since, until, limit))

    async def totals(self, since: int, until: int, by: str) -> list[Usage]:
        """The same rows added up by one column; see `summed`."""
        return summed(await self.rows(since, until), [by])

    async def flush(self) -> None:
        """Write what there is; if that fails it is kept for the next time."""
        async with self._writing:
            sums, self._sums = self._sums, {}
            if not sums:
                return
            rows = [_usage(line, counts) for line, counts in sums.items()]
            try:
                await self._catalog.write(lambda tx: tx.add_usage(rows))
            except RegistryError as error:
                log.warning("usage is not written yet", rows=len(rows), error=str(error))
                for line, counts in sums.items():
                    self._sums[line] = self._sums.get(line, Counter()) + counts
        if self._lost:
            log.error("usage lost: too many accounts, models and workers", rows=self._lost)
            self._lost = 0

    async def trim(self) -> None:
        """Forget what is older than 400 days."""
        before = self._clock() - _ROW_KEPT_NS
        await self._catalog.write(lambda tx: tx.trim_usage(before))

    async def close(self) -> None:
        """Write what is left."""
        self._closing.set()
        if self._task is not None:
            await self._task
        await self.flush()

    async def _run(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), _PAUSE_S)
        await self.flush()


def summed(rows: Iterable[Usage], by: Iterable[str]) -> list[Usage]:
    """The rows added up over all columns that are not named in `by`; most tokens first."""
    kept = set(by)
    sums: dict[Line, Counter[str]] = {}
    for row in rows:
        line = Line(
            row.hour if "hour" in kept else 0,
            row.account if "account" in kept else "",
            row.model if "model" in kept else "",
            row.worker if "worker" in kept else "",
        )
        sums.setdefault(line, Counter()).update(
            requests=row.requests,
            prompt_tokens=row.prompt_tokens,
            tokens=row.tokens,
            milliseconds=row.milliseconds,
        )
    made = [_usage(line, counts) for line, counts in sums.items()]
    return sorted(made, key=lambda row: (-row.hour, -row.tokens - row.prompt_tokens, row.model))


def _usage(line: Line, counts: Counter[str]) -> Usage:
    return Usage(
        line.hour,
        line.account,
        line.model,
        line.worker,
        counts["requests"],
        counts["prompt_tokens"],
        counts["tokens"],
        counts["milliseconds"],
    )
