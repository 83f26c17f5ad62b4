"""When a model rests, and for how long."""

import pytest

from registry.core.digest import Digest
from registry.core.errors import CannotRun
from registry.services.inference.quarantine import Quarantine, Rest

MODEL = Digest.of(b"model")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def crashed(*crashes: tuple[float, str]) -> tuple[Quarantine, Clock]:
    """A quarantine at the time of the last of some crashes."""
    clock = Clock()
    made = Quarantine(clock)
    for at, worker in crashes:
        clock.now = 1000.0 + at
        made.note(MODEL, worker, f"crash of {at:g}")
    return made, clock


@pytest.mark.parametrize(
    ("crashes", "workers", "rests_s"),
    [
        ([(0, "a"), (1, "b")], 2, 0),
        ([(0, "a"), (1, "a"), (2, "b")], 2, 598),
        ([(0, "a"), (1, "a"), (2, "a")], 2, 0),
        ([(0, "a"), (1, "a"), (2, "a")], 1, 598),
        ([(0, "a"), (1, "b"), (601, "a")], 2, 0),
        ([(0, "a"), (300, "b"), (599, "a"), (601, "b")], 2, 299),
    ],
)
def test_three_crashes_within_ten_minutes_on_two_workers_or_the_only_one(
    crashes: list[tuple[float, str]], workers: int, rests_s: float
) -> None:
    made, _ = crashed(*crashes)
    assert made.rests_s(MODEL, workers) == rests_s


def test_a_model_that_rests_is_told_why_and_ends_it_by_itself() -> None:
    made, clock = crashed((0, "a"), (1, "b"), (2, "a"))
    with pytest.raises(CannotRun, match=r"run for 10 more minutes; the last time: crash of 2"):
        made.check(MODEL, 2)
    made.check(Digest.of(b"other"), 2)
    assert made.resting(2) == [Rest("", 598, "crash of 2")]
    assert made.resting(9)
    assert made.models() == (MODEL,)
    clock.now = 1601.0
    made.check(MODEL, 2)
    assert made.resting(2) == []
    clock.now = 2000.0
    assert made.models() == ()


def test_crashes_are_forgiven_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = crashed((0, "a"), (1, "b"), (2, "a"))
    made.forgive(MODEL)
    made.check(MODEL, 2)
    monkeypatch.setattr("registry.services.inference.quarantine._KNOWN", 2)
    for number in range(5):
        made.note(Digest.of(bytes([number])), "a", "")
    assert made.models() == (Digest.of(b"\x03"), Digest.of(b"\x04"))
