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
from registry.core.placement import (
    Candidate,
    Demand,
    Obstacle,
    Placement,
    Refuse,
    Stay,
    Take,
    decide,
)
from registry.ports.workers import LoadSpec, Running, Worker, WorkerFacts
from registry.services.metering import Meter, Use
from registry.services.quarantine import Quarantine
from registry.services.refusals import NO_WORKER as NO_WORKER
from registry.services.refusals import Refusals, refusal
from registry.services.standing import Claim, Standing, runner_of
from registry.services.waiting import Errand, Line, QueueLimits, Ticket

T = TypeVar("T")

_RETRIES = 2
_LOOK_S = 0.5
_PATIENCE_S = 5.0
"""Whoever has waited so long for room gets the next that comes free on a worker."""
_AT_ONCE = 64
"""So many rows are looked at before others have their turn on the event loop."""
_ANYTHING = Errand()
_ANYWHERE = Placement()

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
        self._replicas_max = replicas_max
        self._workers: dict[str, Worker] = {}
        self._drained: frozenset[str] = frozenset()
        self._placements: dict[str, Placement] = {}
        self._pinned: frozenset[str] = frozenset()
        self._excuse = ""
        self._line = Line(limits or QueueLimits())
        self._standing = Standing()
        self._refusals = Refusals()
        self._reserved: dict[str, Ticket] = {}
        self._looking = False
        self._timer: asyncio.TimerHandle | None = None
        self._releases: set[asyncio.Task[None]] = set()
        self.meter.watch_queue(lambda: len(self._line))

    # --- workers ----------------------------------------------------------------------------------

    def add(self, worker: Worker) -> None:
        """Let a worker be asked; one of the same name is replaced, what runs on it goes on."""
        self._workers[worker.name] = worker
        self.refresh()

    def remove(self, name: str) -> None:
        """Ask a worker no more; what runs on it goes on. Closing it is the caller's."""
        self._workers.pop(name, None)
        self.refresh()

    def drain(self, names: Iterable[str]) -> None:
        """Send nothing new to these workers, and to all others again."""
        self._drained = frozenset(names)
        self.refresh()

    def place(self, placements: Mapping[ModelName, Placement]) -> None:
        """Set which models are placed and pinned."""
        self._placements = {str(name).lower(): item for name, item in placements.items()}
        self._pinned = frozenset(name for name, item in self._placements.items() if item.pinned)
        self.refresh()

    def excuse(self, text: str) -> None:
        """What to tell in place of "no inference worker is connected", while that is so."""
        self._excuse = text

    @property
    def problem(self) -> str:
        """Why nothing can be run; empty while there is a worker."""
        return "" if self._workers else self._excuse or NO_WORKER

    def refresh(self) -> None:
        """A worker has changed: look whether it takes somebody who waits."""
        if self._line and not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._look)

    def workers(self) -> tuple[Worker, ...]:
        """All of them, in the order they were added."""
        return tuple(self._workers.values())

    def is_draining(self, name: str) -> bool:
        """Whether nothing new is sent to the worker."""
        worker = self._workers.get(name)
        return name in self._drained or (worker is not None and worker.facts().draining)

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
            WorkerLost: the worker went away in mid-answer, or the third one before it.
        """
        if self._pinned and str(spec.name).lower() in self._pinned:
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
                    self._avoid(ticket, running.worker, error)

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
        while self._releases:
            await asyncio.gather(*self._releases, return_exceptions=True)

    # --- a turn, and a lease ----------------------------------------------------------------------

    def _ticket(self, spec: LoadSpec, errand: Errand) -> Ticket:
        loop = asyncio.get_running_loop()
        return Ticket(spec, spec.key, errand, loop.time(), loop.create_future())

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
                self._serve(ticket, self._known())
            self._set_timer()
            async with asyncio.timeout_at(ticket.since + self._line.limits.wait_s):
                claim = await ticket.turn
        except TimeoutError as error:
            raise Unavailable("no worker had time for this model", 60) from error
        except RegistryError as error:
            self.meter.refused(error)
            raise
        finally:
            self._line.leave(ticket)
            self._reserved = {at: one for at, one in self._reserved.items() if one is not ticket}
            if claim is None:
                self._forgo(ticket)
        self.meter.waited(loop.time() - ticket.since)
        return claim

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
            self._avoid(ticket, claim.worker, error)
        except CannotRun as error:
            self._refusals.cannot(claim.worker, ticket.key, error, now())
        except Unavailable as error:
            others = self._standing.is_used(claim.worker, besides=claim)
            self._refusals.busy(claim.worker, ticket, error, now(), others=others)
        else:
            self._refusals.forget(claim.worker, ticket.key)
            self.meter.loaded(claim.worker, running.load_ns)
            self.refresh()
            return running
        return None

    def _note_loss(self, ticket: Ticket, worker: str, error: WorkerLost) -> None:
        """A runner that crashed on a worker that lives speaks against the model."""
        self.meter.lost(worker)
        log.info("a worker was lost", worker=worker, model=ticket.spec.name.short, error=str(error))
        found = self._workers.get(worker)
        if found is not None and found.facts().reachable:
            self.quarantine.note(ticket.model, worker, str(error))

    def _avoid(self, ticket: Ticket, worker: str, error: WorkerLost) -> None:
        """Try another worker, if there is one and it is not the fourth."""
        ticket.avoided.add(worker)
        ticket.failure = error
        if len(ticket.avoided) > _RETRIES or ticket.avoided >= self._workers.keys():
            raise error

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
        """Go through the rows, who has waited longest first."""
        self._looking = False
        self._reserved.clear()
        self._look_at(self._line.heads())

    def _look_at(self, heads: list[Ticket]) -> None:
        known = self._known()
        for head in heads[:_AT_ONCE]:
            ticket: Ticket | None = head
            while ticket is not None and self._serve(ticket, known):
                ticket = self._line.head(ticket.key)
        if heads[_AT_ONCE:]:
            asyncio.get_running_loop().call_soon(self._look_at, heads[_AT_ONCE:])

    def _known(self) -> list[tuple[Worker, WorkerFacts]]:
        return [(worker, worker.facts()) for worker in self._workers.values()]

    def _serve(self, ticket: Ticket, known: list[tuple[Worker, WorkerFacts]]) -> bool:
        """Give a ticket its turn or its refusal, if it is time; whether it left the row."""
        if ticket.turn.done():
            return False
        now = asyncio.get_running_loop().time()
        demand = self._demand(ticket, now)
        decision = decide(demand, [self._candidate(ticket, *one, now) for one in known])
        if isinstance(decision, Stay):
            if decision.room_on and demand.waited_s > _PATIENCE_S:
                self._reserved.setdefault(decision.room_on, ticket)
            return False
        self._line.leave(ticket)
        if isinstance(decision, Refuse):
            cause = self._cause(ticket, now) if decision.obstacle is Obstacle.UNABLE else None
            ticket.turn.set_exception(cause or refusal(decision, demand, self._excuse))
            return True
        ticket.turn.set_result(self._claim(ticket, decision, known))
        return True

    def _cause(self, ticket: Ticket, now: float) -> RegistryError | None:
        """Why no worker is able: what it, or another request for the same, came upon."""
        return ticket.failure or self._refusals.cause(ticket.key, now)

    def _claim(
        self, ticket: Ticket, decision: Take, known: list[tuple[Worker, WorkerFacts]]
    ) -> Claim:
        worker, facts = next(one for one in known if one[0].name == decision.worker)
        claim = Claim(worker.name, runner_of(worker, facts, ticket.spec), ticket.spec.memory)
        self._standing.begin(claim)
        return claim

    def _demand(self, ticket: Ticket, now: float) -> Demand:
        spec = ticket.spec
        placement = self._placements.get(str(spec.name).lower(), _ANYWHERE)
        return Demand(
            key=ticket.key,
            model=str(ticket.model),
            memory=spec.memory,
            labels=placement.labels,
            hint=ticket.errand.hint,
            waited_s=now - ticket.since,
            ahead=self._line.count(ticket.key),
            service_s=self._standing.service_s(ticket.key),
            replicas_max=self._replicas_max,
        )

    def _candidate(
        self, ticket: Ticket, worker: Worker, facts: WorkerFacts, now: float
    ) -> Candidate:
        able = (
            worker.dialect in ticket.errand.dialects
            and (facts.models is None or str(ticket.spec.name).lower() in facts.models)
            and worker.name not in ticket.avoided
            and not self._refusals.is_final(worker.name, ticket.key, now)
        )
        holder = self._reserved.get(worker.name, ticket)
        held = holder is not ticket or self._refusals.is_busy(worker.name, ticket.key, now)
        found = self._standing.candidate(worker, facts, ticket.spec, self._pinned)
        draining = found.draining or worker.name in self._drained
        return replace(found, able=able, held=held or found.held, draining=draining)


async def _give_back(running: Running, keep_alive_s: float | None) -> None:
    try:
        await running.release(keep_alive_s)
    except RegistryError as error:
        log.info("a lease was not given back", worker=running.worker, error=str(error))
