"""What no row knows, in a folder and in an object store; a catalog that is lost is made anew."""

import shutil
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from registry.adapters import migrate
from registry.adapters.blobs_s3 import S3BlobStore
from registry.adapters.catalog_sql import open_catalog, resolve
from registry.adapters.models_folder import FolderOnDisk
from registry.adapters.s3_client import S3Bucket
from registry.core.digest import Digest
from registry.ports.blobs import BlobStore
from registry.ports.catalog import Catalog
from registry.services.library.blobs import Blobs
from registry.services.library.housekeeping import Housekeeping
from registry.services.library.manifests import Manifests
from registry.services.library.strays import KeysByDigest, KeysBySize, Strays
from registry.services.upkeep.adoption import Adoption
from registry.settings import Retention
from tests.support.library import library
from tests.support.s3 import S3Server

pytestmark = [pytest.mark.anyio, pytest.mark.folder]
DAY_NS = 86_400 * 10**9


class Shelf:
    """A catalog in a folder over a bucket, whose tags are files of the folder."""

    def __init__(self, data: Path, bucket: S3Bucket) -> None:
        self.later = 0
        self.catalog: Catalog = open_catalog("", data / "registry.db")
        self.store: BlobStore = S3BlobStore(bucket)
        folder = FolderOnDisk(data)
        (data / "incoming").mkdir(exist_ok=True)
        self.housekeeping = Housekeeping(self.catalog, self.store, folder, Retention(), self._clock)
        self.manifests = Manifests(self.catalog, self.store, self.housekeeping, self._clock)
        self.blobs = Blobs(self.catalog, self.store, clock=self._clock)
        strays = Strays(self.catalog, self.store, pause_s=0)
        self.adoption = Adoption(self.manifests, folder, 0, strays, young_s=0)

    def _clock(self) -> int:
        return time.time_ns() + self.later

    async def keys(self) -> set[str]:
        return {key async for key, _ in self.store.keys(self._clock())}

    async def tags(self) -> dict[str, Digest]:
        models = await self.catalog.scan(lambda tx: tx.models())
        return {model.tag.model.short: model.tag.digest for model in models}


@asynccontextmanager
async def shelf(data: Path, bucket: S3Bucket) -> AsyncIterator[Shelf]:
    migrate.upgrade(resolve("", data / "registry.db"))
    made = Shelf(data, bucket)
    try:
        yield made
    finally:
        await made.housekeeping.finish()
        await made.catalog.close()


@pytest.fixture
async def full(tmp_path: Path, s3: S3Server) -> tuple[Path, S3Bucket, dict[str, Digest]]:
    """A bucket of blobs, tags in a folder, and a catalog."""
    data, bucket = tmp_path / "data", s3.open()
    async with library(tmp_path / "source") as source:
        await source.base()
        await source.make("team/Other:Q4", origin="base", system="Be brief.")
    shutil.copytree(tmp_path / "source" / "manifests", data / "manifests")
    async with shelf(data, bucket) as made:
        for file in (tmp_path / "source" / "blobs").iterdir():
            await made.blobs.put_bytes(file.read_bytes())
        assert (await made.adoption.adopt())[0] == 2
        return data, bucket, await made.tags()


async def test_a_lost_catalog_over_random_keys_is_made_anew(
    full: tuple[Path, S3Bucket, dict[str, Digest]],
) -> None:
    data, bucket, before = full
    (data / "registry.db").unlink()
    async with shelf(data, bucket) as made:
        assert await made.tags() == {}
        keys = await made.keys()
        made.later = 3 * DAY_NS
        assert await made.adoption.run() == 0
        assert await made.tags() == before
        assert await made.adoption.run() == 0
        assert await made.keys() == keys


async def test_nothing_goes_while_a_model_cannot_be_taken_in(
    full: tuple[Path, S3Bucket, dict[str, Digest]],
) -> None:
    data, bucket, before = full
    (data / "registry.db").unlink()
    async with shelf(data, bucket) as made:
        largest = [(size, key) async for key, size in made.store.keys(time.time_ns())]
        made.store.remove(max(largest)[1])  # the weights of both
        keys = await made.keys()
        made.later = 3 * DAY_NS
        deeds = [deed async for deed in made.adoption.adopting()]
        assert {deed.name.short for deed in deeds if deed.fault} == set(before)
        assert await made.adoption.run() == 0
        assert await made.keys() == keys


async def test_strays_go_after_a_day_and_two_looks(
    full: tuple[Path, S3Bucket, dict[str, Digest]],
) -> None:
    data, bucket, _ = full
    async with shelf(data, bucket) as made:
        keys = await made.keys()
        incoming = await made.store.create(5)
        await incoming.write(b"crash")
        stray = await incoming.publish(await incoming.seal())  # and the process dies
        await incoming.discard()
        assert await made.keys() == keys | {stray}
        assert await made.adoption.run() == 0
        made.later = 2 * DAY_NS
        assert await made.adoption.run() == 1
        assert await made.keys() == keys
        assert await made.adoption.run() == 0


class TestPackedKeys:
    """A store may have a million strange objects: what is kept of each is little."""

    def test_by_size(self) -> None:
        keys = [f"{number:032x}" for number in range(20_000)]
        tracemalloc.start()
        packed = KeysBySize()
        for number, key in enumerate(keys):
            packed.add(300 + number % 50, key)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert kept / len(keys) < 50
        assert packed.take(299) is None
        taken = []
        for size in range(300, 350):
            while (found := packed.take(size)) is not None:
                assert int(found, 16) % 50 == size - 300
                taken.append(found)
        assert sorted(taken) == keys

    def test_by_digest(self) -> None:
        digests = [Digest.of(b"%d" % number) for number in range(10_000)]
        tracemalloc.start()
        packed = KeysByDigest()
        for number, digest in enumerate(digests):
            packed.add(digest, f"{number:032x}")
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert kept / len(digests) < 200
        assert [int(packed.get(digest) or "", 16) for digest in digests] == list(range(10_000))
        assert packed.get(Digest.of(b"another")) is None
        assert KeysByDigest().get(digests[0]) is None
