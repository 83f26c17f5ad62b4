"""Models that take their runners down: after three times they rest.

Source: spec inference-and-gguf 4.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from registry.core.digest import Digest
from registry.core.errors import CannotRun

CRASHES = 3
WINDOW_S = 600.0
_KNOWN = 1_000


@dataclass(frozen=True, slots=True)
class Crash:
    """A runner that went away under a model. `at` in seconds of a clock that never goes back."""

    at: float
    worker: str
    reason: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Rest:
    """A model that is not run for a while, under the name it was last asked for."""

    name: str
    seconds: int
    reason: str


class Quarantine:
    """Three crashes within ten minutes, on two workers or the only one there is, are enough.

    It ends by itself when the window has passed over one of them: then the model is tried again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._crashes: OrderedDict[Digest, deque[Crash]] = OrderedDict()

    def note(self, model: Digest, worker: str, reason: str, name: str = "") -> None:
        """A worker that still lives has lost the runner of a model, which was asked for so."""
        crashes = self._crashes.setdefault(model, deque(maxlen=2 * CRASHES))
        crashes.append(Crash(self._clock(), worker, reason, name))
        self._crashes.move_to_end(model)
        if len(self._crashes) > _KNOWN:
            self._crashes.popitem(last=False)

    def forgive(self, model: Digest) -> None:
        """Forget the crashes of a model."""
        self._crashes.pop(model, None)

    def rests_s(self, model: Digest, workers: int) -> float:
        """How long the model must not run, of so many workers that could; 0 if it may."""
        crashes = self._recent(model)
        if len(crashes) < CRASHES or len({crash.worker for crash in crashes}) < min(2, workers):
            return 0.0
        return max(0.0, crashes[-CRASHES].at + WINDOW_S - self._clock())

    def check(self, model: Digest, workers: int) -> None:
        """Let a model pass that may run.

        Raises:
            CannotRun: it rests; the message has the last crash's reason.
        """
        rests_s = self.rests_s(model, workers)
        if rests_s:
            raise CannotRun(
                f"this model took down its runner {CRASHES} times within ten minutes and is not "
                f"run for {max(1, round(rests_s / 60))} more minutes; the last time: "
                f"{self._crashes[model][-1].reason}"
            )

    def resting(self, workers: int) -> list[Rest]:
        """Every model that must not run now."""
        rests = {model: self.rests_s(model, workers) for model in self._crashes}
        last = {model: self._crashes[model][-1] for model, seconds in rests.items() if seconds}
        return [
            Rest(crash.name, max(1, round(rests[model])), crash.reason)
            for model, crash in last.items()
        ]

    def models(self) -> tuple[Digest, ...]:
        """Every model that crashed lately."""
        return tuple(model for model in self._crashes if self._recent(model))

    def _recent(self, model: Digest) -> list[Crash]:
        start = self._clock() - WINDOW_S
        return [crash for crash in self._crashes.get(model, ()) if crash.at > start]
