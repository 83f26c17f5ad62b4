"""What workers answered in place of a lease: not now, or never; and what the caller is told.

Source: spec inference-and-gguf 4.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from registry.core.errors import CannotRun, RegistryError, Unavailable
from registry.core.placement import Demand, Obstacle, Refuse
from registry.services.inference.waiting import Ticket

NO_WORKER = "no inference worker is connected to this server"
NO_WORKER_RETRY_S = 30
_FINAL_S = 60.0
"""After that a worker is asked again whether it can run a model: it may have got a new engine."""
_BUSY_S = 1.0
_GIVE_UP_S = 30.0
"""A worker on which nothing of ours runs, and that has no time for so long, is not going to."""
_KNOWN = 4_096


@dataclass(slots=True)
class Refusals:
    """By worker and runner key, for as long as they count."""

    _final: OrderedDict[tuple[str, str], tuple[float, CannotRun]] = field(
        default_factory=OrderedDict
    )
    _busy: OrderedDict[tuple[str, str], tuple[float, float]] = field(default_factory=OrderedDict)

    def cannot(self, worker: str, key: str, error: CannotRun, now: float) -> None:
        """The worker can never run it."""
        self._final[worker, key] = (now + _FINAL_S, error)
        if len(self._final) > _KNOWN:
            self._final.popitem(last=False)

    def busy(
        self, worker: str, ticket: Ticket, error: Unavailable, now: float, *, others: bool
    ) -> None:
        """The worker has no time; `others` of our requests there will end some time.

        Raises:
            Unavailable: the same, if there is no hope.
        """
        since, _ = self._busy.get((worker, ticket.key), (now, 0.0))
        if others:
            since = now
        elif now - since >= _GIVE_UP_S:
            del self._busy[worker, ticket.key]
            raise error
        self._busy[worker, ticket.key] = (since, now + _BUSY_S)
        if len(self._busy) > _KNOWN:
            self._busy.popitem(last=False)

    def forget(self, worker: str, key: str) -> bool:
        """It has given a lease after all; whether it had not."""
        return self._busy.pop((worker, key), None) is not None

    def is_final(self, worker: str, key: str, now: float) -> bool:
        """Whether the worker cannot run it."""
        return self._final.get((worker, key), (0.0, None))[0] > now

    def is_busy(self, worker: str, key: str, now: float) -> bool:
        """Whether there is no point in asking it again yet."""
        return self._busy.get((worker, key), (0.0, 0.0))[1] > now

    def cause(self, key: str, now: float) -> RegistryError | None:
        """What the last worker said that cannot run it."""
        for (_, known), (until, error) in reversed(self._final.items()):
            if known == key and until > now:
                return CannotRun(str(error))
        return None


def refusal(decision: Refuse, demand: Demand, excuse: str) -> RegistryError:
    """The error for a decision; `excuse` is why there is no worker, if that is known."""
    match decision.obstacle:
        case Obstacle.NO_WORKER:
            return Unavailable(excuse or NO_WORKER, NO_WORKER_RETRY_S)
        case Obstacle.DRAINING:
            return Unavailable("no worker takes requests: they drain or do not answer", 15)
        case Obstacle.LABELS:
            labels = ", ".join(sorted(demand.labels))
            return Unavailable(f"no worker has what this model is placed on: {labels}", 30)
        case Obstacle.MEMORY:
            needs, has = _gib(demand.memory), _gib(decision.memory)
            return CannotRun(
                f"model requires more system memory ({needs}) than is available ({has})"
            )
        case Obstacle.UNABLE:
            return CannotRun("no connected worker can run this model in the way that was asked")


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
