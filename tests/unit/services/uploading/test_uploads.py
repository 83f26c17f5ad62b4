import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.digest import EMPTY, Digest
from registry.core.errors import (
    BlobUnknown,
    Conflict,
    DigestMismatch,
    SizeInvalid,
    StorageFull,
    TooLarge,
    Unavailable,
    UploadOutOfOrder,
    UploadUnknown,
)
from registry.core.names import RepositoryName
from registry.services.uploading.upload_turns import LiveSessions
from registry.services.uploading.uploads import NS, Chunk, UploadLimits, Uploads
from tests.support.world import DATA, DIGEST, NAME, OTHER, Broken, Bytes, Slow, World

pytestmark = pytest.mark.anyio

SHA512 = Digest("sha512", hashlib.sha512(DATA).hexdigest())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.stop()


async def test_chunks_become_a_blob_of_the_repository(world: World) -> None:
    session = await world.begin()
    assert (await world.append(session, DATA[:1000], 0)).offset == 1000
    assert (await world.append(session, DATA[1000:1001])).offset == 1001
    last = Chunk(Bytes(DATA[1001:]), 1001, len(DATA) - 1001)
    assert await world.uploads.finish(NAME, session, DIGEST, last) == DIGEST
    assert await world.content(DIGEST) == DATA
    assert world.leftovers() == []
    with pytest.raises(BlobUnknown):
        await world.blobs.stat(OTHER, DIGEST)


async def test_a_chunk_of_unknown_length_is_added_at_the_end(world: World) -> None:
    session = await world.begin()
    await world.uploads.append(NAME, session, Chunk(Bytes(DATA[:5000])))
    await world.uploads.finish(NAME, session, DIGEST, Chunk(Bytes(DATA[5000:])))
    assert await world.content(DIGEST) == DATA


async def test_a_session_without_bytes_becomes_the_empty_blob(world: World) -> None:
    session = await world.begin()
    await world.append(session, b"")
    await world.uploads.finish(NAME, session, EMPTY)
    assert await world.content(EMPTY) == b""


async def test_a_blob_can_be_named_by_sha512(world: World) -> None:
    session = await world.begin()
    await world.append(session, DATA)
    assert await world.uploads.finish(NAME, session, SHA512) == SHA512
    assert await world.content(SHA512) == DATA
    assert await world.content(DIGEST) == DATA


@pytest.mark.parametrize("wrong", [Digest.of(b"x"), Digest("sha512", "0" * 128)])
async def test_a_wrong_digest_leaves_nothing_behind(world: World, wrong: Digest) -> None:
    session = await world.begin()
    await world.append(session, DATA)
    with pytest.raises(DigestMismatch):
        await world.uploads.finish(NAME, session, wrong)
    with pytest.raises(UploadUnknown):
        await world.uploads.status(NAME, session)
    assert world.leftovers() == []


async def test_the_last_chunk_sent_again_changes_nothing(world: World) -> None:
    session = await world.begin()
    await world.append(session, DATA[:1000], 0)
    await world.append(session, DATA[1000:2000], 1000)
    assert (await world.append(session, DATA[1000:2000], 1000)).offset == 2000
    await world.restart()
    assert (await world.append(session, DATA[1000:2000], 1000)).offset == 2000
    await world.uploads.finish(NAME, session, DIGEST, Chunk(Bytes(DATA[2000:]), 2000, None))
    assert await world.content(DIGEST) == DATA


async def test_a_commit_may_bear_the_last_chunk_again(world: World) -> None:
    session = await world.begin()
    await world.append(session, DATA[:9000], 0)
    await world.append(session, DATA[9000:], 9000)
    again = Chunk(Bytes(DATA[9000:]), 9000, len(DATA) - 9000)
    assert await world.uploads.finish(NAME, session, DIGEST, again) == DIGEST


