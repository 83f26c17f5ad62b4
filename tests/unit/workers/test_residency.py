"""What makes room for what: a table of decisions."""

import pytest

from registry.workers.residency import (
    Budget,
    Plan,
    Resident,
    Verdict,
    drainable,
    evictable,
    make_room,
)


def held(key: str, size: int, left_s: float | None = 60.0, *, busy: bool = False) -> Resident:
    return Resident(key, size, busy=busy, left_s=left_s)


PINNED = Resident("pinned", 40, pinned=True, left_s=None)


@pytest.mark.parametrize(
    ("residents", "need", "models", "evicted"),
    [
        ([], 100, 0, ""),
        ([held("a", 40)], 60, 0, ""),
        ([held("a", 40)], 61, 0, "a"),
        # the one whose time is up goes first, whatever its size
        ([held("a", 40, 100), held("b", 10, 0), held("c", 40, 100)], 20, 0, "b"),
        # equal ages: the larger one, and alone
        ([held("a", 10), held("b", 40), held("c", 10)], 60, 0, "b"),
        # equal sizes: the one with less time left
        ([held("a", 40, 100), held("b", 40, 50)], 50, 0, "b"),
        # one that stays for ever goes last
        ([held("a", 40, None), held("b", 40, 1e6)], 50, 0, "b"),
        # a large one that is chosen spares those chosen before it
        ([held("a", 1, 0), held("b", 90, 60)], 95, 0, "b"),
        ([held("a", 30, 0), held("b", 60, 60)], 95, 0, "a b"),
        # what is busy or pinned stays
        ([held("a", 40, 0, busy=True), held("b", 40)], 50, 0, "b"),
        ([PINNED, held("b", 40)], 50, 0, "b"),
        # the number of models counts too
        ([held("a", 1), held("b", 2)], 1, 3, ""),
        ([held("a", 1), held("b", 2)], 1, 2, "b"),
        ([held("a", 1), held("b", 2)], 1, 1, "b a"),
    ],
)
def test_idle_models_make_room_and_no_more_than_needed(
    residents: list[Resident], need: int, models: int, evicted: str
) -> None:
    plan = make_room(residents, need, Budget(100, models))
    assert plan == Plan(Verdict.NOW, tuple(evicted.split()))


@pytest.mark.parametrize(
    ("residents", "models"),
    [
        ([held("a", 60, busy=True)], 0),
        ([held("a", 60, busy=True), held("b", 10)], 0),
        ([Resident("a", 60, pinned=True)], 0),
        ([held("a", 1, busy=True)], 1),
    ],
)
def test_where_busy_or_pinned_ones_are_in_the_way_it_waits(
    residents: list[Resident], models: int
) -> None:
    assert make_room(residents, 50, Budget(100, models)) == Plan(Verdict.LATER)


def test_a_model_larger_than_all_there_is_never_fits() -> None:
    assert make_room([], 101, Budget(100)) == Plan(Verdict.NEVER)


def test_busy_ones_are_to_end_for_one_that_waits_but_pinned_ones_are_not() -> None:
    residents = [held("a", 60, busy=True), PINNED]
    assert drainable(residents, 50, Budget(100)) == ("a",)
    assert drainable([PINNED, held("a", 10, busy=True)], 70, Budget(100)) == ()


def test_everything_idle_could_go() -> None:
    residents = [held("a", 1), held("b", 1, busy=True), PINNED, held("c", 1)]
    assert evictable(residents) == ("a", "c")
