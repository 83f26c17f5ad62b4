"""What every blob store must do. A store's test class inherits it and has a fixture `store`."""

import asyncio
import hashlib
import random
import time
from contextlib import suppress

import pytest

from registry.core.digest import EMPTY, Digest
from registry.core.errors import BlobUnknown, DigestMismatch, SizeInvalid, UploadUnknown
from registry.ports.blobs import BlobStore, Incoming, Sink

MIB = 1 << 20
SIZES = [0, 1, 63, 4095, 4096, 4097, 65_536, MIB - 1, MIB, 3 * MIB + 17, 9 * MIB + 4097, 20 * MIB]


def some_bytes(size: int, seed: int = 0) -> bytes:
    """Bytes without pattern, the same each time."""
    return random.Random(seed).randbytes(size)


class Pieces:
    """A body that comes in pieces, and may break off."""

    def __init__(self, *pieces: bytes, fails: bool = False) -> None:
        self.pieces = pieces
        self.fails = fails

    async def feed(self, sink: Sink) -> int:
        for piece in self.pieces:
            await sink.write(piece)
        if self.fails:
            raise SizeInvalid("gone")
        return sum(map(len, self.pieces))


class Borrowing:
    """A body that fills the sink's own buffers, `step` bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self.data = data
        self.step = step

    async def feed(self, sink: Sink) -> int:
        left = memoryview(self.data)
        while left:
            buffer = await sink.borrow()
            count = min(len(buffer), len(left), self.step)
            buffer[:count] = left[:count]
            await sink.fill(count)
            left = left[count:]
        return len(self.data)


async def keep(store: BlobStore, data: bytes) -> str:
    """Store `data` as callers do; return its storage key."""
    incoming = await store.create(len(data))
    await incoming.receive(Pieces(data))
    key = await incoming.publish(await incoming.seal())
    incoming.confirm()
    await incoming.discard()
    return key


async def content(store: BlobStore, key: str) -> bytes:
    async with await store.open(key) as blob:
        return b"".join([part async for part in blob.chunks(0, blob.size)])


async def names(store: BlobStore) -> dict[str, int]:
    return {key: size async for key, size in store.keys(1 << 62)}


class BlobStoreContract:
    """The tests."""

    pytestmark = pytest.mark.anyio

    async def test_blobs_are_found_by_their_names_and_their_age(self, store: BlobStore) -> None:
        assert store.key_of(Digest.of(b"hello")) is None
        began = time.time_ns()
        key = await keep(store, b"hello")
        assert store.key_of(Digest.of(b"hello")) == (key if store.reuses_keys else None)
        assert [item async for item in store.keys(began - 10**9)] == []

    @pytest.mark.parametrize("size", SIZES)
    async def test_what_was_stored_is_read_back(self, store: BlobStore, size: int) -> None:
        data = some_bytes(size)
        key = await keep(store, data)
        assert await content(store, key) == data
        assert await store.exists(key) == size
        assert await names(store) == {key: size}

    @pytest.mark.parametrize("hint", [None, 0, 5, 3 * MIB + 17, 64 * MIB])
    async def test_the_size_hint_is_only_a_hint(self, store: BlobStore, hint: int | None) -> None:
        data = some_bytes(3 * MIB + 17)
        incoming = await store.create(hint)
        assert await incoming.receive(Pieces(data)) == len(data)
        assert await incoming.seal() == Digest.of(data)
        key = await incoming.publish(Digest.of(data))
        await incoming.discard()
        assert await store.exists(key) == len(data)

    @pytest.mark.parametrize("step", [1 << 30, 65_536, 70_001])
    async def test_borrowed_buffers_are_filled_at_any_pace(
        self, store: BlobStore, step: int
    ) -> None:
        data = some_bytes(9 * MIB + 5)
        incoming = await store.create()
        await incoming.write(b"odd")
        await incoming.receive(Borrowing(data, step))
        digest = await incoming.seal()
        assert digest == Digest.of(b"odd" + data)
        assert await content(store, await incoming.publish(digest)) == b"odd" + data
        await incoming.discard()

    async def test_bytes_may_be_reused_after_write(self, store: BlobStore) -> None:
        incoming = await store.create()
        buffer = bytearray(b"a" * 100_000)
        await incoming.write(buffer)
        buffer[:] = b"b" * 100_000
        await incoming.write(buffer)
        assert await incoming.digest() == Digest.of(b"a" * 100_000 + b"b" * 100_000)
        await incoming.discard()

    async def test_the_digest_can_be_asked_for_on_the_way(self, store: BlobStore) -> None:
        incoming = await store.create()
        assert await incoming.digest() == EMPTY
        await incoming.write(b"hello")
        assert await incoming.digest() == Digest.of(b"hello")
        assert await incoming.digest("sha512") == Digest(
            "sha512", hashlib.sha512(b"hello").hexdigest()
        )
        await incoming.write(b" world")
        assert await incoming.seal() == Digest.of(b"hello world")
        await incoming.discard()

    async def test_nothing_is_visible_before_publish(self, store: BlobStore) -> None:
        incoming = await store.create()
        await incoming.write(b"hello")
        await incoming.seal()
        if store.reuses_keys:  # else nobody knows the key, which says nothing of the bytes
            assert await names(store) == {}
        await incoming.discard()
        assert await names(store) == {}

    async def test_a_wrong_digest_publishes_nothing(self, store: BlobStore) -> None:
        incoming = await store.create()
        await incoming.write(b"hello")
        with pytest.raises(DigestMismatch) as raised:
            await incoming.publish(Digest.of(b"other"))
        assert raised.value.got == str(Digest.of(b"hello"))
        await incoming.discard()
        assert await names(store) == {}

    async def test_a_sha512_digest_publishes_under_the_sha256(self, store: BlobStore) -> None:
        incoming = await store.create()
        await incoming.write(b"hello")
        await incoming.seal()
        with pytest.raises(DigestMismatch):
            await incoming.publish(Digest("sha512", "0" * 128))
        wanted = Digest("sha512", hashlib.sha512(b"hello").hexdigest())
        key = await incoming.publish(wanted)
        await incoming.discard()
        assert await content(store, key) == b"hello"
        assert key == await keep(store, b"hello") or await store.exists(key) == 5

    @pytest.mark.parametrize("before", [0, 10, MIB, 9 * MIB + 3])
    @pytest.mark.parametrize("lost", [5, 3 * MIB, 11 * MIB + 7])
    async def test_a_body_that_fails_leaves_what_was_there(
        self, store: BlobStore, before: int, lost: int
    ) -> None:
        first, rest = some_bytes(before, 1), some_bytes(70_000, 2)
        incoming = await store.create()
        await incoming.receive(Pieces(first))
        with pytest.raises(SizeInvalid):
            await incoming.receive(Pieces(some_bytes(lost, 3), fails=True))
        assert incoming.size == before
        assert await incoming.digest() == Digest.of(first)
        await incoming.receive(Pieces(rest))
        digest = await incoming.seal()
        assert digest == Digest.of(first + rest)
        assert await content(store, await incoming.publish(digest)) == first + rest
        await incoming.discard()

    async def test_a_cancelled_body_leaves_what_was_there(self, store: BlobStore) -> None:
        incoming = await store.create()
        await incoming.write(b"hello")

        class Endless:
            async def feed(self, sink: Sink) -> int:
                while True:
                    await sink.write(bytes(MIB))

        task = asyncio.create_task(incoming.receive(Endless()))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert incoming.size == 5
        assert await incoming.seal() == Digest.of(b"hello")
        await incoming.discard()

    @pytest.mark.parametrize("size", [0, 7, 2 * MIB + 1, 9 * MIB])
    async def test_an_upload_goes_on_after_close(self, store: BlobStore, size: int) -> None:
        first, rest = some_bytes(size, 1), some_bytes(MIB + 1, 2)
        incoming = await store.create()
        await incoming.write(first)
        await incoming.flush()
        await incoming.close()
        again = await store.resume(incoming.key, size)
        assert again.size == size
        await again.receive(Pieces(rest))
        digest = await again.seal()
        assert digest == Digest.of(first + rest)
        assert await content(store, await again.publish(digest)) == first + rest
        await again.discard()

    async def test_resume_cuts_off_what_was_not_counted(self, store: BlobStore) -> None:
        incoming = await store.create()
        await incoming.write(b"hello world")
        await incoming.flush()
        await incoming.close()
        again = await store.resume(incoming.key, 5)
        assert await again.seal() == Digest.of(b"hello")
        await again.discard()

    async def test_resume_of_what_is_not_there(self, store: BlobStore) -> None:
        incoming = await store.create()
        await incoming.write(b"hello")
        await incoming.flush()
        await incoming.close()
        with pytest.raises(UploadUnknown):
            await store.resume(incoming.key, 6)
        await store.discard(incoming.key)
        await store.discard(incoming.key)
        with pytest.raises(UploadUnknown):
            await store.resume(incoming.key, 5)

    async def test_parts_arrive_out_of_order(self, store: BlobStore) -> None:
        data = some_bytes(5 * MIB + 11)
        incoming = await store.create(len(data))
        starts = list(range(0, len(data), MIB))
        random.Random(4).shuffle(starts)
        await asyncio.gather(*(incoming.write_at(at, data[at : at + MIB]) for at in starts))
        assert incoming.size == len(data)
        assert await incoming.read(MIB - 2, MIB + 3) == data[MIB - 2 : MIB + 3]
        digest = await incoming.seal()
        assert digest == Digest.of(data)
        assert await content(store, await incoming.publish(digest)) == data
        await incoming.discard()

    @pytest.mark.parametrize("size", [3, MIB, 9 * MIB + 3])
    async def test_a_body_sent_again_is_known(self, store: BlobStore, size: int) -> None:
        first, last = some_bytes(size, 1), some_bytes(MIB + 9, 2)
        incoming = await store.create()
        for body in (first, last):
            await incoming.receive(Pieces(body))
            await incoming.flush()
        assert await incoming.repeats(size, Pieces(last))
        assert not await incoming.repeats(size, Pieces(last[:-1] + b"?"))
        assert not await incoming.repeats(size, Pieces(last + b"?"))
        assert await incoming.seal() == Digest.of(first + last)
        await incoming.discard()

    async def test_parts_that_are_durable_are_there_when_it_goes_on(self, store: BlobStore) -> None:
        size = 26 * MIB
        data = some_bytes(size)
        incoming = await store.create(size)
        for start in (8 * MIB, 16 * MIB):
            for at in range(start, start + 9 * MIB, MIB):
                await incoming.write_at(at, data[at : at + MIB])
        await incoming.flush()
        ranges = await incoming.durable()
        assert all(any(a <= at < b for a, b in ranges) for at in (8 * MIB, 25 * MIB - 1))
        await incoming.close()
        again = await store.resume(incoming.key, 25 * MIB, sparse=True)
        there = await again.durable()
        if not again.rereads:
            assert there == [(8 * MIB, 25 * MIB)]
        await asyncio.gather(
            again.write_at(0, data[: 8 * MIB]), again.write_at(25 * MIB, data[25 * MIB :])
        )
        digest = await again.seal()
        assert digest == Digest.of(data)
        assert await content(store, await again.publish(digest)) == data
        await again.discard()

    async def test_bytes_on_their_way_can_be_read(self, store: BlobStore) -> None:
        data = some_bytes(9 * MIB)
        incoming = await store.create()
        await incoming.write(data)
        if incoming.rereads:
            assert await incoming.read(0, 16) == data[:16]
        assert await incoming.read(8 * MIB + 5, 9 * MIB) == data[8 * MIB + 5 :]
        await incoming.write(b"more")
        assert await incoming.seal() == Digest.of(data + b"more")
        await incoming.discard()

    async def test_a_blob_removed_after_publish_is_put_back_by_confirm(
        self, store: BlobStore
    ) -> None:
        incoming = await store.create()
        await incoming.write(b"hello")
        key = await incoming.publish(await incoming.seal())
        if store.reuses_keys:  # else nobody else can have had the key to remove it
            store.remove(key)
            assert await store.exists(key) is None
        incoming.confirm()
        await incoming.discard()
        assert await content(store, key) == b"hello"

    async def test_two_uploads_of_the_same_bytes_leave_one_blob(self, store: BlobStore) -> None:
        data = some_bytes(3 * MIB)
        keys = await asyncio.gather(keep(store, data), keep(store, data))
        found = await names(store)
        for key in keys:
            if key in found:
                assert await content(store, key) == data

    async def test_published_bytes_that_no_row_mentions_can_be_gone_on_with(
        self, store: BlobStore
    ) -> None:
        """The database was away: whoever asks again need not send everything again."""
        data = some_bytes(200_000)
        incoming = await store.create()
        await incoming.write(data)
        await incoming.flush()
        stood_at = incoming.key
        first = await incoming.publish(await incoming.seal())
        await incoming.close(intact=False)
        again = await store.resume(stood_at, len(data))
        key = await again.publish(await again.seal())
        again.confirm()
        await again.discard()
        assert await content(store, first) == await content(store, key) == data

    async def test_going_on_with_published_bytes_leaves_the_blob_alone(
        self, store: BlobStore
    ) -> None:
        """Another row may mention it by now."""
        data = some_bytes(200_000)
        for size in (len(data), 100_000):
            incoming = await store.create()
            await incoming.write(data)
            await incoming.flush()
            stood_at = incoming.key
            key = await incoming.publish(await incoming.seal())
            await incoming.close(intact=False)
            with suppress(UploadUnknown):  # an object store cannot cut an object
                again = await store.resume(stood_at, size)
                with suppress(UploadUnknown):
                    await again.write(b"other")
                await again.discard()
            assert await content(store, key) == data

    async def test_discard_after_publish_keeps_the_blob(self, store: BlobStore) -> None:
        incoming = await store.create()
        await incoming.write(b"hello")
        key = await incoming.publish(await incoming.seal())
        await incoming.discard()
        assert await content(store, key) == b"hello"

    async def test_a_removed_blob_is_gone_and_may_be_removed_again(self, store: BlobStore) -> None:
        key = await keep(store, b"hello")
        store.remove(key)
        store.remove(key)
        assert await store.exists(key) is None
        with pytest.raises(BlobUnknown):
            await store.open(key)

    async def test_an_open_blob_survives_its_removal(self, store: BlobStore) -> None:
        data = some_bytes(3 * MIB)
        key = await keep(store, data)
        async with await store.open(key) as blob:
            store.remove(key)
            if store.reuses_keys:
                assert await blob.read(MIB, MIB + 5) == data[MIB : MIB + 5]
            else:
                with pytest.raises(BlobUnknown):
                    await blob.read(MIB, MIB + 5)
                with pytest.raises(BlobUnknown):
                    await anext(blob.chunks(MIB, MIB + 5))

    async def test_ranges_of_a_blob(self, store: BlobStore) -> None:
        data = some_bytes(3 * MIB + 5)
        async with await store.open(await keep(store, data)) as blob:
            assert blob.size == len(data)
            assert await blob.read(0, 0) == b""
            assert await blob.read(5, 10) == data[5:10]
            parts = [part async for part in blob.chunks(3, 3 * MIB)]
            assert b"".join(parts) == data[3 : 3 * MIB]
            assert max(map(len, parts)) <= MIB

    async def test_the_sweep_takes_what_is_old_and_not_kept(self, store: BlobStore) -> None:
        kept, left = await _left_behind(store), await _left_behind(store)
        key = await keep(store, b"a blob")
        assert await store.sweep(frozenset(), 1) == 0
        future = 1 << 62
        assert await store.sweep(frozenset({kept.key}), future) == 5
        assert await store.sweep(frozenset({kept.key}), future) == 0
        with pytest.raises(UploadUnknown):
            await store.resume(left.key, 5)
        await (await store.resume(kept.key, 5)).discard()
        assert await content(store, key) == b"a blob"

    @pytest.mark.parametrize(
        "key",
        [
            "",
            "..",
            "../../etc/passwd",
            "sha256-../../../../../etc/passwd",
            "sha256-" + "A" * 64,
            "sha256-" + "a" * 63,
            "sha256-" + "a" * 64 + "\n",
            "sha256-" + "a" * 64 + "/x",
            "/etc/passwd",
            "a\0b",
        ],
    )
    async def test_a_key_that_cannot_be_one_names_nothing(self, store: BlobStore, key: str) -> None:
        with pytest.raises(BlobUnknown):
            await store.open(key)
        with pytest.raises(UploadUnknown):
            await store.resume(key, 0)
        assert await store.exists(key) is None
        assert store.path(key) is None
        store.remove(key)
        await store.discard(key)

    async def test_a_store_that_can_be_written_passes_its_check(self, store: BlobStore) -> None:
        await store.check()
        assert await names(store) == {}

    async def test_many_uploads_at_once_share_the_buffers(self, store: BlobStore) -> None:
        data = [some_bytes(3 * MIB + n, n) for n in range(24)]

        async def one(body: bytes) -> Digest:
            incoming = await store.create()
            await incoming.receive(
                Pieces(*(body[at : at + 100_000] for at in range(0, len(body), 100_000)))
            )
            try:
                return await incoming.seal()
            finally:
                await incoming.discard()

        async with asyncio.timeout(30):
            digests = await asyncio.gather(*map(one, data))
        assert digests == [Digest.of(body) for body in data]

    async def test_idle_uploads_do_not_hold_up_a_busy_one(self, store: BlobStore) -> None:
        idle = [await store.create() for _ in range(40)]
        async with asyncio.timeout(30):
            for number, incoming in enumerate(idle):
                await incoming.write(b"%d" % number)
            key = await keep(store, some_bytes(9 * MIB))
        assert await store.exists(key) == 9 * MIB
        for number, incoming in enumerate(idle):
            assert await incoming.seal() == Digest.of(b"%d" % number)
            await incoming.discard()

    async def test_small_blobs_are_put_whole_and_synced(self, store: BlobStore) -> None:
        contents = {
            store.new_key(Digest.of(data)): data for data in (b"", b"a text", b"x" * 70_000)
        }
        store.put(contents)
        store.put(contents)  # as after a crash
        store.sync(list(contents))
        for key, data in contents.items():
            async with await store.open(key) as blob:
                assert (blob.size, await blob.read(0, blob.size)) == (len(data), data)

    async def test_a_small_blob_that_is_gone_needs_no_sync(self, store: BlobStore) -> None:
        key = store.new_key(Digest.of(b"a text"))
        store.put({key: b"a text"})
        store.remove(key)
        store.sync([key])
        assert await store.exists(key) is None

    async def test_a_small_blob_puts_right_what_lies_under_its_key(self, store: BlobStore) -> None:
        data = b"a text that was torn"
        key = await keep(store, data)
        store.put({key: data})
        async with await store.open(key) as blob:
            assert await blob.read(0, blob.size) == data


async def _left_behind(store: BlobStore) -> Incoming:
    incoming = await store.create()
    await incoming.write(b"hello")
    await incoming.flush()
    await incoming.close()
    return incoming
