"""Many leave at once, and others have their turn in between."""

import asyncio
import itertools

import pytest

from registry.server.farewells import Farewells

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_all_are_called_in_order_and_others_in_between() -> None:
    loop, farewells, said = asyncio.get_running_loop(), Farewells(), list[int]()

    def say(number: int) -> None:
        said.append(number)
        if number == 99:
            farewells.add(loop, lambda: said.append(100))

    for number in range(100):
        farewells.add(loop, lambda number=number: say(number))  # type: ignore[misc]
    turns = [0]
    while len(said) < 101:
        await asyncio.sleep(0)
        turns.append(len(said))
    assert said == list(range(101))
    assert max(after - before for before, after in itertools.pairwise(turns)) < 20
    farewells.add(loop, lambda: said.append(101))
    await asyncio.sleep(0)
    assert said[-1] == 101
