"""Two sides that do the same work in turn, round after round, and how they compare.

Not a program of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

Work = Callable[[], Mapping[str, float]]
"""What was measured, by its unit; of those that end in "ms" less is better."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round came to; CPU seconds by who used them."""

    values: Mapping[str, float]
    cpu: Mapping[str, float]
    requests: int


def measured(cpu: Callable[[], Mapping[str, float]], requests: int, work: Work) -> Round:
    """Do the work of so many requests and see what it cost."""
    before = cpu()
    values = work()
    after = cpu()
    return Round(values, {name: after[name] - before[name] for name in before}, requests)


def compare(what: str, rounds: int, sides: Mapping[str, Callable[[], Round]]) -> None:
    """Print the medians of both, how the first does beside the second, and what it cost.

    The ratios are of the medians and of the best rounds; more than 1 means that the first is ahead.
    """
    for side in sides.values():
        side()
    done: dict[str, list[Round]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in reversed(sides.items()):
            done[name].append(side())
    for unit in next(iter(done.values()))[0].values:
        first, second = ([one.values[unit] for one in side] for side in done.values())
        less = unit.endswith("ms")
        best = min if less else max
        ratios = [
            two / one if less else one / two
            for one, two in ((median(first), median(second)), (best(first), best(second)))
        ]
        figures = "   ".join(
            f"{name} {median(values):9.2f}"
            for name, values in zip(done, (first, second), strict=True)
        )
        print(f"{what + ', ' + unit:<50} {figures}   ratio {ratios[0]:5.2f}, best {ratios[1]:5.2f}")
    costs = [
        f"{who} {1e3 * sum(one.cpu[who] / one.requests for one in side) / rounds:.2f}"
        for side in done.values()
        for who in side[0].cpu
    ]
    print(f"{'':<50} CPU ms a request: {', '.join(costs)}", flush=True)
