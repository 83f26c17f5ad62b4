"""Upload sessions whose bytes go to the store by themselves, on a store in memory."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from registry.core.digest import Digest
from registry.core.errors import (
    Conflict,
    DigestMismatch,
    QuotaExceeded,
    RegistryError,
    SizeInvalid,
    TooLarge,
    Unavailable,
    UploadUnknown,
)
from registry.core.ranges import Span
from registry.ports.direct import DirectPut
from registry.ports.transfers import Upload
from registry.services.uploading import direct_commit
from registry.services.uploading.direct import LARGEST_PUT, SMALLEST_PART, DirectUploads, is_ours
from registry.services.uploading.uploads import NS, UploadLimits
from tests.support.direct_store import MemoryStore
from tests.support.world import NAME, OTHER, World

pytestmark = pytest.mark.anyio

SIZE = SMALLEST_PART
DATA = bytes(SIZE) + b"1" * SIZE + b"2" * 10
PARTS = [Span(0, SIZE), Span(SIZE, 2 * SIZE), Span(2 * SIZE, 2 * SIZE + 10)]
DIGEST = Digest.of(DATA)
WHOLE = b"a tensor" * 1000
TENSOR = Digest.of(WHOLE)


class Replica:
    """One process over the shared catalog and store."""

    def __init__(self, world: World, store: MemoryStore, limits: UploadLimits) -> None:
        self.world = world
        self.store = store
        self.direct = DirectUploads(world.blobs, store, limits, url_s=60)

    async def row(self, session: str) -> Upload:
        row = await self.direct.find(NAME, session)
        assert row is not None
        return row

    async def url(self, session: str, span: Span) -> str | None:
        return await self.direct.redirect(await self.row(session), span)

    async def send(self, session: str, span: Span, data: bytes = DATA) -> None:
        url = await self.url(session, span)
        assert url is not None
        assert self.store.send(url, data[span.start : span.stop])

    async def finish(self, session: str, digest: Digest = DIGEST, count: int | None = 3) -> Digest:
        return await self.direct.finish(NAME, await self.row(session), digest, count)

    async def sent(self, data: bytes = DATA) -> str:
        """A session with all parts sent."""
        session = await self.world.begin()
        for span in PARTS:
            await self.send(session, span, data)
        return session

    async def offer(self, digest: Digest = TENSOR, size: int = len(WHOLE)) -> tuple[str, DirectPut]:
        upload = await self.world.uploads.begin(NAME, digest)
        put = await self.direct.offer(upload, size)
        assert put is not None
        return upload.id, put


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.stop()


@pytest.fixture
async def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def replica(world: World, store: MemoryStore) -> AsyncIterator[Replica]:
    replica = Replica(world, store, UploadLimits())
    yield replica
    await replica.direct.close()


@pytest.fixture
async def other(world: World, store: MemoryStore) -> AsyncIterator[Replica]:
    replica = Replica(world, store, UploadLimits())
    yield replica
    await replica.direct.close()


async def test_parts_sent_in_any_order_become_a_blob(replica: Replica, other: Replica) -> None:
    session = await replica.world.begin()
    first = await replica.url(session, PARTS[0])
    for span in (PARTS[2], PARTS[1], PARTS[1]):  # a repeated one does no harm
        await other.send(session, span)
    assert first is not None
    assert replica.store.send(first, DATA[:SIZE])
    assert await other.finish(session) == DIGEST
    blob = await replica.world.blobs.stat(NAME, DIGEST)
    assert replica.store.objects == {blob.storage_key: DATA}
    assert blob.size == len(DATA)
    with pytest.raises(RegistryError):
        await replica.world.blobs.stat(OTHER, DIGEST)


async def test_a_repeated_commit_gets_the_same_answer(replica: Replica) -> None:
    session = await replica.sent()
    before = await replica.row(session)
    assert await replica.finish(session) == DIGEST
    assert await replica.direct.finish(NAME, before, DIGEST, 3) == DIGEST
    assert not is_ours(await replica.row(session))
    assert await replica.world.uploads.finish(NAME, session, DIGEST) == DIGEST
    assert len(replica.store.reads) == 1


@pytest.mark.parametrize(
    ("span", "error"),
    [
        (Span(0, SIZE), None),
        (Span(3 * SIZE, 3 * SIZE + 1), None),
        (Span(1, SIZE), SizeInvalid),
        (Span(SIZE, 2 * SIZE + 1), SizeInvalid),
        (Span(10_000 * SIZE, 10_000 * SIZE + 1), SizeInvalid),
        (Span(9_999 * SIZE, 10_000 * SIZE), None),
    ],
)
async def test_the_first_part_says_where_others_lie(
    replica: Replica, span: Span, error: type[RegistryError] | None
) -> None:
    session = await replica.world.begin()
    await replica.url(session, PARTS[0])
    if error is None:
        assert await replica.url(session, span)
    else:
        with pytest.raises(error):
            await replica.url(session, span)


@pytest.mark.parametrize("span", [Span(0, SIZE - 1), Span(SIZE, 2 * SIZE), Span(0, (5 << 30) + 1)])
async def test_what_cannot_be_a_first_part_comes_here(replica: Replica, span: Span) -> None:
    session = await replica.world.begin()
    assert await replica.url(session, span) is None
    assert (await replica.row(session)).state == "open"
    assert replica.store.begun == {}


async def test_a_session_whose_bytes_have_come_here_goes_on_so(replica: Replica) -> None:
    session = await replica.world.begin()
    await replica.world.append(session, b"some")
    assert await replica.url(session, PARTS[0]) is None


async def test_of_two_first_requests_at_once_one_begins(replica: Replica, other: Replica) -> None:
    session = await replica.world.begin()
    row = await replica.row(session)
    one, two = await asyncio.gather(
        replica.direct.redirect(row, PARTS[0]), other.direct.redirect(row, PARTS[0])
    )
    assert one == two
    assert len(replica.store.begun) == len(replica.store.dropped) == 1


async def test_a_blob_may_not_exceed_its_limit(world: World, store: MemoryStore) -> None:
    replica = Replica(world, store, UploadLimits(blob_bytes=SIZE + 5))
    session = await world.begin()
    await replica.send(session, PARTS[0])
    with pytest.raises(TooLarge):
        await replica.url(session, PARTS[1])
    with pytest.raises(TooLarge):
        await world.uploads.begin(NAME, TENSOR, size=(1 << 40) + 1)


@pytest.mark.parametrize(
    ("sent", "count", "message"),
    [
        ([], 3, "part 1 is missing"),
        ([], None, "part 1 is missing"),
        ([0, 2], 3, "part 2 is missing"),
        ([0, 1], 3, "part 3 is missing"),
        ([0, 2], None, "part 2 is missing"),
        ([0, 1, 2], 2, "3 parts were sent, not 2"),
    ],
)
async def test_a_commit_without_all_parts_is_refused_and_the_session_goes_on(
    replica: Replica, sent: list[int], count: int | None, message: str
) -> None:
    session = await replica.world.begin()
    await replica.url(session, PARTS[0])
    for index in sent:
        await replica.send(session, PARTS[index])
    with pytest.raises(SizeInvalid, match=message):
        await replica.finish(session, count=count)
    for span in PARTS:
        await replica.send(session, span)
    assert await replica.finish(session) == DIGEST


async def test_only_the_last_part_may_be_shorter(replica: Replica) -> None:
    session = await replica.world.begin()
    await replica.send(session, PARTS[0])
    await replica.send(session, Span(SIZE, SIZE + 5))
    await replica.send(session, PARTS[2])
    with pytest.raises(SizeInvalid, match=f"part 2 has 5 bytes, not {SIZE}"):
        await replica.finish(session)


async def test_wrong_bytes_are_refused_and_deleted(replica: Replica) -> None:
    session = await replica.sent(DATA[:-1] + b"?")
    for _ in range(2):
        with pytest.raises(DigestMismatch):
            await replica.finish(session)
    assert replica.store.objects == {}
    with pytest.raises(UploadUnknown):
        await replica.finish(session, TENSOR)
    with pytest.raises(UploadUnknown):
        await replica.url(session, PARTS[0])


async def test_commits_at_once_verify_once(
    replica: Replica, other: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_commit, "_POLL_S", 0.01)
    session = await replica.sent()
    row = await replica.row(session)
    asked = [each.direct.finish(NAME, row, DIGEST, 3) for each in (replica, other, replica)]
    assert await asyncio.gather(*asked) == [DIGEST] * 3
    assert len(replica.store.reads) == 1


async def test_two_commits_of_different_digests_do_not_agree(replica: Replica) -> None:
    session = await replica.sent()
    row = await replica.row(session)
    right, wrong = await asyncio.gather(
        replica.direct.finish(NAME, row, DIGEST, 3),
        replica.direct.finish(NAME, row, TENSOR, 3),
        return_exceptions=True,
    )
    assert right == DIGEST
    assert isinstance(wrong, DigestMismatch)


class SlowStore(MemoryStore):
    """Reads back when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def read_back(self, key: str) -> None:
        await super().read_back(key)
        await self.go_on.wait()


