"""Quotas: asked before bytes arrive, while they do, and at the latest when they are linked."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.digest import Digest
from registry.core.errors import NotFound, QuotaExceeded, RequestInvalid
from registry.core.names import ModelName, RepositoryName
from registry.ports.upkeep import Quota
from registry.services.library.blobs import Blobs
from registry.services.library.quotas import Quotas
from registry.services.uploading.uploads import Chunk, Uploads
from tests.support.gguf import SMALLEST
from tests.support.library import Library, library
from tests.support.world import Bytes

pytestmark = pytest.mark.anyio
NAME = RepositoryName.parse("team/m")
DATA = bytes(1000)


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data") as made:
        made.clock.now = time.time_ns()  # the catalog's own clock tells which links have lapsed
        yield made


def uploads_of(lib: Library) -> Uploads:
    return Uploads(Blobs(lib.catalog, lib.store, clock=lib.clock))


class Watched:
    """A body that tells whether it was read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.was_read = False

    async def feed(self, sink) -> int:  # type: ignore[no-untyped-def]
        self.was_read = True
        await sink.write(self.data)
        return len(self.data)


async def used(lib: Library) -> int:
    return (await Quotas(lib.catalog).all())[0].used


async def test_a_chunk_that_does_not_fit_is_refused_before_it_is_read(lib: Library) -> None:
    await Quotas(lib.catalog).set("Team", 1500)
    uploads = uploads_of(lib)
    first = await uploads.begin(NAME)
    await uploads.append(NAME, first.id, Chunk(Bytes(DATA), length=1000))
    second, body = await uploads.begin(RepositoryName.parse("team/n")), Watched(DATA)
    for chunk in (Chunk(body, length=1000), Chunk(body, start=0, length=501)):
        with pytest.raises(QuotaExceeded, match="1500 bytes: 1000 are used"):
            await uploads.append(RepositoryName.parse("team/n"), second.id, chunk)
    assert not body.was_read
    await uploads.append(RepositoryName.parse("team/n"), second.id, Chunk(Bytes(b"x" * 500)))
    assert await uploads.finish(NAME, first.id, Digest.of(DATA)) == Digest.of(DATA)
    assert await used(lib) == 1000


async def test_a_chunk_of_unknown_length_is_cut_off_again(lib: Library) -> None:
    await Quotas(lib.catalog).set("team", 900)
    uploads = uploads_of(lib)
    upload = await uploads.begin(NAME)
    with pytest.raises(QuotaExceeded):
        await uploads.append(NAME, upload.id, Chunk(Bytes(DATA)))
    assert (await uploads.status(NAME, upload.id)).offset == 0
    after = await uploads.append(NAME, upload.id, Chunk(Bytes(DATA[:900])))
    assert (after.offset, after.reserved) == (900, 900)


async def test_a_declared_size_is_set_aside_at_once(lib: Library) -> None:
    await Quotas(lib.catalog).set("team", 1000)
    uploads = uploads_of(lib)
    upload = await uploads.begin(NAME, size=800)
    with pytest.raises(QuotaExceeded):
        await uploads.begin(NAME, size=300)
    with pytest.raises(QuotaExceeded):
        await uploads.put(NAME, Digest.of(DATA), Watched(DATA), 1000)
    await uploads.cancel(NAME, upload.id)
    assert await uploads.put(NAME, Digest.of(DATA), Bytes(DATA), 1000) is not None
    assert await used(lib) == 1000


async def test_what_ends_too_large_is_dropped_with_its_reservation(lib: Library) -> None:
    uploads = uploads_of(lib)
    upload = await uploads.begin(NAME)
    await uploads.append(NAME, upload.id, Chunk(Bytes(DATA)))
    await Quotas(lib.catalog).set("team", 10)
    with pytest.raises(QuotaExceeded):
        await uploads.finish(NAME, upload.id, Digest.of(DATA))
    assert await lib.catalog.read(lambda tx: tx.upload(upload.id)) is None


async def test_creates_and_copies_take_room_and_deletes_give_it_back(lib: Library) -> None:
    quotas = Quotas(lib.catalog)
    await lib.base("base")
    size = (await lib.catalog.read(lambda tx: tx.namespace_shares("library"))).size
    await quotas.set("team", size)
    base, copy = ModelName.parse("base"), ModelName.parse("team/copy")
    await lib.models.copy(base, copy)
    await lib.models.copy(base, ModelName.parse("team/again"))  # the same bytes
    with pytest.raises(QuotaExceeded):
        await lib.make("team/other", origin="base", system="a text of its own")
    assert await lib.models.find(ModelName.parse("team/other")) is None
    await lib.models.delete(copy)
    await lib.models.delete(ModelName.parse("team/again"))
    digest = await lib.put(SMALLEST)
    await lib.make("team/other", files={"a.gguf": digest})
    assert await used(lib) <= size


async def test_many_at_once_never_take_more_than_there_is(lib: Library) -> None:
    await Quotas(lib.catalog).set("team", 5000)
    uploads = uploads_of(lib)

    async def push(number: int) -> bool:
        data = b"%04d" % number * 250
        try:
            upload = await uploads.begin(NAME)
            await uploads.append(NAME, upload.id, Chunk(Bytes(data), length=1000))
            await uploads.finish(NAME, upload.id, Digest.of(data))
        except QuotaExceeded:
            return False
        return True

    assert sum(await asyncio.gather(*(push(number) for number in range(20)))) == 5
    assert await used(lib) == 5000


async def test_quotas_are_set_and_removed(lib: Library) -> None:
    quotas = Quotas(lib.catalog)
    assert await quotas.set("hf.co/Team", 5) == Quota("hf.co/Team", 5, 0)
    assert await quotas.set("hf.co/team", 7) == Quota("hf.co/team", 7, 0)
    assert await quotas.all() == [Quota("hf.co/team", 7, 0)]
    await quotas.remove("HF.co/team")
    with pytest.raises(NotFound):
        await quotas.remove("hf.co/team")
    for namespace, size in (("", 1), ("a b", 1), ("a/", 1), ("a", -1), ("a", 1 << 63)):
        with pytest.raises(RequestInvalid):
            await quotas.set(namespace, size)
