"""The workers of a running server: kept in step with the catalog, pinned models kept loaded.

Every replica does this for itself; what one of them is told, the others take up within seconds.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

import structlog

from registry.core.errors import RegistryError
from registry.core.names import ModelName
from registry.core.wishes import EmbedWish, GenerateWish
from registry.ports.catalog import Catalog
from registry.ports.fleet import Enlisted
from registry.ports.workers import Worker
from registry.services.inference.fleet import Fleet
from registry.services.inference.generation import Generation
from registry.services.inference.inference import Ask, Inference, Purpose
from registry.services.inference.routing import Router

_LOOK_S = 2.0
_WARM_S = 30.0
_LET_GO_S = 600

log = structlog.get_logger()


class Startable(Worker, Protocol):
    """A worker that begins to look after itself."""

    def start(self) -> None:
        """Begin; `close` ends it."""
        ...


Make = Callable[[Enlisted, Callable[[], None]], Startable]
"""Makes the worker of a row; it calls the function whenever its facts have changed."""


def loader(inference: Inference, generation: Generation) -> Callable[[ModelName], Awaitable[None]]:
    """Loads a model as a request without a prompt does."""

    async def warm(name: ModelName) -> None:
        embeds = Ask(Purpose.EMBED, str(name))
        admitted = await inference.admit(embeds)
        if "embedding" in admitted.parts.capabilities(look_into_gguf=True):
            await generation.vectors(admitted, EmbedWish(model=str(name)))
            return
        admitted = await inference.admit(Ask(Purpose.GENERATE, str(name)))
        async with aclosing(generation.answer(admitted, GenerateWish(model=str(name)))) as events:
            async for _ in events:
                pass

    return warm


class Muster:
    """Adds, changes and removes the router's workers as rows come and go."""

    def __init__(
        self,
        catalog: Catalog,
        router: Router,
        make: Make,
        warm: Callable[[ModelName], Awaitable[None]],
    ) -> None:
        self._catalog = catalog
        self._fleet = Fleet(catalog, lambda: 0)
        self._router = router
        self._make = make
        self._warm = warm
        self._running: dict[str, tuple[Enlisted, Startable]] = {}
        self._pinned: list[ModelName] = []
        self._version = -1
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []
        self._ending: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to look at the rows, and to keep pinned models loaded."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._look()), loop.create_task(self._keep_warm())]

    async def close(self) -> None:
        """Stop looking, let go of the workers."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for name in list(self._running):
            self._remove(name)
        await asyncio.gather(*self._ending)

    async def sync(self) -> None:
        """Bring the router in step, if anything was written since the last time."""
        version = self._catalog.version()
        if version == self._version:
            return
        rows = {row.name: row for row in await self._fleet.workers()}
        for name, (known, _) in list(self._running.items()):
            if name not in rows or replace(rows[name], drained=known.drained) != known:
                self._remove(name)
        taken = {worker.name for worker in self._router.workers()}
        for name, row in rows.items():
            if name not in self._running and name not in taken:
                self._add(row)
        self._router.drain(await self._fleet.drained())
        placements = await self._fleet.placements()
        self._router.place(dict(placements))
        self._pinned = [name for name, placement in placements if placement.pinned]
        self._version = version

    async def warm_pinned(self) -> None:
        """Load pinned models that run nowhere."""
        running = {
            str(loaded.name).lower()
            for worker in self._router.workers()
            for loaded in worker.facts().loaded
        }
        for name in self._pinned:
            if str(name).lower() not in running and self._router.workers():
                try:
                    await self._warm(name)
                except RegistryError as error:
                    log.info("a pinned model is not loaded", model=name.short, error=str(error))

    def _add(self, row: Enlisted) -> None:
        try:
            worker = self._make(row, self._router.refresh)
        except RegistryError as error:
            log.warning("a worker cannot be used", worker=row.name, error=str(error))
            return
        worker.start()
        self._running[row.name] = (row, worker)
        self._router.add(worker)

    def _remove(self, name: str) -> None:
        _, worker = self._running.pop(name)
        if any(known is worker for known in self._router.workers()):
            self._router.remove(name)
        task = asyncio.get_running_loop().create_task(self._end(worker))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, worker: Startable) -> None:
        """What runs on it goes on, for ten minutes at most."""
        for _ in range(_LET_GO_S):
            if self._closing or not self._router.is_used(worker.name):
                break
            await asyncio.sleep(1)
        await worker.close()

    async def _look(self) -> None:
        while True:
            try:
                await self.sync()
            except RegistryError as error:
                log.warning("the workers cannot be read", error=str(error))
            await asyncio.sleep(_LOOK_S)

    async def _keep_warm(self) -> None:
        while True:
            await asyncio.sleep(_WARM_S)
            await self.warm_pinned()
