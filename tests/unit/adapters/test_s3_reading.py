"""Hashing what a real store has, through a proxy that is slow or breaks off."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TypeVar

import pytest

from registry.adapters.s3_client import S3Bucket, new_key
from registry.adapters.s3_reading import Crowd, S3Opened, hash_object
from registry.core.digest import Digest
from registry.core.errors import UploadUnknown
from registry.core.storage_url import S3Url
from tests.support.faulty_s3 import Front, front
from tests.support.s3 import KEYS, S3Server

pytestmark = pytest.mark.anyio

MIB = 1 << 20
T = TypeVar("T")


@pytest.fixture
def before(s3: S3Server) -> Iterator[Front]:
    with front(s3.endpoint) as made:
        yield made


@pytest.fixture
def bucket(s3: S3Server, before: Front) -> S3Bucket:
    place = S3Url.parse(f"s3://{s3.bucket()}/models?endpoint={before.endpoint}")
    return S3Bucket.open(place, KEYS)


def run(work: Callable[[], T], /) -> "asyncio.Future[T]":
    return asyncio.get_running_loop().run_in_executor(None, work)


def kept(bucket: S3Bucket, size: int) -> tuple[str, Digest]:
    data = os.urandom(size)
    key = new_key()
    bucket.call("put_object", Key=bucket.blob(key), Body=data)
    return key, Digest.of(data)


@pytest.mark.parametrize("size", [1, 8 * MIB, 8 * MIB + 1, 27 * MIB])
@pytest.mark.parametrize("delay_s", [0.0, 0.3])
async def test_an_object_has_the_same_hash_whether_its_store_is_quick_or_slow(
    bucket: S3Bucket, before: Front, size: int, delay_s: float
) -> None:
    key, digest = kept(bucket, size)
    before.delay_s = delay_s
    assert await hash_object(bucket, run, key, size, "sha256") == digest.hex


async def test_a_slow_store_is_asked_for_several_ranges_at_once(
    bucket: S3Bucket, before: Front
) -> None:
    key, _ = kept(bucket, 40 * MIB)
    before.delay_s = 0.3
    await hash_object(bucket, run, key, 40 * MIB, "sha256")
    assert before.most_asked == 4


@pytest.mark.parametrize("delay_s", [0.0, 0.2])
async def test_answers_that_break_off_are_gone_on_with(
    bucket: S3Bucket, before: Front, delay_s: float
) -> None:
    key, digest = kept(bucket, 20 * MIB)
    before.delay_s = delay_s
    before.fault, before.every, before.methods = "cut", 2, frozenset({"GET"})
    assert await hash_object(bucket, run, key, 20 * MIB, "sha256") == digest.hex
    assert before.faults > 0


async def test_an_object_that_is_gone_or_shorter_has_no_hash(bucket: S3Bucket) -> None:
    key, _ = kept(bucket, 5)
    for found, size in ((new_key(), 5), (key, 6)):
        with pytest.raises(UploadUnknown):
            await hash_object(bucket, run, found, size, "sha256")


@pytest.mark.parametrize(
    ("streams", "piece"),
    [(0, MIB), (1, MIB), (16, MIB), (32, MIB // 2), (64, MIB // 4), (1000, MIB // 16)],
)
def test_the_more_streams_the_smaller_their_pieces(streams: int, piece: int) -> None:
    crowd = Crowd()
    with contextlib.ExitStack() as stack:
        for _ in range(streams):
            stack.enter_context(crowd.joined())
        assert crowd.piece == piece
        assert crowd.is_small == (streams <= 16)
    assert crowd.piece == MIB


async def test_streams_that_end_early_leave_the_crowd(bucket: S3Bucket) -> None:
    key, _ = kept(bucket, 9 * MIB)
    crowd = Crowd()
    blob = S3Opened(bucket, run, key, 9 * MIB, crowd)
    streams = [blob.chunks(0, 9 * MIB) for _ in range(32)]
    for stream in streams:
        await anext(aiter(stream))
    assert crowd.piece == MIB // 2
    for stream in streams:
        assert isinstance(stream, AsyncGenerator)
        await stream.aclose()
    assert crowd.piece == MIB


@pytest.mark.parametrize("others", [0, 40])
async def test_a_stream_has_all_bytes_in_a_crowd_too(bucket: S3Bucket, others: int) -> None:
    key, digest = kept(bucket, 5 * MIB + 1)
    crowd = Crowd()
    with contextlib.ExitStack() as stack:
        for _ in range(others):
            stack.enter_context(crowd.joined())
        blob = S3Opened(bucket, run, key, 5 * MIB + 1, crowd)
        data = b"".join([piece async for piece in blob.chunks(0, 5 * MIB + 1)])
        assert Digest.of(data) == digest
        assert b"".join([piece async for piece in blob.chunks(7, 8)]) == data[7:8]
        assert [piece async for piece in blob.chunks(5, 5)] == []