@pytest.mark.parametrize(
    ("data", "start"),
    [
        (DATA[0:1000], 0),  # an older chunk
        (DATA[1000:1999], 1000),  # not the whole of the last one
        (b"x" * 1000, 1000),  # its place, but other bytes
        (DATA[2001:3000], 2001),  # a gap
    ],
)
async def test_any_other_place_is_out_of_order_and_the_session_goes_on(
    world: World, data: bytes, start: int
) -> None:
    session = await world.begin()
    await world.append(session, DATA[:1000], 0)
    await world.append(session, DATA[1000:2000], 1000)
    chunk = Chunk(Bytes(data), start, len(data))
    with pytest.raises(UploadOutOfOrder) as error:
        await world.uploads.append(NAME, session, chunk)
    assert error.value.offset == 2000
    with pytest.raises(UploadOutOfOrder):
        await world.uploads.finish(NAME, session, DIGEST, chunk)
    assert (await world.uploads.status(NAME, session)).offset == 2000
    await world.append(session, DATA[2000:], 2000)
    await world.uploads.finish(NAME, session, DIGEST)
    assert await world.content(DIGEST) == DATA


async def test_a_restart_goes_on_where_the_last_answer_ended(world: World) -> None:
    session = await world.begin()
    await world.append(session, DATA[:3000], 0)
    await world.restart()
    await world.append(session, DATA[3000:6000], 3000)
    await world.restart()
    await world.uploads.finish(NAME, session, DIGEST, Chunk(Bytes(DATA[6000:])))
    assert await world.content(DIGEST) == DATA


async def test_a_chunk_that_breaks_off_is_not_kept(world: World) -> None:
    session = await world.begin()
    await world.append(session, DATA[:3000], 0)
    for chunk in (Chunk(Broken(b"x" * 500)), Chunk(Bytes(b"y" * 9), 3000, 10)):
        with pytest.raises(SizeInvalid):
            await world.uploads.append(NAME, session, chunk)
        with pytest.raises(SizeInvalid):
            await world.uploads.finish(NAME, session, DIGEST, chunk)
    assert (await world.uploads.status(NAME, session)).offset == 3000
    await world.append(session, DATA[3000:], 3000)
    await world.uploads.finish(NAME, session, DIGEST)
    assert await world.content(DIGEST) == DATA


async def test_a_repeated_commit_gets_the_same_answer(world: World) -> None:
    session = await world.begin()
    await world.append(session, DATA)
    for _ in range(2):
        assert await world.uploads.finish(NAME, session, DIGEST) == DIGEST
        await world.restart()
    with pytest.raises(UploadUnknown):
        await world.uploads.finish(NAME, session, Digest.of(b"x"))
    with pytest.raises(UploadUnknown):
        await world.append(session, b"more")
    world.now += 3_600 * NS
    with pytest.raises(UploadUnknown):
        await world.uploads.finish(NAME, session, DIGEST)


async def test_two_commits_at_once_both_succeed(world: World) -> None:
    session = await world.begin()
    await world.append(session, DATA)
    done = await asyncio.gather(
        *(world.uploads.finish(NAME, session, DIGEST) for _ in range(3))
    )  # fmt: skip
    assert done == [DIGEST] * 3


async def test_two_equal_chunks_at_once_are_one(world: World) -> None:
    session = await world.begin()
    rows = await asyncio.gather(*(world.append(session, DATA, 0) for _ in range(2)))
    assert [row.offset for row in rows] == [len(DATA)] * 2
    await world.uploads.finish(NAME, session, DIGEST)
    assert await world.content(DIGEST) == DATA


async def test_a_session_belongs_to_its_repository(world: World) -> None:
    session = await world.begin()
    await world.append(session, DATA)
    assert (await world.uploads.status(RepositoryName.parse("TEAM/llama"), session)).offset
    await world.uploads.begin(OTHER)
    for name in (OTHER, RepositoryName.parse("nobody/x")):
        with pytest.raises(UploadUnknown):
            await world.uploads.status(name, session)
        with pytest.raises(UploadUnknown):
            await world.uploads.append(name, session, Chunk(Bytes(b"x")))
        with pytest.raises(UploadUnknown):
            await world.uploads.finish(name, session, DIGEST)
        with pytest.raises(UploadUnknown):
            await world.uploads.cancel(name, session)


