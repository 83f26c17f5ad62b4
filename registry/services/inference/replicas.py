"""The processes that serve one library: each is a row that it keeps alive, and finds the others in.

Whether another one lives is told by its count moving on, so clocks need not agree. The row also has
what the process last saw of its workers, for whoever looks at the database only.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

from registry.core.errors import RegistryError
from registry.core.pulse import Pulses
from registry.ports.catalog import Catalog, Transaction
from registry.ports.fleet import Replica
from registry.ports.workers import Worker, WorkerFacts
from registry.services.inference.fleet import DEAD_S
from registry.services.inference.routing import Router

_NS = 1_000_000_000
_LOOK_S = 2.0
BEAT_S = 15.0
_FORGOTTEN_NS = 86_400 * _NS
_RUNNING_SHOWN = 200

log = structlog.get_logger()


class Replicas:
    """This process among the others; `url` is where they reach it, empty if they cannot."""

    def __init__(
        self, catalog: Catalog, router: Router, url: str, clock: Callable[[], int]
    ) -> None:
        self.id = secrets.token_hex(8)
        self._catalog = catalog
        self._router = router
        self._url = url
        self._clock = clock
        self._beat = 0
        self._told: list[Any] = []
        self._told_at = 0.0
        self._pulses = Pulses()
        self._others: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to show signs of life."""
        self._task = asyncio.get_running_loop().create_task(self._live())

    async def close(self) -> None:
        """Say that it ends."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with suppress(RegistryError):
            await self._catalog.write(lambda tx: tx.delete_replica(self.id))

    def ids(self) -> list[str]:
        """Those that live, this one first."""
        return [self.id, *self._others]

    def url_of(self, id_: str) -> str:
        """Where another one is reached; empty if nobody knows."""
        return self._others.get(id_, "")

    async def look(self) -> None:
        """Show a sign of life if it is time, and see who else does."""
        states = [state_of(self._router, worker) for worker in self._router.workers()]
        shape = [_lasting(state) for state in states]
        now_s = time.monotonic()
        if shape != self._told or now_s - self._told_at >= BEAT_S or not self._beat:
            self._beat += 1
            row = Replica(self.id, self._url, self._beat, self._clock(), json.dumps(states))
            await self._catalog.write(lambda tx: _put(tx, row))
            self._told, self._told_at = shape, now_s
        rows = await self._catalog.read(lambda tx: tx.replicas())
        self._others = {
            row.id: row.url
            for row in rows
            if row.id != self.id and self._pulses.age_s(row.id, row.beat, now_s) < DEAD_S
        }

    async def _live(self) -> None:
        while True:
            try:
                await self.look()
            except RegistryError as error:
                log.warning("no sign of life could be shown", error=str(error))
            await asyncio.sleep(_LOOK_S)


def state_of(router: Router, worker: Worker) -> dict[str, Any]:
    """A worker as an administrator wants to see it."""
    facts: WorkerFacts = worker.facts()
    return {
        "name": worker.name,
        "engine": facts.engine,
        "version": facts.version,
        "labels": sorted(facts.labels),
        "reachable": facts.reachable,
        "drained": router.is_draining(worker.name),
        "memory_total": facts.memory_total,
        "memory_free": facts.memory_free,
        "running": [
            {"model": item.name.short, "slots": item.slots, "busy": item.busy}
            for item in facts.loaded[:_RUNNING_SHOWN]
        ],
    }


def _lasting(state: dict[str, Any]) -> list[Any]:
    """What is worth a row at once: not what changes with each request."""
    models = [item["model"] for item in state["running"]]
    return [state["name"], state["reachable"], state["drained"], state["labels"], models]


def _put(tx: Transaction, row: Replica) -> None:
    tx.put_replica(row)
    for other in tx.replicas():
        if row.seen_at - other.seen_at > _FORGOTTEN_NS:
            tx.delete_replica(other.id)
