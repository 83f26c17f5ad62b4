import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.digest import EMPTY, Digest
from registry.core.errors import (
    BlobInUse,
    BlobUnknown,
    DigestMismatch,
    SizeInvalid,
    StorageFull,
)
from registry.core.media import DOCKER_MANIFEST, MODEL
from registry.core.names import RepositoryName
from registry.ports.catalog import Freed, Manifest, Reference, Transaction
from registry.services.library.blobs import is_empty
from registry.services.uploading.uploads import NS
from tests.support.world import DATA, DIGEST, NAME, OTHER, Broken, Bytes, World

pytestmark = pytest.mark.anyio

SHA512 = Digest("sha512", hashlib.sha512(DATA).hexdigest())
DAY = 86_400 * NS


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.stop()


async def put(world: World, name: RepositoryName = NAME) -> None:
    assert await world.uploads.put(name, DIGEST, Bytes(DATA), len(DATA))


async def put_manifest(world: World) -> Digest:
    body = b'{"a manifest": true}'
    row = Manifest(
        Digest.of(body), DOCKER_MANIFEST, body, (Reference(DIGEST, MODEL, len(DATA)),)
    )  # fmt: skip

    def work(tx: Transaction) -> None:
        tx.put_manifest(tx.put_repository(NAME).id, row, world.now)

    await world.catalog.write(work)
    return row.digest


async def freed(world: World) -> bool:
    """Whether a sweep would take the blob, its upload's grace being over."""
    rows = await world.catalog.read(lambda tx: tx.unreferenced(world.now - DAY, world.now, 10))
    return [row.digest for row in rows] == [DIGEST]


async def test_received_bytes_are_a_blob_that_no_repository_has(world: World) -> None:
    blob = await world.blobs.receive(DIGEST, Bytes(DATA), len(DATA))
    assert (blob.digest, blob.size) == (DIGEST, len(DATA))
    assert await world.blobs.find(DIGEST) == blob
    with pytest.raises(BlobUnknown):
        await world.blobs.stat(NAME, DIGEST)
    assert world.leftovers() == []


async def test_two_senders_of_one_blob_both_succeed(world: World) -> None:
    blobs = await asyncio.gather(
        *(world.blobs.receive(DIGEST, Bytes(DATA), size) for size in (len(DATA), None))
    )
    assert [blob.digest for blob in blobs] == [DIGEST, DIGEST]
    assert world.leftovers() == []


async def test_wrong_or_broken_bytes_are_not_kept(world: World) -> None:
    with pytest.raises(DigestMismatch):
        await world.blobs.receive(EMPTY, Bytes(DATA))
    with pytest.raises(SizeInvalid):
        await world.blobs.receive(DIGEST, Broken(DATA))
    world.store.full = True
    with pytest.raises(StorageFull):
        await world.blobs.receive(DIGEST, Bytes(DATA))
    assert await world.blobs.find(DIGEST) is None
    assert world.leftovers() == []


async def test_bytes_of_our_own_are_stored_once(world: World) -> None:
    first = await world.blobs.put_bytes(DATA)
    world.now += 1
    again = await world.blobs.put_bytes(DATA)
    assert (first.digest, again.created_at) == (DIGEST, first.created_at)
    assert world.leftovers() == []


async def test_to_find_a_blob_renews_its_grace_now_and_then(world: World) -> None:
    await world.blobs.put_bytes(DATA)
    world.now += DAY // 2
    assert await world.blobs.find(DIGEST) is not None
    world.now += DAY * 3 // 4
    assert not await freed(world)
    world.now += DAY
    assert await freed(world)


async def test_a_head_before_a_push_keeps_the_blob(world: World) -> None:
    await put(world)
    world.now += 2 * DAY
    assert await freed(world)
    await world.blobs.stat(NAME, DIGEST)
    assert await freed(world)
    await world.blobs.stat(NAME, DIGEST, promise=True)
    assert not await freed(world)


