"""The key ring of direct URLs: one for all processes, old keys out after two rotations or one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.direct_url import Grant, SigningKey, verify
from registry.services.library.signing_keys import SigningKeys
from tests.support.world import DIGEST, NAME, World

pytestmark = pytest.mark.anyio

_AFTER_A_WHILE_NS = 6 * 10**9


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.stop()


def ids(ring: tuple[SigningKey, ...]) -> list[str]:
    return [key.id for key in ring]


async def test_the_key_outlives_the_process(world: World) -> None:
    first = await world.blobs.signing_keys.ring()
    assert await world.blobs.signing_keys.ring() is first
    await world.restart()
    assert ids(await world.blobs.signing_keys.ring()) == ids(first)


async def test_urls_outlive_one_rotation_and_not_two(world: World) -> None:
    keys = world.blobs.signing_keys
    grant = Grant(NAME, DIGEST, 100)
    (first,) = await keys.ring()
    query = dict(part.split("=") for part in grant.query(first).split("&"))
    await keys.rotate()
    second, before = await keys.ring()
    assert before is first
    assert second.id != first.id
    assert verify(query, NAME, DIGEST, await keys.ring(), 99)
    await keys.rotate()
    third, before = await keys.ring()
    assert (before, third.id in {first.id, second.id}) == (second, False)
    assert not verify(query, NAME, DIGEST, await keys.ring(), 99)


async def test_revoking_makes_every_url_void_at_once(world: World) -> None:
    keys = world.blobs.signing_keys
    await keys.rotate()
    old = ids(await keys.ring())
    await keys.rotate(revoke=True)
    assert not set(ids(await keys.ring())) & set(old)


async def test_the_first_rotation_may_come_before_the_first_url(world: World) -> None:
    await world.blobs.signing_keys.rotate(revoke=True)
    assert len(await world.blobs.signing_keys.ring()) == 2


async def test_other_processes_follow_within_seconds(world: World) -> None:
    here = SigningKeys(world.catalog, lambda: world.now)
    there = SigningKeys(world.catalog, lambda: world.now)
    old = ids(await there.ring())
    for _ in range(3):
        await here.rotate()
    assert ids(await there.ring()) == old
    world.now += _AFTER_A_WHILE_NS
    assert ids(await there.ring()) == ids(await here.ring())
