"""The object store keeps the contract, and what only it promises."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from registry.adapters import s3_client
from registry.adapters.blobs_s3 import S3BlobStore
from registry.adapters.s3_buffers import Memory
from registry.adapters.s3_client import S3Bucket, connect
from registry.core.digest import Digest
from registry.core.errors import (
    BlobUnknown,
    OperationFailed,
    RegistryError,
    Unavailable,
    UploadUnknown,
)
from registry.core.storage_url import S3Url
from registry.ports.blobs import BlobStore
from registry.settings import S3Keys
from tests.contract.blobs import MIB, BlobStoreContract, Pieces, content, keep, names, some_bytes
from tests.support.backends import leftovers
from tests.support.faulty_s3 import Fault, Front, front
from tests.support.s3 import KEYS, S3Server

pytestmark = pytest.mark.anyio


class TestS3BlobStore(BlobStoreContract):
    @pytest.fixture
    async def store(self, s3: S3Server) -> AsyncIterator[BlobStore]:
        store = S3BlobStore(s3.open())
        yield store
        store.close()
        assert leftovers(store.bucket) == []


class TestS3BlobStoreWithLittleMemory(BlobStoreContract):
    @pytest.fixture
    async def store(self, s3: S3Server) -> AsyncIterator[BlobStore]:
        store = S3BlobStore(s3.open(), Memory(16 * MIB, MIB))
        yield store
        store.close()
        assert leftovers(store.bucket) == []


@pytest.fixture
async def store(s3: S3Server) -> AsyncIterator[S3BlobStore]:
    store = S3BlobStore(s3.open())
    yield store
    store.close()


@pytest.fixture
async def replica(store: S3BlobStore) -> AsyncIterator[S3BlobStore]:
    """Another process on the same bucket."""
    other = S3BlobStore(store.bucket)
    yield other
    other.close()


async def test_a_blob_is_an_object_of_a_random_key_below_the_prefix(store: S3BlobStore) -> None:
    first, second = await keep(store, b"hello"), await keep(store, b"hello")
    assert first != second
    objects = {item["Key"] for item in store.bucket.listed("")}
    assert objects == {f"models/blobs/{key[:2]}/{key}" for key in (first, second)}


async def test_replicas_go_on_with_one_upload_in_turn(
    store: S3BlobStore, replica: S3BlobStore
) -> None:
    data = some_bytes(45 * MIB + 77)
    steps = [0, 5, 9 * MIB, 9 * MIB + 1, 30 * MIB, 44 * MIB, len(data)]
    key = (await store.create()).key
    for number, (start, stop) in enumerate(itertools.pairwise(steps)):
        incoming = await (store, replica)[number % 2].resume(key, start)
        await incoming.receive(Pieces(data[start:stop]))
        await incoming.flush()
        key = incoming.key
        await incoming.close()
    incoming = await store.resume(key, len(data))
    digest = await incoming.seal()
    assert digest == Digest.of(data)
    assert await content(store, await incoming.publish(digest)) == data
    await incoming.discard()
    assert leftovers(store.bucket) == []


@pytest.mark.parametrize("size", [3 * MIB, 20 * MIB])
async def test_no_hash_of_bytes_here_vouches_for_bytes_of_another_process(
    store: S3BlobStore, replica: S3BlobStore, size: int
) -> None:
    """Both write the same upload at once, different bytes; each says what it made."""
    ours, theirs = some_bytes(size, 1), some_bytes(size, 2)
    first = await store.create()
    await first.write(ours[: 9 * MIB])
    await first.flush()
    start = min(size, 9 * MIB)
    second = await replica.resume(first.key, start)
    await first.write(ours[start:])
    await second.write(theirs[start:])
    await first.flush()
    await second.flush()
    for incoming in (first, second):
        try:
            digest = await incoming.seal()
        except RegistryError:
            continue
        key = await incoming.publish(digest)
        data = await content(store, key)
        assert digest == Digest.of(data)
    await first.discard()
    await second.discard()


async def test_a_part_overwritten_by_another_process_is_found_at_the_end(
    store: S3BlobStore, replica: S3BlobStore
) -> None:
    ours = some_bytes(20 * MIB, 1)
    first = await store.create()
    await first.write(ours)
    await first.flush()
    second = await replica.resume(first.key, 16 * MIB)
    other = some_bytes(8 * MIB, 2)
    await asyncio.to_thread(second._session.put_part, 1, other, hashlib.sha256(other).digest())  # type: ignore[attr-defined]
    digest = await first.seal()
    expected = other + ours[8 * MIB :]
    assert digest == Digest.of(expected)
    assert await content(store, await first.publish(digest)) == expected
    await first.discard()
    await second.close()


async def test_what_was_sealed_and_not_recorded_is_found_by_its_key(
    store: S3BlobStore, replica: S3BlobStore
) -> None:
    """The process died between the object and its row."""
    data = some_bytes(17 * MIB)
    incoming = await store.create()
    await incoming.write(data)
    await incoming.flush()
    assert await incoming.seal() == Digest.of(data)
    again = await replica.resume(incoming.key, len(data))
    assert await again.seal() == Digest.of(data)
    with pytest.raises(UploadUnknown):
        await replica.resume(incoming.key, len(data) - 1)
    await again.discard()  # the other may have made it a blob by now
    assert await content(store, await incoming.publish(Digest.of(data))) == data
    await incoming.discard()


async def test_an_upload_that_is_ended_elsewhere_says_so(
    store: S3BlobStore, replica: S3BlobStore
) -> None:
    incoming = await store.create()
    await incoming.write(some_bytes(9 * MIB))
    await incoming.flush()
    await replica.discard(incoming.key)
    with pytest.raises(RegistryError):
        await incoming.write(some_bytes(20 * MIB))
        await incoming.seal()
    await incoming.discard()


async def test_the_running_hash_outlives_a_break(store: S3BlobStore) -> None:
    """Resumed in the same process, a blob need not be read back."""
    data = some_bytes(26 * MIB)
    incoming = await store.create()
    await incoming.receive(Pieces(data[: 17 * MIB]))
    await incoming.flush()
    await incoming.close()
    again = await store.resume(incoming.key, 17 * MIB)
    await again.receive(Pieces(data[17 * MIB :]))
    assert await again.digest() == Digest.of(data)
    assert await again.seal() == Digest.of(data)
    await again.discard()
    assert await names(store) == {}


async def test_an_upload_that_gets_bytes_is_not_swept_whoever_writes_it(
    store: S3BlobStore, replica: S3BlobStore
) -> None:
    incoming = await store.create()
    await incoming.write(some_bytes(9 * MIB))
    await incoming.flush()
    parts = store.bucket.call("list_multipart_uploads", Prefix="models/")["Uploads"]
    assert len(parts) == 1
    assert await replica.sweep(frozenset({incoming.key}), 1 << 62) == 0
    assert await store.sweep(frozenset(), 1 << 62) in {0, 8 * MIB}
    await incoming.discard()


@pytest.mark.parametrize(
    ("query", "keys", "why"),
    [
        ("", {"secret_key": "wrong"}, "refuses access|secret key is wrong"),
        (
            "",
            {"access_key": "nobody"},
            "does not know the access key|refuses access|XAdminUserNotFound",
        ),
        ("absent", {}, "bucket does not exist"),
    ],
)
async def test_a_store_that_cannot_be_used_is_told_in_one_sentence(
    s3: S3Server, query: str, keys: dict[str, str], why: str
) -> None:
    url = s3.place(query or s3.bucket())
    with pytest.raises(OperationFailed, match=why):
        S3Bucket.open(url, KEYS.model_copy(update=keys)).check()


async def test_a_store_that_does_not_answer_is_unavailable() -> None:
    url = S3Url.parse("s3://bucket?endpoint=http://127.0.0.1:1")
    bucket = S3Bucket(connect(url, S3Keys(access_key="a", secret_key="b")), "bucket", "", tries=1)
    with pytest.raises(Unavailable, match="does not answer"):
        bucket.check()


# ---- faults


@pytest.fixture
def faulty(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    monkeypatch.setattr(s3_client, "_PAUSE_S", 0.001)
    with front(s3.endpoint) as made:
        yield made


@pytest.fixture
async def shaken(s3: S3Server, faulty: Front) -> AsyncIterator[S3BlobStore]:
    """A store behind the front."""
    place = S3Url.parse(f"s3://{s3.bucket()}/models?endpoint={faulty.endpoint}")
    store = S3BlobStore(S3Bucket.open(place, KEYS))
    yield store
    store.close()


@pytest.mark.parametrize("fault", ["500", "503", "lost", "cut"])
@pytest.mark.parametrize("every", [2, 3, 5])
async def test_faults_now_and_then_are_not_seen(
    shaken: S3BlobStore, faulty: Front, fault: Fault, every: int
) -> None:
    faulty.fault, faulty.every = fault, every
    for size in (10, 21 * MIB + 5):
        data = some_bytes(size)
        incoming = await shaken.create()
        await incoming.receive(Pieces(data[: size // 2]))
        await incoming.flush()
        await incoming.close()
        again = await shaken.resume(incoming.key, size // 2)
        await again.receive(Pieces(data[size // 2 :]))
        digest = await again.seal()
        assert digest == Digest.of(data)
        assert await content(shaken, await again.publish(digest)) == data
        await again.discard()
    assert faulty.faults > 0


async def test_a_completion_that_says_ok_and_means_no_is_looked_into(
    shaken: S3BlobStore, faulty: Front
) -> None:
    data = some_bytes(17 * MIB)
    incoming = await shaken.create()
    await incoming.write(data)
    await incoming.flush()
    faulty.fault, faulty.every, faulty.methods = "200-error", 1, frozenset({"POST"})
    digest = await incoming.seal()
    faulty.every = 0
    assert digest == Digest.of(data)
    assert await content(shaken, await incoming.publish(digest)) == data
    await incoming.discard()


async def test_what_another_replica_deleted_just_before_is_deleted(
    shaken: S3BlobStore, faulty: Front
) -> None:
    """The protocol has no error for it, but servers over a file system do where two meet."""
    key = await keep(shaken, b"hello")
    faulty.fault, faulty.every, faulty.methods = "404", 1, frozenset({"DELETE"})
    await asyncio.to_thread(shaken.remove, key)
    await asyncio.to_thread(shaken.bucket.check)
    assert faulty.faults == 2


@pytest.mark.parametrize("fault", ["500", "503", "lost"])
async def test_a_store_that_only_fails_is_unavailable_and_the_upload_goes_on_later(
    shaken: S3BlobStore, faulty: Front, fault: Fault
) -> None:
    data = some_bytes(20 * MIB)
    incoming = await shaken.create()
    await incoming.receive(Pieces(data[: 9 * MIB]))
    await incoming.flush()
    faulty.fault, faulty.every = fault, 1
    with pytest.raises(Unavailable):
        await incoming.receive(Pieces(data[9 * MIB :]))
        await incoming.flush()
    await incoming.close(intact=False)
    with pytest.raises(Unavailable):
        await shaken.resume(incoming.key, 9 * MIB)
    with pytest.raises(Unavailable):
        await shaken.open("0" * 32)
    faulty.every = 0
    again = await shaken.resume(incoming.key, 9 * MIB)
    await again.receive(Pieces(data[9 * MIB :]))
    assert await again.seal() == Digest.of(data)
    await again.discard()
    with pytest.raises(BlobUnknown):
        await shaken.open("0" * 32)