async def test_a_long_verification_goes_on_while_its_client_waits(world: World) -> None:
    store = SlowStore()
    replica = Replica(world, store, UploadLimits(commit_hold_s=0.05))
    session = await replica.sent()
    for _ in range(2):
        with pytest.raises(Unavailable, match="still being verified"):
            await replica.finish(session)
    with pytest.raises(Conflict):
        await replica.direct.cancel(await replica.row(session))
    with pytest.raises(Conflict):
        await replica.url(session, PARTS[0])
    assert await replica.direct.offset(await replica.row(session)) == len(DATA)
    store.go_on.set()
    await replica.direct.settle()
    assert await replica.direct.finish(NAME, await replica.row(session), DIGEST) == DIGEST
    assert len(store.reads) == 1


async def test_what_a_dead_replica_began_another_takes_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_commit, "_POLL_S", 0.01)
    monkeypatch.setattr(direct_commit, "_DEAD_S", 0.1)
    store = SlowStore()
    dead = Replica(world, store, UploadLimits(commit_hold_s=0.01))
    session = await dead.sent()
    with pytest.raises(Unavailable):
        await dead.finish(session)
    store.go_on.set()
    alive = Replica(world, store, UploadLimits(commit_hold_s=5))
    # it stands still: its next beat would come in some seconds only
    monkeypatch.setattr(direct_commit, "_BEAT_S", 60)
    row = await alive.row(session)
    store.go_on.clear()
    late = asyncio.create_task(alive.finish(session))
    await asyncio.sleep(0.3)
    assert (await alive.row(session)).verifier != row.verifier
    store.go_on.set()
    assert await late == DIGEST
    await dead.direct.close()
    assert (await alive.row(session)).state == "done"


