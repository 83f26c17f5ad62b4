"""Routing: which worker answers, who waits, and what happens when a worker does not.

A lease is given back in every case: when the answer is complete, when it failed, when its consumer
went away. What is lost before the first item is tried on another worker; afterwards the client has
seen a part of the answer, and is told.

The rules are `core/placement.py`'s. They are asked for the first in the row of every model whenever
something changed, and twice a second while anybody waits: workers elsewhere change unseen.

Source: spec inference-and-gguf 4.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

import structlog

from registry.core.digest import Digest
from registry.core.errors import CannotRun, RegistryError, Unavailable, WorkerLost
from registry.core.names import ModelName
from registry.core.placement import Placement
from registry.ports.workers import Crash, LoadSpec, Running, Worker
from registry.services.inference.choosing import Chooser
from registry.services.inference.metering import Meter, Use
from registry.services.inference.quarantine import Quarantine
from registry.services.inference.refusals import NO_WORKER as NO_WORKER
from registry.services.inference.standing import Claim
from registry.services.inference.waiting import Errand, Line, QueueLimits, Ticket

T = TypeVar("T")

_LOOK_S = 0.5
_AT_ONCE = 16
"""So many rows are looked at before others have their turn on the event loop."""
_ANYTHING = Errand()

log = structlog.get_logger()


class Router:
    """The workers of this process, and who runs what."""

    def __init__(
        self,
        limits: QueueLimits | None = None,
        *,
        replicas_max: int = 2,
        meter: Meter | None = None,
    ) -> None:
        self.meter = meter or Meter()
        self.quarantine = Quarantine()
        self._line = Line(limits or QueueLimits())
        self._chooser = Chooser(replicas_max)
        self._standing = self._chooser.standing
        self._looking = self._is_old = False
        self._timer: asyncio.TimerHandle | None = None
        self._releases: set[asyncio.Task[None]] = set()
        self.meter.watch_queue(lambda: len(self._line))

    @property
    def _workers(self) -> dict[str, Worker]:
        return self._chooser.workers

    # --- workers ----------------------------------------------------------------------------------

    def add(self, worker: Worker) -> None:
        """Let a worker be asked; one of the same name is replaced, what runs on it goes on."""
        self._chooser.workers[worker.name] = worker
        self.refresh()

    def remove(self, name: str) -> None:
        """Ask a worker no more; what runs on it goes on. Closing it is the caller's."""
        self._chooser.workers.pop(name, None)
        self.refresh()

    def drain(self, names: Iterable[str]) -> None:
        """Send nothing new to these workers, and to all others again."""
        self._chooser.drain(names)
        self.refresh()

    def place(self, placements: Mapping[ModelName, Placement]) -> None:
        """Set which models are placed and pinned."""
        self._chooser.place(placements)
        self.refresh()

    def crashed(self, worker: str, crash: Crash) -> None:
        """A model has taken a runner of the worker down: after some times it rests."""
        self.quarantine.note(crash.model, worker, crash.reason, crash.name)

    def excuse(self, text: str) -> None:
        """What to tell in place of "no inference worker is connected", while that is so."""
        self._chooser.excuse = text

    @property
    def problem(self) -> str:
        """Why nothing can be run; empty while there is a worker."""
        return "" if self._workers else self._chooser.excuse or NO_WORKER

    def refresh(self) -> None:
        """A worker has changed: look whether it takes somebody who waits."""
        self._chooser.forget()
        self._is_old = True
        if self._line and not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._look)

    def workers(self) -> tuple[Worker, ...]:
        """All of them, in the order they were added."""
        return tuple(self._workers.values())

    def is_draining(self, name: str) -> bool:
        """Whether nothing new is sent to the worker."""
        worker = self._workers.get(name)
        return name in self._chooser.drained or (worker is not None and worker.facts().draining)

    def is_used(self, name: str) -> bool:
        """Whether anything of this process still runs or waits on the worker."""
        return self._standing.is_used(name)

    @property
    def waiting(self) -> int:
        """How many requests wait for a worker."""
        return len(self._line)

    # --- requests ---------------------------------------------------------------------------------

    async def stream(
        self,
        spec: LoadSpec,
        keep_alive_s: float | None,
        use: Callable[[Running], AsyncGenerator[T, None]],
        errand: Errand = _ANYTHING,
    ) -> AsyncGenerator[T, None]:
        """The items of `use`, which is handed a lease and may be called again with another one.

        A pinned model stays whatever `keep_alive_s` says.

        Raises:
            Unavailable: there is no worker, or none that has time.
            CannotRun: no worker can run this model, or it rests after too many crashes.
            WorkerLost: the worker went away in mid-answer; or before it, and so did others, or the
                same one again where there is no other.
        """
        if self._chooser.is_pinned(spec.name):
            spec, keep_alive_s = replace(spec, pinned=True), None
        ticket = self._ticket(spec, errand)
        while True:
            async with self._lease(ticket, keep_alive_s) as running:
                if running is None:
                    continue
                began = False
                try:
                    async with contextlib.aclosing(use(running)) as items:
                        async for item in items:
                            began = True
                            yield item
                    return
                except WorkerLost as error:
                    self._note_loss(ticket, running.worker, error)
                    if began:
                        raise
                    ticket.lost(running.worker, error)

    async def warm(self, spec: LoadSpec, keep_alive_s: float | None) -> str:
        """Load a model where it would run now; the worker's name. Raises what `stream` does."""

        async def look(running: Running) -> AsyncGenerator[str, None]:
            yield running.worker

        async with contextlib.aclosing(self.stream(spec, keep_alive_s, look)) as names:
            return await anext(names)

    async def unload(self, model: Digest) -> None:
        """Have every worker let go of these weights, once idle."""
        for worker in self.workers():
            with contextlib.suppress(RegistryError):  # it will forget them without being told
                await worker.unload(model)

    async def close(self) -> None:
        """Wait until every lease is given back. Nothing may be asked afterwards."""
        if self._timer is not None:
            self._timer.cancel()
        while self._releases:
            await asyncio.gather(*self._releases, return_exceptions=True)

    # --- a turn, and a lease ----------------------------------------------------------------------

    def _ticket(self, spec: LoadSpec, errand: Errand) -> Ticket:
        loop = asyncio.get_running_loop()
        name = str(spec.name).lower()
        return Ticket(spec, spec.key, name, errand, loop.time(), loop.create_future())

    async def _turn(self, ticket: Ticket) -> Claim:
        """Wait for a worker; its slot is claimed."""
        loop = asyncio.get_running_loop()
        self.quarantine.check(ticket.model, len(self._workers))
        again = ticket.turn.done()
        if again:
            ticket.turn = loop.create_future()
        else:
            self._line.check(ticket.model, self._standing.service_s(ticket.key))
        self._line.enter(ticket, again=again)
        claim: Claim | None = None
        try:
            if self._line.head(ticket.key) is ticket:
                self._serve(ticket)
            claim = await self._wait(ticket)
        except TimeoutError as error:
            raise Unavailable("no worker had time for this model", 60) from error
        except RegistryError as error:
            self.meter.refused(error)
            raise
        finally:
            self._line.leave(ticket)
            self._chooser.forget(ticket)
            if claim is None:
                self._forgo(ticket)
        self.meter.waited(loop.time() - ticket.since)
        return claim

    async def _wait(self, ticket: Ticket) -> Claim:
        if ticket.turn.done():
            return ticket.turn.result()
        self._set_timer()
        async with asyncio.timeout_at(ticket.since + self._line.limits.wait_s):
            return await ticket.turn

    def _forgo(self, ticket: Ticket) -> None:
        """The client left, perhaps in the moment in which its turn had come."""
        turn = ticket.turn
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            self._standing.end(turn.result())
        self.refresh()

    @contextlib.asynccontextmanager
    async def _lease(
        self, ticket: Ticket, keep_alive_s: float | None
    ) -> AsyncIterator[Running | None]:
        """A lease from the worker whose turn it is; None if the worker did not give one."""
        claim = await self._turn(ticket)
        clock = asyncio.get_running_loop().time
        try:
            running = await self._acquire(ticket, claim)
            if running is None:
                yield None
                return
            began = clock()
            use = Use(ticket.spec.name, claim.worker, ticket.errand.account, began - ticket.since)
            try:
                yield self.meter.metered(running, use)
                use.complete = True
            finally:
                self._standing.took(ticket.key, clock() - began)
                await self._release(running, keep_alive_s)
                self.meter.done(use, clock() - began)
        finally:
            self._standing.end(claim)
            self.refresh()

    async def _acquire(self, ticket: Ticket, claim: Claim) -> Running | None:
        """Ask the worker; what it answers, if not a lease, is noted for the next choice."""
        worker = self._workers.get(claim.worker)
        if worker is None:
            return None
        now = asyncio.get_running_loop().time
        try:
            running = await worker.acquire(ticket.spec)
        except WorkerLost as error:
            self._note_loss(ticket, claim.worker, error)
            ticket.lost(claim.worker, error)
        except CannotRun as error:
            self._chooser.refusals.cannot(claim.worker, ticket.key, error, now())
        except Unavailable as error:
            others = self._standing.is_used(claim.worker, besides=claim)
            self._chooser.refusals.busy(claim.worker, ticket, error, now(), others=others)
        else:
            self.meter.loaded(claim.worker, running.load_ns)
            if self._chooser.refusals.forget(claim.worker, ticket.key) or running.load_ns:
                self.refresh()  # else nothing is new that the claim did not tell
            return running
        return None

    def _note_loss(self, ticket: Ticket, worker: str, error: WorkerLost) -> None:
        self.meter.lost(worker)
        log.info("a worker was lost", worker=worker, model=ticket.spec.name.short, error=str(error))

    async def _release(self, running: Running, keep_alive_s: float | None) -> None:
        """Not interrupted when the client goes away: the slot would stay taken."""
        task = asyncio.create_task(_give_back(running, keep_alive_s))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)
        await asyncio.shield(task)

    # --- the choice -------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        if self._line and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._set_timer()
        self.refresh()

    def _look(self) -> None:
        """Go through the rows, who has waited longest first; once more if there is news then."""
        self._is_old = False
        self._chooser.begin()
        self._look_at(self._line.heads())

    def _look_at(self, heads: list[Ticket]) -> None:
        for head in heads[:_AT_ONCE]:
            ticket: Ticket | None = head
            while ticket is not None and self._serve(ticket):
                ticket = self._line.head(ticket.key)
        loop = asyncio.get_running_loop()
        if heads[_AT_ONCE:]:
            loop.call_soon(self._look_at, heads[_AT_ONCE:])
        elif self._is_old and self._line:
            loop.call_soon(self._look)
        else:
            self._looking = False

    def _serve(self, ticket: Ticket) -> bool:
        """Give a ticket its turn or its refusal, if it is time; whether it left the row."""
        if ticket.turn.done():
            return False
        now = asyncio.get_running_loop().time()
        chosen = self._chooser.choose(ticket, self._line.count(ticket.key), now)
        if chosen is None:
            return False
        self._line.leave(ticket)
        if isinstance(chosen, Claim):
            ticket.turn.set_result(chosen)
        else:
            ticket.turn.set_exception(chosen)
        return True


async def _give_back(running: Running, keep_alive_s: float | None) -> None:
    try:
        await running.release(keep_alive_s)
    except RegistryError as error:
        log.info("a lease was not given back", worker=running.worker, error=str(error))
