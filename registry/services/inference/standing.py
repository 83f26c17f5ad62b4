"""What this process has sent to which worker, and how workers look in the light of it.

Facts of a worker on another machine are some seconds old; what we sent ourselves is known at once,
so both are put together here. The worker stays the arbiter: another library may send to it too.

Source: spec inference-and-gguf 4.
"""

from collections import Counter, OrderedDict
from collections.abc import Mapping
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
    """Claims on runners by worker, and how long requests take."""

    def __init__(self) -> None:
        self._claims: dict[str, Counter[Claim]] = {}
        self._service_s: OrderedDict[str, float] = OrderedDict()

    def begin(self, claim: Claim) -> None:
        """Hold a claim until `end`."""
        self._claims.setdefault(claim.worker, Counter())[claim] += 1

    def end(self, claim: Claim) -> None:
        """Let go of it."""
        claims = self._claims[claim.worker]
        claims[claim] -= 1
        if not claims[claim]:
            del claims[claim]
        if not claims:
            del self._claims[claim.worker]

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
        count = sum(self._claims.get(worker, {}).values())
        return count > (besides is not None)

    def stance(self, worker: Worker, pinned: frozenset[str]) -> "Stance":
        """The worker as it is now; `pinned` are names, in lower case, of models that must stay."""
        return Stance(worker, self._claims.get(worker.name, {}), pinned)


class Stance:
    """A worker in one moment: its facts and our claims put together, for any number of requests."""

    def __init__(self, worker: Worker, claims: Mapping[Claim, int], pinned: frozenset[str]) -> None:
        self.worker = worker
        self.facts = facts = worker.facts()
        self._loaded = {item.key: item for item in facts.loaded}
        self._ours: Counter[str] = Counter()
        self._unlisted = 0
        self._loads = sum(item.loading for item in facts.loaded)
        self._idle = {item.key: item.size for item in facts.loaded if _is_idle(item, pinned)}
        for claim, count in claims.items():
            self.add(claim, count)

    def add(self, claim: Claim, count: int = 1) -> None:
        """Count a claim that was made since."""
        if not self._ours[claim.runner] and claim.runner not in self._loaded:
            self._unlisted += claim.memory
            self._loads += 1
        self._idle.pop(claim.runner, None)
        self._ours[claim.runner] += count

    def candidate(
        self, spec: LoadSpec, *, able: bool = True, held: bool = False, drained: bool = False
    ) -> Candidate:
        """The worker as the rules see it for one model; what only the caller knows is given."""
        facts = self.facts
        runner = runner_of(self.worker, facts, spec)
        found, mine = self._loaded.get(runner), self._ours[runner]
        return Candidate(
            name=self.worker.name,
            able=able,
            draining=drained or facts.draining or not facts.reachable,
            labels=facts.labels,
            memory_total=facts.memory_total,
            memory_free=max(0, facts.memory_free - self._unlisted),
            memory_idle=sum(self._idle.values()) if facts.memory_total else 0,
            presence=Presence.READY if facts.models is not None else _presence(found, mine),
            slots=max(1, found.slots if found else facts.slots or spec.options.parallel),
            taken=max(found.busy + found.waiting if found else 0, mine),
            ours=mine,
            missing=_missing(self.worker, facts, spec),
            loads=self._loads,
            load_bytes_per_s=facts.load_bytes_per_s,
            held=held or (runner in self._idle and self._makes_room),
        )

    @property
    def _makes_room(self) -> bool:
        """Whether a load is on its way there for which idle runners will have to go."""
        return self.facts.memory_total > 0 and self._unlisted > self.facts.memory_free


def _presence(found: Loaded | None, ours: int) -> Presence:
    if found is None:
        return Presence.LOADING if ours else Presence.ABSENT
    return Presence.LOADING if found.loading else Presence.READY


def _is_idle(item: Loaded, pinned: frozenset[str]) -> bool:
    busy = item.busy or item.waiting or item.loading
    return not busy and not (pinned and str(item.name).lower() in pinned)


def _missing(worker: Worker, facts: WorkerFacts, spec: LoadSpec) -> int:
    if facts.has_all or facts.models is not None:
        return 0
    if worker.dialect is Dialect.OLLAMA and spec.manifest in facts.cached:
        return 0
    return sum(blob.size for blob in spec.blobs if blob.digest not in facts.cached)
