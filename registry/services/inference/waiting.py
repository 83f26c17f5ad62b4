"""The requests that wait for a worker: bounded, first come first served within a model.

Source: spec inference-and-gguf 4, "Queues".
"""

import asyncio
from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from registry.core.digest import Digest
from registry.core.errors import RegistryError, Unavailable, WorkerLost
from registry.ports.workers import Dialect, LoadSpec
from registry.services.inference.standing import Claim

BUSY = "server busy, please try again.  maximum pending requests exceeded"
_RETRY_MAX_S = 120
RETRIES = 2


@dataclass(frozen=True, slots=True)
class Errand:
    """What the choice of a worker, and the books, want to know besides the model.

    `hint` is the same for requests of one conversation. `dialects` are those that the request can
    be put in. `account` is whom it is written up to.
    """

    hint: str = ""
    dialects: frozenset[Dialect] = frozenset(Dialect)
    account: str = ""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many may wait, in all and for one model, and for how long."""

    total: int = 512
    per_model: int = 64
    wait_s: float = 600.0


@dataclass(eq=False, slots=True)
class Ticket:
    """A request on its way to a worker. `since` is the loop's time at which it came.

    `key` is the spec's, `name` the model's full name in lower case.

    `avoided` are workers that were lost under it and are not asked again, `losses` how often that
    was, `failure` how the last was; `turn` gets the claim once it has come.
    """

    spec: LoadSpec
    key: str
    name: str
    errand: Errand
    since: float
    turn: asyncio.Future[Claim]
    avoided: set[str] = field(default_factory=set)
    losses: int = 0
    failure: RegistryError | None = None

    def lost(self, worker: str, error: WorkerLost) -> None:
        """A worker was lost under it: try another.

        Raises:
            WorkerLost: it is the third.
        """
        self.avoided.add(worker)
        self.failure = error
        self.losses += 1
        if self.losses > RETRIES:
            raise error

    @property
    def model(self) -> Digest:
        """The weights."""
        return self.spec.model.digest


class Line:
    """Who waits, by runner key and in order."""

    def __init__(self, limits: QueueLimits) -> None:
        self.limits = limits
        self._rows: OrderedDict[str, OrderedDict[Ticket, None]] = OrderedDict()
        self._models: Counter[Digest] = Counter()
        self._places: set[Ticket] = set()

    def __len__(self) -> int:
        return len(self._places)

    def check(self, model: Digest, service_s: float) -> None:
        """Refuse one more for the model; `service_s` is what one takes, 0 if not known.

        Raises:
            Unavailable: too many wait already.
        """
        waiting = self._models[model]
        if len(self._places) >= self.limits.total or waiting >= self.limits.per_model:
            estimate = round(service_s * max(waiting, 1)) if service_s else 5
            raise Unavailable(BUSY, max(1, min(estimate, _RETRY_MAX_S)))

    def enter(self, ticket: Ticket, *, again: bool = False) -> None:
        """Stand behind the others of the same runner; one that was served before stands first."""
        row = self._rows.setdefault(ticket.key, OrderedDict())
        row[ticket] = None
        if again:
            row.move_to_end(ticket, last=False)
        self._places.add(ticket)
        self._models[ticket.model] += 1

    def leave(self, ticket: Ticket) -> None:
        """Give up the place; nothing happens without one."""
        if ticket not in self._places:
            return
        self._places.discard(ticket)
        row = self._rows[ticket.key]
        del row[ticket]
        if not row:
            del self._rows[ticket.key]
        self._models[ticket.model] -= 1
        if not self._models[ticket.model]:
            del self._models[ticket.model]

    def is_awaited(self, key: str) -> bool:
        """Whether somebody stands there for that runner."""
        return key in self._rows

    def count(self, key: str) -> int:
        """How many do."""
        return len(self._rows.get(key, ()))

    def head(self, key: str) -> Ticket | None:
        """The first for that runner."""
        return next(iter(self._rows.get(key, ())), None)

    def heads(self) -> list[Ticket]:
        """The first of every row, who has waited longest before the others."""
        return sorted((next(iter(row)) for row in self._rows.values()), key=lambda one: one.since)
