"""Counts of troubles, and the table that is made of them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts of one kind of trouble."""

    rounds: int = 0
    requests: int = 0
    acknowledged: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    read: int = 0
    lost: int = 0
    slowest_s: float = 0.0
    recovered_s: float = 0.0
    live: int = 0  # looks at /healthz that were answered
    unready: int = 0  # looks at /readyz that told of the trouble
    look_s: float = 0.0  # the slowest of them


def lines(table: Mapping[str, Tally]) -> Iterator[str]:
    """The table, a line for each kind of trouble."""
    yield (
        "| trouble | rounds | requests | acknowledged | refused | broken off | read whole | "
        "lost | works again, s | slowest, s | health, s |"
    )
    yield "| --- " * 11 + "|"
    for name, tally in table.items():
        refused = ", ".join(f"{n} x {status}" for status, n in sorted(tally.refused.items()))
        yield (
            f"| {name} | {tally.rounds} | {tally.requests} | {tally.acknowledged} | "
            f"{refused or 0} | {tally.broken} | {tally.read} | {tally.lost} | "
            f"{tally.recovered_s:.1f} | {tally.slowest_s:.1f} | "
            f"{tally.look_s:.1f}, unready {tally.unready} of {tally.live} |"
        )
