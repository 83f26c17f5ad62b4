"""Rows written behind the requests: batched, bounded, kept through failures, flushed at the end."""

import asyncio
from collections.abc import Sequence

import pytest

from registry.core.errors import Unavailable
from registry.services.sharing.write_behind import WriteBehind

pytestmark = pytest.mark.anyio


class Place:
    """Where rows are written; fails `failures` times first."""

    def __init__(self, failures: int = 0) -> None:
        self.batches: list[list[int]] = []
        self.failures = failures

    async def write(self, rows: Sequence[int]) -> None:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise Unavailable("the database is busy")
        self.batches.append(list(rows))


async def test_a_burst_is_few_writes_in_order() -> None:
    place = Place()
    behind = WriteBehind(place.write, "rows", 0.01, 10_000)
    for number in range(1200):
        behind.add(number)
    await behind.flush()
    assert [number for batch in place.batches for number in batch] == list(range(1200))
    assert len(place.batches) == 3
    behind.add(7)
    await asyncio.sleep(0.05)
    assert place.batches[-1] == [7]
    await behind.close()


async def test_a_failure_is_tried_again() -> None:
    place = Place(failures=2)
    behind = WriteBehind(place.write, "rows", 0.005, 100)
    behind.add(1)
    behind.add(2)
    for _ in range(200):
        await asyncio.sleep(0.005)
        if place.batches:
            break
    assert place.batches == [[1, 2]]
    await behind.close()


async def test_a_full_queue_loses_the_newest_and_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = Place()
    behind = WriteBehind(place.write, "rows", 10, 3)
    for number in range(9):
        behind.add(number)
    await behind.flush()
    assert place.batches == [[0, 1, 2]]
    assert "lost" in capsys.readouterr().out
    await behind.close()


async def test_the_end_does_not_wait_for_the_pause() -> None:
    place = Place()
    behind = WriteBehind(place.write, "rows", 60, 100)
    behind.add(1)
    await asyncio.sleep(0.01)
    behind.add(2)
    async with asyncio.timeout(5):
        await behind.close()
    assert place.batches == [[1], [2]]


async def test_a_database_that_is_gone_does_not_hold_up_the_end() -> None:
    behind = WriteBehind(Place(failures=99).write, "rows", 60, 100)
    behind.add(1)
    async with asyncio.timeout(5):
        await behind.close()
    await WriteBehind(Place().write, "rows", 60, 100).close()