async def test_a_promise_is_written_again_when_half_of_it_is_over(world: World) -> None:
    await put(world)
    world.now += 2 * DAY
    version = world.catalog.version()
    await world.blobs.stat(NAME, DIGEST, promise=True)
    first = world.catalog.version()
    world.now += 400 * NS
    await world.blobs.stat(NAME, DIGEST, promise=True)
    assert version != first == world.catalog.version()
    world.now += 100 * NS
    await world.blobs.stat(NAME, DIGEST, promise=True)
    assert world.catalog.version() != first


async def test_a_promise_that_a_manifest_spent_is_made_again(world: World) -> None:
    """The manifest may have been put at another replica, and be deleted before the push ends."""
    await put(world)
    await world.blobs.stat(NAME, DIGEST, promise=True)
    manifest = await put_manifest(world)
    await world.blobs.stat(NAME, DIGEST, promise=True)

    def delete(tx: Transaction) -> list[Freed]:
        tx.delete_manifest(tx.put_repository(NAME).id, manifest)
        return tx.free([DIGEST], world.now)

    assert await world.catalog.write(delete) == []


async def test_a_blob_just_uploaded_needs_no_promise(world: World) -> None:
    await put(world)
    before = world.catalog.version()
    await world.blobs.stat(NAME, DIGEST, promise=True)
    assert world.catalog.version() == before


async def test_a_blob_is_mounted_from_where_it_is(world: World) -> None:
    await put(world)
    assert not await world.blobs.mount(OTHER, DIGEST, RepositoryName.parse("nobody/x"))
    assert not await world.blobs.mount(OTHER, EMPTY, NAME)
    assert not await world.blobs.mount(OTHER, EMPTY, None)
    assert await world.blobs.mount(OTHER, DIGEST, RepositoryName.parse("TEAM/llama"))
    assert await world.content(DIGEST, OTHER) == DATA
    third = RepositoryName.parse("team/third")
    assert await world.blobs.mount(third, DIGEST, None)
    assert await world.content(DIGEST, third) == DATA


async def test_a_blob_known_by_two_digests_is_one(world: World) -> None:
    assert await world.uploads.put(NAME, SHA512, Bytes(DATA), None)
    assert await world.blobs.mount(OTHER, SHA512, NAME)
    assert await world.content(DIGEST, OTHER) == DATA
    await world.blobs.unlink(OTHER, SHA512)
    with pytest.raises(BlobUnknown):
        await world.blobs.stat(OTHER, SHA512)
    assert await world.content(SHA512) == DATA


async def test_an_unlinked_blob_is_gone_from_that_repository_only(world: World) -> None:
    await put(world)
    await put(world, OTHER)
    await world.blobs.stat(NAME, DIGEST, promise=True)
    await world.blobs.unlink(NAME, DIGEST)
    with pytest.raises(BlobUnknown):
        await world.blobs.stat(NAME, DIGEST, promise=True)
    with pytest.raises(BlobUnknown):
        await world.blobs.unlink(NAME, DIGEST)
    with pytest.raises(BlobUnknown):
        await world.blobs.unlink(RepositoryName.parse("nobody/x"), DIGEST)
    assert await world.content(DIGEST, OTHER) == DATA


async def test_a_blob_of_a_manifest_is_not_unlinked(world: World) -> None:
    await put(world)
    manifest = await put_manifest(world)
    with pytest.raises(BlobInUse):
        await world.blobs.unlink(NAME, DIGEST)
    assert manifest
    assert await world.content(DIGEST) == DATA


@pytest.mark.parametrize(
    ("digest", "empty"),
    [
        (EMPTY, True),
        (Digest("sha512", hashlib.sha512(b"").hexdigest()), True),
        (DIGEST, False),
        (SHA512, False),
    ],
)
async def test_the_digests_of_no_bytes_are_known(digest: Digest, empty: bool) -> None:
    assert is_empty(digest) is empty