@pytest.mark.parametrize("restart", [False, True])
async def test_a_cancelled_session_is_gone_with_its_bytes(world: World, restart: bool) -> None:
    session = await world.begin()
    await world.append(session, DATA)
    if restart:
        await world.restart()
    await world.uploads.cancel(NAME, session)
    with pytest.raises(UploadUnknown):
        await world.uploads.cancel(NAME, session)
    await world.uploads.cancel(NAME, await world.begin())
    assert world.leftovers() == []


@pytest.mark.parametrize("restart", [False, True])
async def test_sessions_expire_a_day_after_their_last_data(world: World, restart: bool) -> None:
    quiet, busy = await world.begin(), await world.begin()
    await world.append(quiet, DATA)
    await world.append(busy, DATA[:10])
    world.now += 80_000 * NS
    await world.append(busy, DATA[10:])
    world.now += 80_000 * NS
    with pytest.raises(UploadUnknown):
        await world.append(quiet, b"x")
    if restart:
        await world.restart()
    assert await world.uploads.sweep() == 1
    assert await world.uploads.sweep() == 0
    # of an object store two: what the row stood at before is kept until it has moved
    assert len(world.leftovers()) == (2 if world.bucket else 1)
    await world.uploads.finish(NAME, busy, DIGEST)
    assert world.leftovers() == []


async def test_data_renews_a_session_for_a_week_at_most(world: World) -> None:
    session = await world.begin()
    for _ in range(8):
        world.now += 80_000 * NS
        if world.now >= 1_760_000_000 * NS + 7 * 86_400 * NS:
            break
        await world.append(session, b"x")
    with pytest.raises(UploadUnknown):
        await world.append(session, b"x")


async def test_the_sweep_leaves_a_session_alone_that_is_receiving(world: World) -> None:
    session, body = await world.begin(), Slow(DATA)
    task = asyncio.create_task(world.uploads.append(NAME, session, Chunk(body)))
    await body.begun.wait()
    world.now += 90_000 * NS
    assert await world.uploads.sweep() == 0
    body.go_on.set()
    assert (await task).offset == len(DATA)
    await world.uploads.finish(NAME, session, DIGEST)


async def test_the_number_of_open_sessions_is_bounded(world: World) -> None:
    await world.restart(UploadLimits(sessions=2))
    first = await world.begin()
    await world.begin()
    with pytest.raises(Unavailable):
        await world.begin()
    await world.uploads.cancel(NAME, first)
    session = await world.begin()
    await world.append(session, DATA)
    await world.uploads.finish(NAME, session, DIGEST)
    await world.begin()
    with pytest.raises(Unavailable):
        await world.begin()
    world.now += 90_000 * NS
    await world.begin()


async def test_sessions_that_ended_at_another_replica_are_not_open_for_anybody_at_once(
    world: World,
) -> None:
    await world.restart(UploadLimits(sessions=2))
    other = Uploads(world.blobs)
    for session in (await world.begin(), await world.begin()):
        await other.cancel(NAME, session)
    await asyncio.gather(world.begin(), world.begin())
    await other.close()


async def test_a_blob_over_the_limit_is_refused(world: World) -> None:
    await world.restart(UploadLimits(blob_bytes=1000))
    session = await world.begin()
    await world.append(session, DATA[:900])
    for chunk in (Chunk(Bytes(DATA[:101]), 900, 101), Chunk(Bytes(DATA[:101]))):
        with pytest.raises(TooLarge):
            await world.uploads.append(NAME, session, chunk)
        with pytest.raises(TooLarge):
            await world.uploads.finish(NAME, session, DIGEST, chunk)
    for size in (len(DATA), None):
        with pytest.raises(TooLarge):
            await world.uploads.put(NAME, DIGEST, Bytes(DATA), size)
    await world.append(session, DATA[900:1000])
    await world.uploads.finish(NAME, session, Digest.of(DATA[:1000]))


