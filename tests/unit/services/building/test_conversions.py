"""Conversions apart from create: leases while they are held, nothing kept that nobody took."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.digest import Digest
from registry.core.errors import BlobUnknown
from registry.ports.catalog import Transaction
from registry.ports.tensors import TensorJob
from registry.services.building.conversions import Conversion, Conversions, Converted, Order
from registry.services.sharing.efforts import Asking
from registry.services.sharing.sharing import Sharing
from registry.settings import Settings
from tests.support.library import Library, library
from tests.support.slow_workshop import SlowWorkshop
from tests.support.weighty import model

pytestmark = pytest.mark.anyio

MADE = model("F32", layers=1)
DIGEST = Digest.of(MADE)


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data") as made:
        yield made


class World:
    """Conversions of one source, by a workshop that does not wait unless told."""

    def __init__(self, lib: Library) -> None:
        self.lib = lib
        self.workshop = SlowWorkshop(MADE)
        self.workshop.go_on.set()
        settings = Settings.load({}, data=lib.data)
        self.sharing = Sharing(lib.catalog, lib.clock)
        self.conversions = Conversions(lib.manifests, self.sharing, self.workshop, settings)

    async def order(self, target: str = "F32") -> Order:
        digest = Digest.parse(await self.lib.put(model()))
        return Order.of(TensorJob("gguf", (), target, options={"b": 1, "a": 2}), {"m": digest})

    async def is_over(self) -> None:
        """Return when what is under way has come to its end."""
        while await self.lib.catalog.read(lambda tx: tx.jobs_under_way()):
            await asyncio.sleep(0.01)

    async def is_held(self) -> bool:
        """Whether the blob made outlives an attempt to free it."""

        def work(tx: Transaction) -> bool:
            tx.free([DIGEST], self.lib.clock())
            return tx.blob(DIGEST) is not None

        return await self.lib.catalog.write(work)


@pytest.fixture
async def world(lib: Library) -> AsyncIterator[World]:
    made = World(lib)
    yield made
    await made.sharing.close()


async def test_what_was_made_is_held_until_it_is_released(world: World) -> None:
    async with world.conversions.join(await world.order(), Asking("me")) as conversion:
        made = await conversion.wait(10)
    assert made is not None
    assert made.blob.digest == DIGEST
    assert made.new
    assert await world.is_held()
    await world.conversions.release("me", drop=[])
    assert not await world.is_held()


async def test_what_is_dropped_is_deleted(world: World) -> None:
    async with world.conversions.join(await world.order(), Asking("me")) as conversion:
        await conversion.wait(10)
    await world.conversions.release("me", drop=[DIGEST])
    assert not await world.lib.has(str(DIGEST))
    await world.lib.housekeeping.purge()
    assert str(DIGEST) not in world.lib.files()


async def test_another_who_holds_it_keeps_it(world: World) -> None:
    order = await world.order()
    world.workshop.go_on.clear()
    async with (
        world.conversions.join(order, Asking("one")) as first,
        world.conversions.join(order, Asking("two")),
    ):
        world.workshop.go_on.set()
        await first.wait(10)
    assert len(world.workshop.jobs) == 1
    await world.conversions.release("one", drop=[DIGEST])
    assert await world.is_held()


async def test_what_comes_out_after_the_last_has_left_is_deleted(world: World) -> None:
    async with world.conversions.join(await world.order(), Asking("me")):
        await world.is_over()
    assert not await world.lib.has(str(DIGEST))


async def test_bytes_that_were_here_before_are_not_deleted_with_it(world: World) -> None:
    await world.lib.put(MADE)
    async with world.conversions.join(await world.order(), Asking("me")):
        await world.is_over()
    assert await world.lib.has(str(DIGEST))


async def test_whoever_comes_while_it_is_being_stopped_begins_anew(world: World) -> None:
    order = await world.order()
    world.workshop.go_on.clear()

    async def visit() -> None:
        async with world.conversions.join(order, Asking("first")):
            await world.workshop.half_way.wait()

    leaving = asyncio.create_task(visit())
    await world.workshop.half_way.wait()
    await asyncio.sleep(0)
    async with world.conversions.join(order, Asking("second")) as conversion:
        world.workshop.go_on.set()
        assert await conversion.wait(10) is not None
    await leaving
    assert len(world.workshop.jobs) <= 2


async def test_a_source_that_is_gone_is_named(world: World) -> None:
    absent = Digest.of(b"absent")
    order = Order("gguf", (("m", absent),))
    with pytest.raises(BlobUnknown, match=str(absent)):
        async with world.conversions.join(order, Asking("me")) as conversion:
            await conversion.wait(10)


async def test_equal_orders_are_equal_whatever_order_their_options_have() -> None:
    files = {"m": DIGEST}
    one = Order.of(TensorJob("adapter", (), options={"a": 1, "b": 2}), files)
    two = Order.of(TensorJob("adapter", (), options={"b": 2, "a": 1}), files)
    assert one == two
    assert one.plain_options == {"a": 1, "b": 2}


async def test_two_processes_make_it_once(world: World, tmp_path: Path) -> None:
    order = await world.order()
    world.workshop.go_on.clear()
    async with library(tmp_path / "data") as lib:
        other = World(lib)
        async with (
            world.conversions.join(order, Asking("one")) as first,
            other.conversions.join(order, Asking("two")) as second,
        ):
            while second.progress.note != "F16":  # what the first told of it
                assert await second.wait(0.1) is None
            world.workshop.go_on.set()
            made = [await until_made(first), await until_made(second)]
            assert [item.blob.digest for item in made] == [DIGEST, DIGEST]
            assert made[0].facts == made[1].facts
            assert made[1].new
        assert (len(world.workshop.jobs), len(other.workshop.jobs)) == (1, 0)
        await world.conversions.release("one", drop=[DIGEST])
        assert await world.is_held()
        await other.conversions.release("two", drop=[DIGEST])
        assert not await world.is_held()
        await other.sharing.close()


async def test_what_goes_in_is_kept_for_a_process_that_has_to_begin_again(
    world: World, tmp_path: Path
) -> None:
    order = await world.order()
    source = order.files[0][1]
    world.workshop.go_on.clear()
    async with library(tmp_path / "data") as lib:
        other = World(lib)
        async with (
            world.conversions.join(order, Asking("one")),
            other.conversions.join(order, Asking("two")) as second,
        ):
            await world.workshop.half_way.wait()
            await world.lib.catalog.write(lambda tx: tx.free([source], world.lib.clock()))
            await world.sharing.close()  # as at SIGTERM
            assert (await until_made(second)).blob.digest == DIGEST
            assert len(other.workshop.jobs) == 1
        await other.sharing.close()


async def until_made(conversion: Conversion) -> Converted:
    while (found := await conversion.wait(1)) is None:
        pass
    return found
