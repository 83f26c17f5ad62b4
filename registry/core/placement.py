"""Which worker a model runs on: the rules, as a function of what is known of the workers.

Nothing here waits or remembers; who asks keeps the queue and asks again when something changed.

Source: spec inference-and-gguf 4.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

LOOKAHEAD = 1
"""So many requests more than slots are sent to a runner: the next one is there when one ends."""
SPREAD_AFTER_S = 10.0
"""A queue that has stood for so long is reason enough to load a model a second time."""
_LOAD_BYTES_PER_S = 500_000_000
"""Where no speed of loading was seen yet: a fast disk."""
_FETCH_BYTES_PER_S = 100_000_000
_LEAST_LOAD_S = 1.0


@dataclass(frozen=True, slots=True)
class Placement:
    """What was decided for a model: labels its workers must have, and whether it stays loaded."""

    labels: frozenset[str] = frozenset()
    pinned: bool = False


class Presence(Enum):
    """What a worker has of the model that is asked for."""

    ABSENT = "absent"
    LOADING = "loading"
    READY = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is asked for. `key` is the runner's, `model` the weights' digest; sizes in bytes.

    `labels` are those a worker must have. `hint` is the same for requests that profit from each
    other's prompt cache. `waited_s` is how long this one has stood in the queue, `queued` how many
    stand in it for the same, this one included, `service_s` what one takes, 0 if not known.
    """

    key: str
    model: str
    memory: int = 0
    size: int = 0
    labels: frozenset[str] = frozenset()
    hint: str = ""
    waited_s: float = 0.0
    queued: int = 1
    service_s: float = 0.0
    replicas_max: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A worker in the light of one demand. Memory in bytes; a total of 0 is not known.

    `able` says that it runs such models at all. `memory_idle` is held by runners that could go.
    `slots` and `taken` are those of the model's runner, `taken` with who waits at the worker;
    `ours` are the requests among them that this process has sent, running or not. `missing` are
    the bytes it would have to fetch first. `held` says that its next free slots belong to someone
    who waits for room there.
    """

    name: str
    able: bool = True
    draining: bool = False
    labels: frozenset[str] = frozenset()
    memory_total: int = 0
    memory_free: int = 0
    memory_idle: int = 0
    presence: Presence = Presence.ABSENT
    slots: int = 1
    taken: int = 0
    ours: int = 0
    missing: int = 0
    loads: int = 0
    load_bytes_per_s: int = 0
    held: bool = False

    @property
    def free_slots(self) -> int:
        """Slots that nobody has or waits for."""
        return max(0, self.slots - self.taken)

    def fits(self, memory: int) -> bool:
        """Whether there is room as it stands."""
        return self.memory_total == 0 or memory <= self.memory_free

    def can_fit(self, memory: int) -> bool:
        """Whether there is room once what is idle has gone."""
        return self.memory_total == 0 or memory <= self.memory_free + self.memory_idle

    def load_s(self, demand: Demand) -> float:
        """Estimate of the time until the model is ready here."""
        loading = demand.memory / (self.load_bytes_per_s or _LOAD_BYTES_PER_S)
        return max(_LEAST_LOAD_S, self.missing / _FETCH_BYTES_PER_S + loading)


@dataclass(frozen=True, slots=True)
class Take:
    """Ask this worker."""

    worker: str


@dataclass(frozen=True, slots=True)
class Stay:
    """Stand in the queue.

    `room_on` is the worker where requests of other models are in the way; empty if the model itself
    is busy.
    """

    room_on: str = ""


class Obstacle(Enum):
    """Why waiting would not help."""

    NO_WORKER = "no worker"
    DRAINING = "draining"
    UNABLE = "unable"
    LABELS = "labels"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Refuse:
    """No worker will ever do; `memory` is the most that one has, in bytes."""

    obstacle: Obstacle
    memory: int = 0


Decision = Take | Stay | Refuse


def decide(demand: Demand, candidates: Sequence[Candidate]) -> Decision:
    """The first rule that yields a worker decides."""
    allowed = _allowed(demand, candidates)
    if isinstance(allowed, Refuse):
        return allowed
    having = [item for item in allowed if item.presence is not Presence.ABSENT]
    free = [
        item
        for item in having
        if item.presence is Presence.READY and item.free_slots and not item.held
    ]
    if free:
        most = max(item.free_slots for item in free)
        equal = [item for item in free if item.free_slots == most]
        return Take(_rendezvous(demand.key + demand.hint, equal).name)
    absent = [item for item in allowed if item.presence is Presence.ABSENT and not item.held]
    if having:
        return _beside(demand, having, absent)
    chosen = _to_load(demand, absent)
    if chosen is not None:
        return Take(chosen.name)
    return Stay(_roomiest(demand, allowed))


def _allowed(demand: Demand, candidates: Sequence[Candidate]) -> list[Candidate] | Refuse:
    """Rule 1; who fails it says what the last of the reasons was."""
    found = list(candidates)
    tests: list[tuple[Obstacle, Callable[[Candidate], bool]]] = [
        (Obstacle.DRAINING, lambda item: not item.draining),
        (Obstacle.LABELS, lambda item: demand.labels <= item.labels),
        (Obstacle.UNABLE, lambda item: item.able),
        (Obstacle.MEMORY, lambda item: not 0 < item.memory_total < demand.memory),
    ]
    if not found:
        return Refuse(Obstacle.NO_WORKER)
    for obstacle, test in tests:
        passed = [item for item in found if test(item)]
        if not passed:
            return Refuse(obstacle, max(item.memory_total for item in found))
        found = passed
    return found


def _beside(demand: Demand, having: list[Candidate], absent: list[Candidate]) -> Decision:
    """The model is somewhere, without a free slot: wait there, load it again, or queue."""
    idle = [item for item in absent if item.fits(demand.memory)]
    if idle and len(having) < demand.replicas_max:
        other = _to_load(demand, idle)
        if other is not None and _spreads(demand, having, other):
            return Take(other.name)
    open_ = [item for item in having if item.ours < _most_sent(item) and not item.held]
    if open_:
        least = min(item.taken / item.slots for item in open_)
        equal = [item for item in open_ if item.taken / item.slots == least]
        return Take(_rendezvous(demand.key + demand.hint, equal).name)
    return Stay()


def _most_sent(item: Candidate) -> int:
    """While it loads nobody knows whether it will: no more than there are slots."""
    return item.slots + (LOOKAHEAD if item.presence is Presence.READY else 0)


def _spreads(demand: Demand, having: list[Candidate], other: Candidate) -> bool:
    if demand.waited_s >= SPREAD_AFTER_S:
        return True
    slots = sum(item.slots for item in having)
    waiting = sum(max(0, item.taken - item.slots) for item in having) + demand.queued
    return demand.service_s * waiting / slots > other.load_s(demand)


def _to_load(demand: Demand, absent: Sequence[Candidate]) -> Candidate | None:
    """Rule 4: at hand before fetched, no eviction before eviction, then the most free memory."""

    def rank(item: Candidate) -> tuple[bool, bool, bool, int]:
        return (item.missing > 0, not item.fits(demand.memory), item.loads > 0, -item.memory_free)

    fitting = [item for item in absent if item.can_fit(demand.memory)]
    if not fitting:
        return None
    best = min(rank(item)[:3] for item in fitting)
    equal = [item for item in fitting if rank(item)[:3] == best]
    if best[0]:
        most = max(item.memory_free for item in equal)
        equal = [item for item in equal if item.memory_free == most]
    return _rendezvous(demand.model, equal)


def _roomiest(demand: Demand, allowed: Sequence[Candidate]) -> str:
    """Where a load has the least in its way; the same one every time it is asked."""
    most = max(item.memory_free + item.memory_idle for item in allowed)
    equal = [item for item in allowed if item.memory_free + item.memory_idle == most]
    return _rendezvous(demand.model, equal).name


def _rendezvous(text: str, items: Sequence[Candidate]) -> Candidate:
    """The same one for the same text, whichever others come and go."""
    return max(items, key=lambda item: (weight(text, item.name), item.name))


def weight(text: str, name: str) -> bytes:
    """Rank of a worker for a text; the highest one wins."""
    return hashlib.blake2b(f"{text}\n{name}".encode(), digest_size=8).digest()