async def test_a_replica_that_lives_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_commit, "_POLL_S", 0.01)
    monkeypatch.setattr(direct_commit, "_BEAT_S", 0.02)
    monkeypatch.setattr(direct_commit, "_DEAD_S", 0.3)
    store = SlowStore()
    first = Replica(world, store, UploadLimits(commit_hold_s=0.01))
    session = await first.sent()
    with pytest.raises(Unavailable):
        await first.finish(session)
    second = Replica(world, store, UploadLimits(commit_hold_s=1))
    with pytest.raises(Unavailable):
        await second.finish(session)
    store.go_on.set()
    await first.direct.settle()
    assert await second.finish(session) == DIGEST
    assert len(store.reads) == 1


async def test_a_server_that_stops_leaves_the_commit_to_others(
    world: World, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_commit, "_POLL_S", 0.01)
    slow = SlowStore()
    stopping = Replica(world, slow, UploadLimits())
    session = await stopping.sent()
    asked = asyncio.create_task(stopping.finish(session))
    while not slow.reads:
        await asyncio.sleep(0.01)
    await stopping.direct.close()
    with pytest.raises(Unavailable):
        await asked
    slow.go_on.set()
    assert await Replica(world, slow, UploadLimits()).finish(session) == DIGEST


async def test_an_answer_of_the_store_that_was_lost_does_no_harm(replica: Replica) -> None:
    session = await replica.sent()
    replica.store.loses_answers = True
    assert await replica.finish(session) == DIGEST


