"""Duties that come again: the rest of housekeeping is tried by what it does for others."""

import asyncio
from pathlib import Path

import pytest

from registry.core.errors import Unavailable
from registry.settings import Retention
from tests.support.library import library

pytestmark = pytest.mark.anyio

EVERY_S = 1


async def test_daily_work_that_failed_comes_again_with_the_next_sweep(tmp_path: Path) -> None:
    done = asyncio.Event()
    tries = 0
    async with library(tmp_path, Retention(sweep_every_s=EVERY_S)) as lib:

        async def look() -> None:
            nonlocal tries
            tries += 1
            lib.clock.now += EVERY_S * 10**9
            if tries == 1:
                raise Unavailable("the database cannot be reached")
            done.set()

        running = asyncio.create_task(lib.housekeeping.run(daily=[look]))
        await asyncio.wait_for(done.wait(), 20)
        await asyncio.sleep(1.5 * EVERY_S)
        running.cancel()
        await asyncio.wait({running})
    assert tries == 2, "what went well does not come again on the same day"
