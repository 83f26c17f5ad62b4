"""The parts in which a blob goes to an object store, and which bytes of it are there.

Where a part begins follows from nothing but the offset, so that any process goes on with what
another began. Small parts first: most blobs are small, and memory is counted in parts. They grow
so that 1 TiB fits the 10,000 parts that a store takes; the first 31 GiB are in parts of one size,
which some stores ask for.

Source: Amazon S3 user guide, "Multipart upload limits": 5 MiB to 5 GiB, the last any size.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_MIB = 1 << 20
_STEPS = ((4_000, 8 * _MIB), (2_000, 64 * _MIB), (4_000, 224 * _MIB))
FIRST_PART = _STEPS[0][1]
LARGEST = sum(count * size for count, size in _STEPS)


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes `[start, stop)` of a blob; numbers count from 1."""

    number: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Bytes of it, unless it is the blob's last."""
        return self.stop - self.start


def part_at(offset: int) -> Part:
    """The part that the byte at an offset is in.

    Raises:
        ValueError: the offset is beyond all parts.
    """
    number, start = 1, 0
    for count, size in _STEPS:
        if offset < start + count * size:
            index = (offset - start) // size
            start += index * size
            return Part(number + index, start, start + size)
        number, start = number + count, start + count * size
    raise ValueError("beyond the last part")


def part_numbered(number: int) -> Part:
    """The part of that number, from 1 to 10,000.

    Raises:
        ValueError: there is none.
    """
    first, start = 1, 0
    for count, size in _STEPS:
        if first <= number < first + count:
            start += (number - first) * size
            return Part(number, start, start + size)
        first, start = first + count, start + count * size
    raise ValueError("no such part")


def parts_below(size: int) -> Iterator[Part]:
    """The parts that lie wholly below `size`, in order."""
    offset = 0
    while offset < size:
        part = part_at(offset)
        if part.stop > size:
            return
        yield part
        offset = part.stop


class Coverage:
    """Which bytes are there: disjoint ranges `[start, stop)`, in order, none next to another."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self.ranges: list[tuple[int, int]] = []
        for start, stop in ranges:
            self.add(start, stop)

    def add(self, start: int, stop: int) -> None:
        """These are there now, too."""
        if start >= stop:
            return
        first = bisect_left(self.ranges, start, key=lambda item: item[1])
        last = first
        while last < len(self.ranges) and self.ranges[last][0] <= stop:
            start = min(start, self.ranges[last][0])
            stop = max(stop, self.ranges[last][1])
            last += 1
        self.ranges[first:last] = [(start, stop)]

    def reach(self, start: int) -> int:
        """Where the bytes end that are there from `start` on; `start` itself if it is not."""
        first = bisect_left(self.ranges, start + 1, key=lambda item: item[1])
        if first < len(self.ranges) and self.ranges[first][0] <= start:
            return self.ranges[first][1]
        return start