async def test_a_store_that_does_not_answer_is_asked_again_later(replica: Replica) -> None:
    session = await replica.sent()
    for step in ("parts", "complete", "landed", "read_back"):
        replica.store.broken = step
        with pytest.raises(Unavailable):
            await replica.finish(session)
        assert (await replica.row(session)).verifier == ""
    replica.store.broken = ""
    assert await replica.finish(session) == DIGEST


async def test_a_session_that_the_store_forgot_is_unknown(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_commit, "_SHOWS_AFTER_S", (0.01,))
    session = await replica.sent()
    replica.store.begun.clear()
    with pytest.raises(UploadUnknown):
        await replica.finish(session)


async def test_bytes_that_are_here_already_are_not_kept_twice(replica: Replica) -> None:
    for _ in range(2):
        assert await replica.finish(await replica.sent()) == DIGEST
    blob = await replica.world.blobs.stat(NAME, DIGEST)
    freed = await replica.world.catalog.read(lambda tx: tx.freed(9))
    assert {item.storage_key for item in freed} == set(replica.store.objects) - {blob.storage_key}
    assert len(freed) == 1


async def test_a_quota_holds_for_parts_and_for_whole_blobs(replica: Replica) -> None:
    replica.world.now = time.time_ns()  # the catalog's own clock
    await replica.world.catalog.write(lambda tx: tx.put_quota("team", SIZE + 5))
    session = await replica.world.begin()
    await replica.send(session, PARTS[0])
    with pytest.raises(QuotaExceeded):
        await replica.url(session, PARTS[1])
    whole, put = await replica.offer()
    replica.store.send(put.url, WHOLE)
    with pytest.raises(QuotaExceeded):  # the parts have taken the room
        await replica.finish(whole, TENSOR, None)
    assert replica.store.objects == {}
    assert await replica.direct.find(NAME, whole) is None


async def test_who_lost_a_session_does_not_delete_its_bytes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SlowStore()
    late = Replica(world, store, UploadLimits(commit_hold_s=0.01))
    session = await late.sent()
    with pytest.raises(Unavailable):
        await late.finish(session, TENSOR, 3)  # not what was sent
    row = await late.row(session)
    other = replace(row, verifier="another", verifier_beats=row.verifier_beats + 1)
    await world.catalog.write(lambda tx: tx.put_upload(other))
    store.go_on.set()
    await late.direct.settle()
    assert len(store.objects) == 1
    assert (await late.row(session)).verifier == "another"


async def test_the_state_tells_how_far_it_is_whole(replica: Replica) -> None:
    session = await replica.world.begin()
    await replica.send(session, PARTS[0])
    await replica.send(session, PARTS[2])
    assert await replica.direct.offset(await replica.row(session)) == SIZE
    await replica.send(session, PARTS[1])
    assert await replica.direct.offset(await replica.row(session)) == len(DATA)
    await replica.finish(session)
    with pytest.raises(UploadUnknown):
        await replica.direct.offset(await replica.row(session))


async def test_a_whole_blob_goes_to_the_store_in_one_request(replica: Replica) -> None:
    session, put = await replica.offer()
    assert await replica.direct.offset(await replica.row(session)) == 0
    with pytest.raises(SizeInvalid, match="not been sent"):
        await replica.finish(session, TENSOR, None)
    assert not replica.store.send(put.url, WHOLE + b"!")
    assert replica.store.send(put.url, WHOLE)
    assert await replica.direct.offset(await replica.row(session)) == len(WHOLE)
    assert await replica.finish(session, TENSOR, None) == TENSOR
    assert replica.store.reads == []
    assert (await replica.world.blobs.stat(NAME, TENSOR)).size == len(WHOLE)


async def test_without_the_stores_word_the_bytes_are_read_back(replica: Replica) -> None:
    replica.store.vouches = False
    session, put = await replica.offer()
    replica.store.send(put.url, WHOLE)
    assert await replica.finish(session, TENSOR, None) == TENSOR
    assert len(replica.store.reads) == 1


async def test_a_commit_of_another_digest_than_was_sent_is_refused(replica: Replica) -> None:
    session, put = await replica.offer()
    replica.store.send(put.url, WHOLE)
    with pytest.raises(DigestMismatch):
        await replica.finish(session, DIGEST, None)
    assert replica.store.objects == {}


