"""Damaged blobs come again from another registry, by the repositories that have them here."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.digest import Digest
from registry.core.errors import RequestInvalid
from registry.core.events import Count
from registry.core.names import RepositoryName
from registry.services.library.blobs import Blobs
from registry.services.library.history import History
from registry.services.library.strays import Strays
from registry.services.transfers.download import Workshop
from registry.services.upkeep.gc import REASONS, Collection
from registry.services.upkeep.scrub import Findings, Scrub, ScrubWish
from registry.services.upkeep.upkeep import source
from registry.services.uploading.uploads import Uploads
from registry.settings import Retention, Settings
from tests.support.library import DAY_NS, Library, library
from tests.support.upstream import MemoryRegistry

pytestmark = pytest.mark.anyio
WEIGHTS = bytes(range(256)) * 5000
DIGEST = Digest.of(WEIGHTS)


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data") as made:
        await made.put(WEIGHTS)
        blob = await made.catalog.read(lambda tx: tx.blob(DIGEST))
        assert blob is not None

        def harm(tx):  # type: ignore[no-untyped-def]
            tx.link_blob(tx.put_repository(RepositoryName("team/m")).id, DIGEST, 1 << 62)
            assert tx.suspect(DIGEST, blob.storage_key, 1)

        await made.catalog.write(harm)
        if made.store.reuses_keys:
            (made.data / "blobs" / DIGEST.file_name).write_bytes(b"\0" * len(WEIGHTS))
        else:
            made.store.remove(blob.storage_key)
        yield made


async def repaired(lib: Library, registry: MemoryRegistry) -> tuple[Findings, list[str]]:
    settings = Settings.load({}, data=lib.data, upstream={"retries": 0})
    workshop = Workshop.of(lib.catalog, lib.store, settings, lib.clock)
    fetch, found = source(registry, workshop, "https://other:5000/"), Findings()
    events = Scrub(lib.catalog, lib.store, lib.clock).run(ScrubWish(), fetch, found)
    return found, [event.text async for event in events]


async def test_what_the_other_has_is_good_again(lib: Library) -> None:
    registry = MemoryRegistry()
    registry.add("team/m:v1", [WEIGHTS])
    found, texts = await repaired(lib, registry)
    assert (found.damaged, found.repaired) == (1, 1)
    assert f"repaired: {DIGEST}" in texts
    blob = await lib.catalog.read(lambda tx: tx.blob(DIGEST))
    assert blob is not None
    assert not blob.suspect
    async with await lib.blobs.open(blob) as opened:
        assert await opened.read(0, 256) == WEIGHTS[:256]
    await lib.housekeeping.purge()
    assert await lib.store.exists(blob.storage_key) == len(WEIGHTS)
    assert (await repaired(lib, registry))[0].damaged == 0


async def test_what_it_has_not_or_has_wrong_stays_damaged(lib: Library) -> None:
    registry = MemoryRegistry()
    found, texts = await repaired(lib, registry)
    assert (found.damaged, found.repaired) == (1, 0)
    assert any(text.startswith(f"not repaired: {DIGEST} (") for text in texts)
    registry.add("team/m:v1", [WEIGHTS])
    registry.corrupt[DIGEST] = 99
    assert (await repaired(lib, registry))[0].repaired == 0
    blob = await lib.catalog.read(lambda tx: tx.blob(DIGEST))
    assert blob is not None
    assert blob.suspect


async def test_bytes_that_no_row_knows_are_counted_and_go(lib: Library) -> None:
    incoming = await lib.store.create()
    await incoming.write(b"stray")
    await incoming.publish(await incoming.seal())
    await incoming.discard()
    uploads = Uploads(Blobs(lib.catalog, lib.store, clock=lib.clock))
    lib.adoption._strays = Strays(lib.catalog, lib.store, pause_s=0.0)
    history = History(lib.manifests)
    collection = Collection(lib.manifests, uploads, history, lib.adoption, Retention())
    lib.clock.now = time.time_ns()
    assert not [item for item in (await collection.plan()).goes if item.reason == "orphan"]
    lib.clock.now += 3 * DAY_NS
    plan = await collection.plan(grace_s=10**8)
    assert [(item.reason, item.count, item.size) for item in plan.goes] == [("orphan", 1, 5)]
    events = [event async for event in collection.run(grace_s=10**8)]
    assert Count(REASONS["orphan"], 1, 0) in events
    assert (await collection.plan(grace_s=10**8)).goes == ()


@pytest.mark.parametrize(
    "url",
    ["", "other", "ftp://other", "http://", "http://a/b", "http://a?b", "http://u@a", "http://["],
)
async def test_what_is_no_registry_is_refused(lib: Library, url: str) -> None:
    settings = Settings.load({}, data=lib.data)
    workshop = Workshop.of(lib.catalog, lib.store, settings, lib.clock)
    with pytest.raises(RequestInvalid):
        source(MemoryRegistry(), workshop, url)
