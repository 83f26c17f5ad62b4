import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry.adapters.fs_buffers import Buffer, BufferPool, Lane

pytestmark = pytest.mark.anyio


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


async def test_buffers_are_lent_in_the_order_they_were_asked_for() -> None:
    pool = BufferPool(1, 4096)
    first = await pool.acquire()
    served: list[int] = []

    async def ask(number: int) -> None:
        buffer = await pool.acquire()
        served.append(number)
        await asyncio.sleep(0)
        pool.release(buffer)

    tasks = [asyncio.create_task(ask(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert served == []
    pool.release(first)
    await asyncio.gather(*tasks)
    assert served == [0, 1, 2, 3, 4]


async def test_a_buffer_meant_for_one_who_gave_up_goes_to_the_next() -> None:
    pool = BufferPool(1, 4096)
    buffer = await pool.acquire()
    gone, next_one = (asyncio.create_task(pool.acquire()) for _ in range(2))
    await asyncio.sleep(0)
    pool.release(buffer)
    gone.cancel()
    assert await asyncio.wait_for(next_one, 1) is buffer
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_one_who_left_the_queue_is_passed_over() -> None:
    pool = BufferPool(1, 4096)
    buffer = await pool.acquire()
    gone, next_one = (asyncio.create_task(pool.acquire()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    pool.release(buffer)
    assert await asyncio.wait_for(next_one, 1) is buffer


async def test_a_spare_buffer_is_asked_back_when_it_is_wanted() -> None:
    pool = BufferPool(2, 4096)
    slow, busy = await pool.acquire(), await pool.acquire()
    pool.can_spare("slow", lambda: pool.release(slow))
    pool.can_spare("busy", lambda: pool.release(busy))
    pool.cannot_spare("busy")
    async with asyncio.timeout(1):
        assert await pool.acquire() is slow


async def test_memory_goes_back_when_many_buffers_are_free() -> None:
    pool = BufferPool(30, 4096)
    buffers = [await pool.acquire() for _ in range(30)]
    for buffer in buffers:
        pool.release(buffer)
    again = [await pool.acquire() for _ in range(30)]
    assert 0 < sum(buffer in buffers for buffer in again) < 30


def test_a_buffer_can_be_freed_while_a_view_of_it_is_about() -> None:
    buffer = Buffer(4096)
    view = buffer.view[:10]
    buffer.free()
    view[0] = 1
    view.release()


async def test_jobs_of_a_lane_keep_their_order(threads: ThreadPoolExecutor) -> None:
    lane, done = Lane(threads), list[int]()
    for number in range(200):
        lane.put(lambda number=number: done.append(number))  # type: ignore[misc]  # bound now
    await lane.call(lambda: None)
    assert done == list(range(200))


async def test_lanes_run_beside_each_other(threads: ThreadPoolExecutor) -> None:
    meeting = threading.Barrier(2, timeout=5)
    await asyncio.gather(Lane(threads).call(meeting.wait), Lane(threads).call(meeting.wait))


async def test_a_call_brings_back_results_and_errors(threads: ThreadPoolExecutor) -> None:
    lane = Lane(threads)
    assert await lane.call(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        await lane.call(lambda: 1 // 0)
    assert await lane.call(lambda: 6) == 6


async def test_a_job_that_fails_does_not_stop_its_lane(threads: ThreadPoolExecutor) -> None:
    lane = Lane(threads)
    lane.put(lambda: 1 // 0)
    assert await asyncio.wait_for(lane.call(lambda: 5), 5) == 5


async def test_a_call_cancelled_before_its_turn_does_not_run(threads: ThreadPoolExecutor) -> None:
    lane, ran = Lane(threads), list[int]()
    lane.put(lambda: time.sleep(0.05))
    call = lane.call(lambda: ran.append(1))
    call.cancel()
    await asyncio.sleep(0)
    await lane.call(lambda: None)
    assert ran == []