@pytest.mark.parametrize("with_chunk", [False, True])
async def test_a_full_disk_drops_the_session(world: World, with_chunk: bool) -> None:
    session = await world.begin()
    await world.append(session, DATA)
    await world.restart()
    world.store.full = True
    with pytest.raises(StorageFull):
        if with_chunk:
            await world.uploads.finish(NAME, session, DIGEST, Chunk(Bytes(b"x")))
        else:
            await world.append(session, b"x")
    with pytest.raises(StorageFull):
        await world.uploads.put(NAME, DIGEST, Bytes(DATA), None)
    assert world.leftovers() == []
    with pytest.raises(UploadUnknown):
        await world.uploads.status(NAME, session)


async def test_a_blob_can_be_sent_in_one_request(world: World) -> None:
    blob = await world.uploads.put(NAME, DIGEST, Bytes(DATA), len(DATA))
    assert blob is not None and (blob.digest, blob.size) == (DIGEST, len(DATA))
    assert await world.content(DIGEST) == DATA
    assert await world.uploads.put(NAME, EMPTY, Bytes(b""), None) is not None
    assert await world.content(EMPTY) == b""


async def test_a_single_request_with_an_empty_or_wrong_body_keeps_nothing(world: World) -> None:
    assert await world.uploads.put(NAME, DIGEST, Bytes(b""), None) is None
    with pytest.raises(DigestMismatch):
        await world.uploads.put(NAME, DIGEST, Bytes(b"x"), 1)
    with pytest.raises(SizeInvalid):
        await world.uploads.put(NAME, DIGEST, Broken(DATA), len(DATA))
    assert world.leftovers() == []
    with pytest.raises(BlobUnknown):
        await world.blobs.stat(NAME, DIGEST)


async def test_a_newer_request_ends_one_whose_sender_has_gone_silent(world: World) -> None:
    world.uploads._live = LiveSessions(world.store.turn, patience_s=0.05)
    session, body = await world.begin(), Slow(DATA)
    older = asyncio.create_task(world.uploads.append(NAME, session, Chunk(body, 0, len(DATA))))
    await body.begun.wait()
    assert (await world.append(session, DATA, 0)).offset == len(DATA)
    with pytest.raises(Conflict):
        await older
    await world.uploads.finish(NAME, session, DIGEST)
    assert await world.content(DIGEST) == DATA


async def test_a_newer_request_waits_for_one_that_is_receiving(world: World) -> None:
    session, body = await world.begin(), Slow(DATA)
    older = asyncio.create_task(world.uploads.append(NAME, session, Chunk(body, 0, len(DATA))))
    await body.begun.wait()
    newer = asyncio.create_task(world.append(session, DATA, 0))
    await asyncio.sleep(0.01)
    body.go_on.set()
    assert [(await task).offset for task in (older, newer)] == [len(DATA)] * 2


async def test_a_cancelled_request_leaves_the_session_where_it_was(world: World) -> None:
    session, body = await world.begin(), Slow(DATA)
    await world.append(session, DATA[:100])
    request = asyncio.create_task(world.uploads.append(NAME, session, Chunk(body)))
    await body.begun.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert (await world.uploads.status(NAME, session)).offset == 100
    await world.append(session, DATA[100:])
    await world.uploads.finish(NAME, session, DIGEST)


async def test_a_long_verification_is_answered_with_ask_again(world: World) -> None:
    await world.restart(UploadLimits(commit_hold_s=0))
    session = await world.begin()
    await world.append(session, DATA)
    with pytest.raises(Unavailable):
        await world.uploads.finish(NAME, session, DIGEST)
    with pytest.raises((Conflict, UploadUnknown)):
        await world.append(session, b"x")
    for _ in range(500):
        try:
            await world.uploads.finish(NAME, session, DIGEST)
            break
        except Unavailable:
            await asyncio.sleep(0.01)
    assert await world.content(DIGEST) == DATA


async def _untaken(session: str) -> None:
    """As a store for which turns are nothing."""