@pytest.mark.parametrize(
    ("digest", "size", "checks"),
    [
        (TENSOR, LARGEST_PUT + 1, True),
        (TENSOR, 0, True),
        (TENSOR, len(WHOLE), False),  # any bytes could replace the verified ones later
        (Digest.of(WHOLE, "sha512"), len(WHOLE), True),
    ],
)
async def test_what_the_store_cannot_check_is_not_sent_there_whole(
    replica: Replica, digest: Digest, size: int, checks: bool
) -> None:
    replica.store.checks = checks
    upload = await replica.world.uploads.begin(NAME, digest)
    assert await replica.direct.offer(upload, size) is None
    assert (await replica.row(upload.id)).state == "open"


async def test_a_cancelled_session_leaves_nothing(replica: Replica) -> None:
    for session in (await replica.sent(), (await replica.offer())[0]):
        row = await replica.row(session)
        await replica.direct.cancel(row)
        assert await replica.direct.find(NAME, session) is None
        with pytest.raises(Conflict):
            await replica.direct.cancel(row)
    assert (replica.store.begun, replica.store.objects) == ({}, {})
    done = await replica.sent()
    await replica.finish(done)
    with pytest.raises(UploadUnknown):
        await replica.direct.cancel(await replica.row(done))


async def test_expired_sessions_go_with_the_others(replica: Replica) -> None:
    world = replica.world
    sent, offered = await replica.sent(), (await replica.offer())[0]
    rows = [await replica.row(session) for session in (sent, offered)]
    keep = await world.catalog.read(lambda tx: tx.incoming_keys())
    assert keep == {row.storage_key for row in rows}
    world.now += 25 * 3600 * NS
    fresh = await replica.sent()
    assert await world.uploads.sweep() == 2
    assert await replica.finish(fresh) == DIGEST


async def test_a_session_that_is_being_verified_does_not_expire(world: World) -> None:
    store = SlowStore()
    replica = Replica(world, store, UploadLimits(commit_hold_s=0.05, idle_s=60))
    session = await replica.sent()
    world.now += 59 * NS
    with pytest.raises(Unavailable):
        await replica.finish(session)
    world.now += 30 * 60 * NS
    assert await world.uploads.sweep() == 0
    store.go_on.set()
    await replica.direct.settle()
    assert await replica.finish(session) == DIGEST


async def test_sessions_that_ended_elsewhere_leave_room_for_others(world: World) -> None:
    await world.restart(UploadLimits(sessions=2))
    replica = Replica(world, MemoryStore(), UploadLimits())
    for _ in range(2):
        session, put = await replica.offer()
        replica.store.send(put.url, WHOLE)
        await replica.finish(session, TENSOR, None)
    for _ in range(2):
        await world.begin()
    with pytest.raises(Unavailable, match="too many"):
        await world.begin()


async def test_parts_let_a_session_live_on(replica: Replica) -> None:
    session = await replica.world.begin()
    await replica.send(session, PARTS[0])
    for _ in range(3):
        replica.world.now += 20 * 3600 * NS
        await replica.send(session, PARTS[1])
    await replica.send(session, PARTS[2])
    assert await replica.finish(session) == DIGEST


async def test_a_session_of_another_repository_is_not_found(replica: Replica) -> None:
    session = await replica.sent()
    assert await replica.direct.find(OTHER, session) is None


async def test_one_that_is_gone_meanwhile_is_unknown(replica: Replica) -> None:
    opened, sent = await replica.world.begin(), await replica.sent()
    rows = [await replica.row(opened), await replica.row(sent)]
    for row in rows:
        await replica.world.catalog.write(lambda tx, row=row: tx.delete_upload(row.id))  # type: ignore[misc]
    with pytest.raises(UploadUnknown):
        await replica.direct.redirect(rows[0], PARTS[0])
    with pytest.raises(UploadUnknown):
        await replica.direct.offer(replace(rows[0], declared_digest=str(TENSOR)), len(WHOLE))
    assert len(replica.store.begun) == 1  # that of the other session
