"""Parts cover any blob within a store's limits; what is there is told from what is not."""

import random

import pytest

from registry.core.multipart import (
    FIRST_PART,
    LARGEST,
    Coverage,
    Part,
    part_at,
    part_numbered,
    parts_below,
)

MIB = 1 << 20


def test_a_tebibyte_fits_the_parts_of_a_store() -> None:
    assert part_at((1 << 40) - 1).number <= 10_000
    assert LARGEST >= 1 << 40


def test_parts_lie_side_by_side_and_each_offset_finds_its_own() -> None:
    offset, number = 0, 1
    while offset < LARGEST:
        part = part_at(offset)
        assert (part.number, part.start) == (number, offset)
        assert part_at(part.stop - 1) == part
        assert part_numbered(number) == part
        assert 5 * MIB <= part.size <= 5 << 30
        offset, number = part.stop, number + 1
    assert number - 1 == 10_000
    with pytest.raises(ValueError, match="beyond"):
        part_at(LARGEST)
    for absent in (0, 10_001):
        with pytest.raises(ValueError, match="no such part"):
            part_numbered(absent)


@pytest.mark.parametrize(
    ("size", "count"), [(0, 0), (1, 0), (FIRST_PART - 1, 0), (FIRST_PART, 1), (3 * FIRST_PART, 3)]
)
def test_parts_below_a_size_are_whole(size: int, count: int) -> None:
    found = list(parts_below(size))
    assert [part.number for part in found] == list(range(1, count + 1))
    assert all(isinstance(part, Part) and part.stop <= size for part in found)


@pytest.mark.parametrize(
    ("added", "ranges"),
    [
        ([], []),
        ([(5, 5)], []),
        ([(0, 5), (5, 9)], [(0, 9)]),
        ([(5, 9), (0, 5)], [(0, 9)]),
        ([(0, 2), (4, 6), (8, 9)], [(0, 2), (4, 6), (8, 9)]),
        ([(0, 2), (4, 6), (8, 9), (1, 8)], [(0, 9)]),
        ([(0, 9), (2, 3)], [(0, 9)]),
        ([(4, 6), (0, 1), (2, 3)], [(0, 1), (2, 3), (4, 6)]),
    ],
)
def test_ranges_that_touch_become_one(
    added: list[tuple[int, int]], ranges: list[tuple[int, int]]
) -> None:
    coverage = Coverage()
    for item in added:
        coverage.add(*item)
    assert coverage.ranges == Coverage(added).ranges == ranges


def test_coverage_agrees_with_a_set_of_bytes() -> None:
    chance = random.Random(5)
    for _ in range(200):
        coverage, there = Coverage(), set[int]()
        for _ in range(chance.randrange(12)):
            start = chance.randrange(40)
            stop = start + chance.randrange(12)
            coverage.add(start, stop)
            there |= set(range(start, stop))
        for start in range(52):
            end = start
            while end in there:
                end += 1
            assert coverage.reach(start) == end