async def test_idle_sessions_are_closed_and_go_on(world: World) -> None:
    world.uploads._live = LiveSessions(_untaken, limit=2, idle_s=0)
    sessions = [await world.begin() for _ in range(4)]
    for session in sessions:
        await world.append(session, DATA[:100])
    await world.uploads.sweep()
    for session in sessions:
        await world.append(session, DATA[100:])
    for session in sessions:
        await world.uploads.finish(NAME, session, DIGEST)
    assert world.leftovers() == []


@pytest.mark.folder
@pytest.mark.parametrize("same", [True, False])
async def test_a_replica_ends_a_silent_request_for_the_newer_one_of_another(
    world: World, same: bool
) -> None:
    world.uploads._live = LiveSessions(world.store.turn, patience_s=0.05)
    session, body = await world.begin(), Slow(DATA)
    slow = asyncio.create_task(world.uploads.append(NAME, session, Chunk(body, 0, len(DATA))))
    await body.begun.wait()
    replica = World(world.folder)
    await replica.append(session, DATA if same else DATA[:10], 0)
    with pytest.raises(Conflict):
        await slow
    if not same:
        await world.append(session, DATA[10:], 10)
    await world.uploads.finish(NAME, session, DIGEST)
    assert await world.content(DIGEST) == DATA
    await replica.stop()


@pytest.mark.folder
@pytest.mark.parametrize("same", [True, False])
async def test_of_two_replicas_that_receive_the_same_chunk_the_first_wins(
    world: World, same: bool
) -> None:
    session, body = await world.begin(), Slow(DATA)
    slow = asyncio.create_task(world.uploads.append(NAME, session, Chunk(body, 0, len(DATA))))
    await body.begun.wait()
    replica = World(world.folder)
    other = asyncio.create_task(replica.append(session, DATA if same else DATA[::-1], 0))
    await asyncio.sleep(0.05)
    assert not other.done()
    body.go_on.set()
    assert (await slow).offset == len(DATA)
    if same:
        assert (await other).offset == len(DATA)
    else:
        with pytest.raises(UploadOutOfOrder):
            await other
    await replica.uploads.finish(NAME, session, DIGEST)
    assert await world.content(DIGEST) == DATA
    await replica.stop()


async def test_a_replica_keeps_no_hash_of_bytes_that_were_not_accepted(world: World) -> None:
    """The other one accepts as many different bytes there."""
    session, replica = await world.begin(), World(world.folder)
    await world.append(session, DATA[:100], 0)
    with pytest.raises(SizeInvalid):  # the whole of it came, and one byte more was announced
        chunk = Chunk(Bytes(DATA[100:]), 100, len(DATA) - 99)
        await world.uploads.append(NAME, session, chunk)
    await replica.append(session, DATA[:99:-1], 100)
    with pytest.raises(DigestMismatch):
        await world.uploads.finish(NAME, session, DIGEST)
    await replica.stop()


async def test_requests_of_a_session_go_to_replicas_in_turn(world: World) -> None:
    session, replica = await world.begin(), World(world.folder)
    step = len(DATA) // 8
    for number in range(8):
        place = (world, replica)[number % 2]
        start = number * step
        stop = start + step if number < 7 else len(DATA)
        await place.append(session, DATA[start:stop], start)
        await place.uploads.sweep()
    await world.uploads.finish(NAME, session, DIGEST)
    assert await replica.content(DIGEST) == DATA
    assert world.leftovers() == []
    await replica.stop()


@pytest.mark.folder
async def test_a_session_that_another_replica_cancelled_is_gone(world: World) -> None:
    world.uploads._live = LiveSessions(world.store.turn, patience_s=0.05)
    session, body = await world.begin(), Slow(DATA)
    slow = asyncio.create_task(world.uploads.append(NAME, session, Chunk(body)))
    await body.begun.wait()
    replica = World(world.folder)
    await replica.uploads.cancel(NAME, session)
    with pytest.raises(Conflict):
        await slow
    with pytest.raises(UploadUnknown):
        await world.append(session, DATA)
    await replica.stop()
