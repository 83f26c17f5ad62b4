"""Routing: which worker answers, and what happens when it does not.

A lease is given back in every case: when the answer is complete, when it failed, when its consumer
went away. What is lost before the first item is tried on another worker; afterwards the client has
seen a part of the answer, and is told.

Source: spec inference-and-gguf 4.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

import structlog

from registry.core.digest import Digest
from registry.core.errors import RegistryError, Unavailable, WorkerLost
from registry.ports.workers import LoadSpec, Running, Worker

T = TypeVar("T")

NO_WORKER = "no inference worker is connected to this server"
_NO_WORKER_RETRY_S = 30
_RETRIES = 2

log = structlog.get_logger()


class Router:
    """The workers of this process, and who runs what."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self._releases: set[asyncio.Task[None]] = set()

    def add(self, worker: Worker) -> None:
        """Let a worker be asked; one of the same name is replaced, what runs on it goes on."""
        self._workers[worker.name] = worker

    def remove(self, name: str) -> None:
        """Ask a worker no more; what runs on it goes on. Closing it is the caller's."""
        self._workers.pop(name, None)

    def workers(self) -> tuple[Worker, ...]:
        """All of them, in the order they were added."""
        return tuple(self._workers.values())

    async def stream(
        self,
        spec: LoadSpec,
        keep_alive_s: float | None,
        use: Callable[[Running], AsyncGenerator[T, None]],
    ) -> AsyncGenerator[T, None]:
        """The items of `use`, which is handed a lease and may be called again with another one.

        Raises:
            Unavailable: there is no worker, or none that has time.
            CannotRun: no worker can run this model.
            WorkerLost: the worker went away in mid-answer, or the third one before it.
        """
        lost: set[str] = set()
        while True:
            worker = self._choose(spec, lost)
            began = False
            try:
                running = await worker.acquire(spec)
                try:
                    async with contextlib.aclosing(use(running)) as items:
                        async for item in items:
                            began = True
                            yield item
                    return
                finally:
                    await self._release(running, keep_alive_s)
            except WorkerLost:
                lost.add(worker.name)
                if began or len(lost) > _RETRIES or lost >= set(self._workers):
                    raise

    async def unload(self, model: Digest) -> None:
        """Have every worker let go of these weights, once idle."""
        for worker in self.workers():
            with contextlib.suppress(RegistryError):  # it will forget them without being told
                await worker.unload(model)

    async def close(self) -> None:
        """Wait until every lease is given back. Nothing may be asked afterwards."""
        while self._releases:
            await asyncio.gather(*self._releases, return_exceptions=True)

    def _choose(self, spec: LoadSpec, lost: set[str]) -> Worker:
        facts = {worker: worker.facts() for worker in self.workers() if worker.name not in lost}
        alive = [worker for worker, known in facts.items() if not known.draining]
        if not alive:
            raise Unavailable(NO_WORKER, _NO_WORKER_RETRY_S)
        ready = [
            worker
            for worker in alive
            if any(loaded.key == spec.key for loaded in facts[worker].loaded)
        ]
        return (ready or alive)[0]

    async def _release(self, running: Running, keep_alive_s: float | None) -> None:
        """Not interrupted when the client goes away: the slot would stay taken."""
        task = asyncio.create_task(self._give_back(running, keep_alive_s))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)
        await asyncio.shield(task)

    async def _give_back(self, running: Running, keep_alive_s: float | None) -> None:
        try:
            await running.release(keep_alive_s)
        except RegistryError as error:
            log.info("a lease was not given back", worker=running.worker, error=str(error))
