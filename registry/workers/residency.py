"""Which models stay in memory: a pure decision from sizes, ages and pins.

Idle models make room, in this order: those whose time is up, then by how little of it is left for
how much they hold. One that is pinned, busy or loading never goes. More than is needed never goes.

Source: spec inference-and-gguf 4, "Eviction in a worker".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import inf


@dataclass(frozen=True, slots=True)
class Resident:
    """A loaded model. `size` in bytes; `left_s` until it may go of itself, None for never."""

    key: str
    size: int
    busy: bool = False
    pinned: bool = False
    left_s: float | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """What all models together may hold: bytes, and how many there may be (0: any number)."""

    memory: int
    models: int = 0


class Verdict(Enum):
    """Whether a model can be loaded."""

    NOW = "now"
    LATER = "later"
    """Once a busy one is idle, or a pinned one is let go."""
    NEVER = "never"
    """It alone is more than there is."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: with `NOW`, unload `evict` first."""

    verdict: Verdict
    evict: tuple[str, ...] = ()


def make_room(residents: Sequence[Resident], need: int, budget: Budget) -> Plan:
    """How to get `need` bytes for one more model."""
    if need > budget.memory:
        return Plan(Verdict.NEVER)
    candidates = sorted(
        (item for item in residents if not item.busy and not item.pinned), key=_worth
    )
    chosen: list[Resident] = []
    for item in candidates:
        if _fits(residents, chosen, need, budget):
            break
        chosen.append(item)
    if not _fits(residents, chosen, need, budget):
        return Plan(Verdict.LATER)
    for item in list(chosen):
        others = [other for other in chosen if other is not item]
        if _fits(residents, others, need, budget):  # a later one made room enough for both
            chosen = others
    return Plan(Verdict.NOW, tuple(item.key for item in chosen))


def drainable(residents: Sequence[Resident], need: int, budget: Budget) -> tuple[str, ...]:
    """Which ones are to end for it where `make_room` says later: busy ones too, pinned ones not."""
    idle = [replace(item, busy=False) for item in residents]
    return make_room(idle, need, budget).evict


def evictable(residents: Sequence[Resident]) -> tuple[str, ...]:
    """All that could go."""
    return tuple(item.key for item in residents if not item.busy and not item.pinned)


def _worth(item: Resident) -> tuple[float, int, str]:
    left = inf if item.left_s is None else max(0.0, item.left_s)
    return (left / max(1, item.size), -item.size, item.key)


def _fits(
    residents: Sequence[Resident], evicted: Sequence[Resident], need: int, budget: Budget
) -> bool:
    held = sum(item.size for item in residents) - sum(item.size for item in evicted)
    count = len(residents) - len(evicted)
    return held + need <= budget.memory and (budget.models == 0 or count < budget.models)
