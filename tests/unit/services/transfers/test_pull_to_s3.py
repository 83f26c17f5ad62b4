"""Pulls into an object store: parts side by side, and what goes on after a break."""

import asyncio
import base64
import hashlib
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.adapters.s3_client import S3Bucket
from registry.core import retries
from registry.core.events import Event
from tests.support.backends import leftovers
from tests.support.s3 import S3Server
from tests.support.transfer_place import NAME, Place, collect, progress, until
from tests.support.upstream import MemoryRegistry, digest_of

pytestmark = [pytest.mark.anyio, pytest.mark.folder]

MIB = 1 << 20
BIG = random.Random(1).randbytes(45 * MIB + 123)
DIGEST = digest_of(BIG)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> MemoryRegistry:
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.001)
    made = MemoryRegistry()
    made.add("a/b:v1", [BIG])
    return made


@pytest.fixture
def bucket(s3: S3Server) -> S3Bucket:
    return s3.open()


@pytest.fixture
async def place(tmp_path: Path, registry: MemoryRegistry, bucket: S3Bucket) -> AsyncIterator[Place]:
    made = Place(tmp_path / "first", registry, bucket=bucket, part_bytes=10 * MIB)
    yield made
    await made.close()


async def begun(place: Place, registry: MemoryRegistry) -> asyncio.Task[list[Event]]:
    """A pull that was held up after some bytes."""
    registry.hold_at = 38 * MIB
    task = asyncio.create_task(collect(place.pull.run(NAME)))
    await until(lambda: not registry.gate.is_set())
    await asyncio.sleep(0.1)
    return task


async def test_ranges_come_side_by_side_and_begin_where_parts_do(
    place: Place, registry: MemoryRegistry, bucket: S3Bucket
) -> None:
    await collect(place.pull.run(NAME))
    assert await place.content(DIGEST) == BIG
    reads = [line.split()[-1] for line in registry.asked if line.startswith(f"read {DIGEST.short}")]
    starts = sorted(int(span.partition("-")[0]) for span in reads)
    assert starts == [0, 8 * MIB, 16 * MIB, 24 * MIB, 40 * MIB]
    assert leftovers(bucket) == []


async def test_a_cancelled_pull_goes_on_where_it_ended(
    place: Place, registry: MemoryRegistry, bucket: S3Bucket, tmp_path: Path
) -> None:
    task = await begun(place, registry)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    registry.gate.set()
    registry.served = 0
    events = await collect(place.pull.run(NAME))
    assert await place.content(DIGEST) == BIG
    assert registry.served <= len(BIG) - 36 * MIB
    assert progress(events)[0] >= 36 * MIB
    assert leftovers(bucket) == []


async def test_a_killed_pull_goes_on_with_the_parts_that_the_store_has(
    place: Place,
    registry: MemoryRegistry,
    bucket: S3Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("registry.services.transfers.download.PERSIST_S", 0.02)
    task = await begun(place, registry)

    async def recorded() -> int:
        fetch = await place.catalog.read(lambda tx: tx.fetch(DIGEST))
        return sum(part.done for part in fetch.parts) if fetch else 0

    async with asyncio.timeout(10):
        while not (kept := await recorded()):
            await asyncio.sleep(0.02)
    shutil.copytree(tmp_path / "first", tmp_path / "second")  # as a kill would leave it
    registry.gate.set()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    again = Place(tmp_path / "second", registry, bucket=bucket, part_bytes=10 * MIB)
    registry.served = 0
    await collect(again.pull.run(NAME))
    assert await again.content(DIGEST) == BIG
    assert registry.served <= len(BIG) - kept + len(b"{}")  # the config comes anew
    await again.close()


async def test_wrong_bytes_are_fetched_anew_and_never_shown(
    place: Place, registry: MemoryRegistry, bucket: S3Bucket
) -> None:
    task = await begun(place, registry)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    fetch = await place.catalog.read(lambda tx: tx.fetch(DIGEST))
    assert fetch is not None
    _, key, upload = fetch.storage_key.split(".")
    part = await asyncio.to_thread(
        bucket.call, "list_parts", Key=bucket.blob(key), UploadId=upload, MaxParts=1
    )
    number = part["Parts"][0]["PartNumber"]
    await asyncio.to_thread(
        bucket.call,
        "upload_part",
        Key=bucket.blob(key),
        UploadId=upload,
        PartNumber=number,
        Body=bytes(8 * MIB),
        ChecksumSHA256=base64.b64encode(hashlib.sha256(bytes(8 * MIB)).digest()).decode(),
    )
    registry.gate.set()
    registry.served = 0
    await collect(place.pull.run(NAME))
    assert await place.content(DIGEST) == BIG
    assert registry.served >= len(BIG)
    assert leftovers(bucket) == []
