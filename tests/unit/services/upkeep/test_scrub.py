"""Scrub: what was changed on disk is found, refused, and made good again."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from registry.core.digest import Digest
from registry.core.errors import BlobDamaged, RequestInvalid, UpstreamUnknown
from registry.core.events import Advance, Done
from registry.core.names import ModelName, RepositoryName
from registry.ports.blobs import BlobStore, Opened
from registry.ports.catalog import Transaction
from registry.services.upkeep import scrub as module
from registry.services.upkeep.scrub import Findings, Scrub, ScrubWish, Subset
from tests.support.backends import BACKENDS, Stored
from tests.support.library import Library, library
from tests.support.world import Bytes

pytestmark = pytest.mark.anyio
NAME = RepositoryName.parse("library/base")
WEIGHTS = b"weights " * 1000
DIGEST = Digest.of(WEIGHTS)


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data") as made:
        await made.put(WEIGHTS)
        await made.catalog.write(
            lambda tx: tx.link_blob(tx.put_repository(NAME).id, DIGEST, 1 << 62)
        )
        yield made


def flip(stored: Stored) -> None:
    data = bytearray(stored.read())
    data[len(data) // 2] ^= 1
    stored.write(bytes(data))


def stored(lib: Library, digest: Digest = DIGEST) -> Stored:
    return BACKENDS.stored(lib.data, digest)


async def scrub(lib: Library, wish: ScrubWish | None = None) -> tuple[Findings, list[str]]:
    found = Findings()
    service = Scrub(lib.catalog, lib.store, lib.clock)
    events = [event async for event in service.run(wish or ScrubWish(), found=found)]
    assert events[-1] == Done()
    return found, [event.text for event in events]


async def test_sound_blobs_are_noted_as_such(lib: Library) -> None:
    await lib.base()
    found, texts = await scrub(lib)
    assert (found.blobs, found.damaged) == (3, 0)
    assert found.size == lib.size()
    assert texts == [found.text, "success"]
    assert await lib.catalog.read(lambda tx: tx.suspects("", 9)) == []


@pytest.mark.parametrize(
    "harm",
    [
        flip,
        lambda stored: stored.write(stored.read()[:-1]),
        lambda stored: stored.write(b""),
        lambda stored: stored.write(b"\0" * len(WEIGHTS)),
        lambda stored: stored.remove(),
    ],
)
async def test_a_harmed_blob_is_refused_until_it_is_sent_again(
    lib: Library, harm: Callable[[Stored], None]
) -> None:
    harm(stored(lib))
    found, texts = await scrub(lib)
    assert found.damaged == 1
    assert any(text.startswith(f"damaged: {DIGEST}") for text in texts)
    with pytest.raises(BlobDamaged, match="is damaged in the store"):
        await lib.blobs.stat(NAME, DIGEST)
    blob = await lib.catalog.read(lambda tx: tx.blob(DIGEST))
    assert blob is not None
    with pytest.raises(BlobDamaged):
        await lib.blobs.open(blob)
    assert await lib.blobs.find(DIGEST) is None
    assert not await lib.blobs.mount(RepositoryName.parse("library/other"), DIGEST, NAME)
    assert (await scrub(lib))[0].damaged == 1  # it stays so
    await lib.blobs.receive(DIGEST, Bytes(WEIGHTS))
    assert (await lib.blobs.stat(NAME, DIGEST)).size == len(WEIGHTS)
    assert (await scrub(lib))[0].damaged == 0
    assert stored(lib).read() == WEIGHTS


async def test_a_text_of_a_model_is_made_good_by_the_next_create(lib: Library) -> None:
    await lib.base()
    await lib.make("told", origin="base", system="be kind")
    await lib.housekeeping.finish()  # what is not synced yet is read out of the catalog
    flip(stored(lib, Digest.of(b"be kind")))
    assert (await scrub(lib))[0].damaged == 1
    await lib.make("told", origin="base", system="be kind")
    assert (await scrub(lib))[0].damaged == 0


async def test_bytes_that_came_back_are_sound_again(lib: Library) -> None:
    there = stored(lib)
    there.remove()
    assert (await scrub(lib))[0].damaged == 1
    there.write(WEIGHTS)
    assert (await scrub(lib, ScrubWish(only_suspect=True)))[0].blobs == 1
    assert (await lib.blobs.stat(NAME, DIGEST)).size == len(WEIGHTS)
    assert (await scrub(lib, ScrubWish(only_suspect=True)))[0].blobs == 0


@dataclass
class Meanwhile:
    """A store where something happens as soon as the first blob was opened, or was not there."""

    store: BlobStore
    deed: Callable[[], Awaitable[object]]

    async def open(self, storage_key: str) -> Opened:
        try:
            return await self.store.open(storage_key)
        finally:
            await self.deed()


async def scrub_while(lib: Library, deed: Callable[[], Awaitable[object]]) -> Findings:
    found = Findings()
    store = cast(BlobStore, Meanwhile(lib.store, deed))
    async for _ in Scrub(lib.catalog, store, lib.clock).run(ScrubWish(), found=found):
        pass
    return found


async def test_a_blob_that_goes_and_comes_again_is_passed_over(lib: Library) -> None:
    """Its file was gone when the scrub came to it, and has the same name again."""

    def free(tx: Transaction) -> None:
        tx.unlink_blob(tx.put_repository(NAME).id, DIGEST)
        assert tx.free([DIGEST], lib.clock())

    async def come_again() -> None:
        await lib.catalog.write(free)
        await lib.put(WEIGHTS)

    stored(lib).remove()
    assert (await scrub_while(lib, come_again)).damaged == 0
    blob = await lib.catalog.read(lambda tx: tx.blob(DIGEST))
    assert blob is not None
    assert not blob.suspect


async def test_a_suspect_that_is_put_while_its_old_bytes_are_read_is_sound(lib: Library) -> None:
    flip(stored(lib))
    assert (await scrub(lib))[0].damaged == 1
    assert (await scrub_while(lib, lambda: lib.put(WEIGHTS))).damaged == 0
    assert await lib.catalog.read(lambda tx: tx.suspects("", 9)) == []


async def test_another_registry_that_has_the_blob_repairs_it(lib: Library) -> None:
    flip(stored(lib))
    asked: list[RepositoryName] = []

    async def fetch(name: RepositoryName, digest: Digest, size: int) -> None:
        asked.append(name)
        if len(asked) == 1:
            raise UpstreamUnknown("file does not exist")
        assert size == len(WEIGHTS)
        await lib.blobs.receive(digest, Bytes(WEIGHTS))

    service = Scrub(lib.catalog, lib.store, lib.clock)
    for repaired in (0, 1):
        found = Findings()
        texts = [event.text async for event in service.run(ScrubWish(), fetch, found)]
        assert found.repaired == repaired
        assert (f"repaired: {DIGEST}" in texts) == bool(repaired)
    assert asked == [NAME, NAME]


async def test_parts_are_disjoint_and_make_up_the_whole(lib: Library) -> None:
    for number in range(60):
        await lib.put(b"blob %d" % number)
    whole = (await scrub(lib))[0]
    for of in (1, 3, 7):
        parts = [(await scrub(lib, ScrubWish(Subset(n + 1, of))))[0] for n in range(of)]
        assert sum(part.blobs for part in parts) == whole.blobs == 61
        assert all(part.blobs for part in parts)


def test_behind_the_last_part_comes_the_first() -> None:
    assert [Subset.parse(f"{day}/3").number for day in range(1, 8)] == [1, 2, 3, 1, 2, 3, 1]


@pytest.mark.parametrize("text", ["", "1", "0/3", "1/0", "a/b", "-1/3", "1/9999999999", "1/2/3"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        Subset.parse(text)


async def test_the_rate_is_kept_and_long_reads_tell_how_far_they_are(
    lib: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TICK_BYTES", 1 << 20)
    big = bytes(4 << 20)
    await lib.put(big)
    service = Scrub(lib.catalog, lib.store, lib.clock)
    began = os.times().elapsed
    wish = ScrubWish(rate=20 << 20)
    events = [event async for event in service.run(wish)]
    assert os.times().elapsed - began >= 0.19
    steps = [event.completed for event in events if isinstance(event, Advance)]
    assert steps == sorted(steps)
    assert len(steps) >= 3


async def test_a_model_whose_weights_are_damaged_is_still_listed(lib: Library) -> None:
    await lib.base()
    for digest in lib.files():
        flip(stored(lib, Digest.parse(digest)))
    await scrub(lib)
    assert await lib.models.find(ModelName.parse("base")) is not None
    suspects = await lib.catalog.read(lambda tx: tx.suspects("", 9))
    assert {name for item in suspects for name in item.repositories} == {NAME}
