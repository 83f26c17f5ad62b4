"""What this process has sent to which worker, and how workers look in the light of it.

Facts of a worker on another machine are some seconds old; what we sent ourselves is known at once,
so both are put together here. The worker stays the arbiter: another library may send to it too.

Source: spec inference-and-gguf 4.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass

from registry.core.placement import Candidate, Presence
from registry.ports.workers import Dialect, Loaded, LoadSpec, Worker, WorkerFacts

_KNOWN = 1_000
_NEWEST = 0.3
"""Weight of the newest time in the running mean of how long a request takes."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A request that was sent to a worker, from before it is acquired until it is released."""

    worker: str
    runner: str
    memory: int


def runner_of(worker: Worker, facts: WorkerFacts, spec: LoadSpec) -> str:
    """The key under which the worker's facts list the spec's runner."""
    if facts.models is not None:
        return str(spec.name).lower()
    return str(spec.manifest) if worker.dialect is Dialect.OLLAMA else spec.key


class Standing:
    """Claims on runners, and how long requests take."""

    def __init__(self) -> None:
        self._claims: Counter[Claim] = Counter()
        self._service_s: OrderedDict[str, float] = OrderedDict()

    def begin(self, claim: Claim) -> None:
        """Hold a claim until `end`."""
        self._claims[claim] += 1

    def end(self, claim: Claim) -> None:
        """Let go of it."""
        self._claims[claim] -= 1
        if not self._claims[claim]:
            del self._claims[claim]

    def service_s(self, key: str) -> float:
        """What a request of that runner takes, 0 if not known."""
        return self._service_s.get(key, 0.0)

    def took(self, key: str, seconds: float) -> None:
        """A request of that runner is done."""
        known = self._service_s.pop(key, seconds)
        self._service_s[key] = known + _NEWEST * (seconds - known)
        if len(self._service_s) > _KNOWN:
            self._service_s.popitem(last=False)

    def is_used(self, worker: str, besides: Claim | None = None) -> bool:
        """Whether anything of ours is there, one claim left aside."""
        count = sum(n for claim, n in self._claims.items() if claim.worker == worker)
        return count > (besides is not None)

    def candidate(
        self, worker: Worker, facts: WorkerFacts, spec: LoadSpec, pinned: frozenset[str]
    ) -> Candidate:
        """The worker as the rules see it, ability aside; `pinned` are names that must stay."""
        runner = runner_of(worker, facts, spec)
        found = next((item for item in facts.loaded if item.key == runner), None)
        ours = {claim: n for claim, n in self._claims.items() if claim.worker == worker.name}
        mine = sum(count for claim, count in ours.items() if claim.runner == runner)
        used = {claim.runner for claim in ours}
        listed = {item.key for item in facts.loaded}
        unlisted = sum(claim.memory for claim in ours if claim.runner not in listed)
        idle = [item for item in facts.loaded if _is_idle(item, used, pinned)]
        slots = max(1, found.slots if found else facts.slots or spec.options.parallel)
        taken = max(found.busy + found.waiting if found else 0, mine)
        return Candidate(
            name=worker.name,
            draining=facts.draining or not facts.reachable,
            labels=facts.labels,
            memory_total=facts.memory_total,
            memory_free=max(0, facts.memory_free - unlisted),
            memory_idle=sum(item.size for item in idle),
            presence=Presence.READY if facts.models is not None else _presence(found, mine),
            slots=slots,
            taken=taken,
            ours=mine,
            missing=_missing(worker, facts, spec),
            loads=sum(item.loading for item in facts.loaded) + len(used - listed),
            load_bytes_per_s=facts.load_bytes_per_s,
            # a load is on its way there that idle runners will have to make room for
            held=found in idle and facts.memory_total > 0 and unlisted > facts.memory_free,
        )


def _presence(found: Loaded | None, ours: int) -> Presence:
    if found is None:
        return Presence.LOADING if ours else Presence.ABSENT
    return Presence.LOADING if found.loading else Presence.READY


def _is_idle(item: Loaded, used: set[str], pinned: frozenset[str]) -> bool:
    busy = item.busy or item.waiting or item.loading or item.key in used
    return not busy and str(item.name).lower() not in pinned


def _missing(worker: Worker, facts: WorkerFacts, spec: LoadSpec) -> int:
    if facts.has_all or facts.models is not None:
        return 0
    if worker.dialect is Dialect.OLLAMA and spec.manifest in facts.cached:
        return 0
    return sum(blob.size for blob in spec.blobs if blob.digest not in facts.cached)
