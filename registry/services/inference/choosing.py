"""The choice of a worker for a request that waits: what the rules need is put together here.

Source: spec inference-and-gguf 4.
"""

import asyncio
from collections.abc import Iterable, Mapping

from registry.core.errors import RegistryError
from registry.core.names import ModelName
from registry.core.placement import (
    Candidate,
    Demand,
    Obstacle,
    Placement,
    Refuse,
    Stay,
    decide,
)
from registry.ports.workers import Worker
from registry.services.inference.refusals import Refusals, refusal
from registry.services.inference.standing import Claim, Stance, Standing, runner_of
from registry.services.inference.waiting import Ticket

PATIENCE_S = 5.0
"""Whoever has waited so long for room gets the next that comes free on a worker."""
_ANYWHERE = Placement()


class Chooser:
    """The workers, what is decided for models, and what was sent and refused lately."""

    def __init__(self, replicas_max: int) -> None:
        self.workers: dict[str, Worker] = {}
        self.drained: frozenset[str] = frozenset()
        self.standing = Standing()
        self.refusals = Refusals()
        self.excuse = ""
        self._replicas_max = replicas_max
        self._placements: dict[str, Placement] = {}
        self._pinned: frozenset[str] = frozenset()
        self._reserved: dict[str, Ticket] = {}
        self._stances: dict[str, Stance] = {}

    def drain(self, names: Iterable[str]) -> None:
        """Send nothing new to these workers, and to all others again."""
        self.drained = frozenset(names)

    def place(self, placements: Mapping[ModelName, Placement]) -> None:
        """Set which models are placed and pinned."""
        self._placements = {str(name).lower(): item for name, item in placements.items()}
        self._pinned = frozenset(name for name, item in self._placements.items() if item.pinned)

    def is_pinned(self, name: ModelName) -> bool:
        """Whether a model is to stay loaded."""
        return bool(self._pinned) and str(name).lower() in self._pinned

    def forget(self, ticket: Ticket | None = None) -> None:
        """What was seen of workers is old; with a ticket, it reserves nothing any more."""
        self._stances.clear()
        if ticket is not None:
            self._reserved = {at: one for at, one in self._reserved.items() if one is not ticket}

    def begin(self) -> None:
        """All who wait are looked at anew, the oldest first."""
        self._reserved.clear()

    def choose(self, ticket: Ticket, queued: int, now: float) -> Claim | RegistryError | None:
        """A slot, claimed already; why there will be none; or nothing yet.

        `queued` wait for the same, the ticket included; `now` is the loop's time.
        """
        known = self._known()
        demand = self._demand(ticket, queued, now)
        decision = decide(demand, [self._candidate(ticket, one, now) for one in known.values()])
        if isinstance(decision, Refuse) and ticket.avoided and ticket.losses == 1:
            ticket.avoided.clear()  # there is no other: a fresh runner may do it
            decision = decide(demand, [self._candidate(ticket, one, now) for one in known.values()])
        if isinstance(decision, Stay):
            if decision.room_on and demand.waited_s > PATIENCE_S:
                self._reserved.setdefault(decision.room_on, ticket)
            return None
        if isinstance(decision, Refuse):
            return self._cause(ticket, decision, now) or refusal(decision, demand, self.excuse)
        stance = known[decision.worker]
        runner = runner_of(stance.worker, stance.facts, ticket.spec)
        claim = Claim(stance.worker.name, runner, ticket.spec.memory)
        self.standing.begin(claim)
        stance.add(claim)
        return claim

    def _known(self) -> dict[str, Stance]:
        """The workers as they are: kept for one turn of the event loop, in which many may ask."""
        if not self._stances and self.workers:
            asyncio.get_running_loop().call_soon(self._stances.clear)
            for name, worker in self.workers.items():
                self._stances[name] = self.standing.stance(worker, self._pinned)
        return self._stances

    def _cause(self, ticket: Ticket, decision: Refuse, now: float) -> RegistryError | None:
        """Why no worker is able: what it, or another request for the same, came upon."""
        if ticket.failure is not None:
            return ticket.failure
        if decision.obstacle is not Obstacle.UNABLE:
            return None
        return self.refusals.cause(ticket.key, now)

    def _demand(self, ticket: Ticket, queued: int, now: float) -> Demand:
        return Demand(
            key=ticket.key,
            model=str(ticket.model),
            memory=ticket.spec.memory,
            labels=self._placements.get(ticket.name, _ANYWHERE).labels,
            hint=ticket.errand.hint,
            waited_s=now - ticket.since,
            queued=queued,
            service_s=self.standing.service_s(ticket.key),
            replicas_max=self._replicas_max,
        )

    def _candidate(self, ticket: Ticket, stance: Stance, now: float) -> Candidate:
        worker, facts = stance.worker, stance.facts
        able = (
            worker.dialect in ticket.errand.dialects
            and (facts.models is None or ticket.name in facts.models)
            and worker.name not in ticket.avoided
            and not self.refusals.is_final(worker.name, ticket.key, now)
        )
        holder = self._reserved.get(worker.name, ticket)
        held = holder is not ticket or self.refusals.is_busy(worker.name, ticket.key, now)
        drained = worker.name in self.drained
        return stance.candidate(ticket.spec, able=able, held=held, drained=drained)
