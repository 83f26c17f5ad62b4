"""Garbage collection: the report, and that the work does what it said and no more."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from registry.core import media
from registry.core.digest import Digest
from registry.core.events import Count, Done
from registry.core.manifest import Descriptor, encode_model
from registry.core.names import ModelName, RepositoryName
from registry.ports.transfers import Fetch, Part
from registry.services.library.blobs import Blobs
from registry.services.library.history import History
from registry.services.library.manifests import Put
from registry.services.upkeep.gc import REASONS, Collection, Plan
from registry.services.uploading.uploads import Chunk, UploadLimits, Uploads
from registry.settings import Retention
from tests.support.library import DAY_NS, Library, library
from tests.support.world import Bytes

pytestmark = pytest.mark.anyio
NAME = RepositoryName.parse("team/m")


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data") as made:
        yield made


def uploads_of(lib: Library) -> Uploads:
    return Uploads(Blobs(lib.catalog, lib.store, clock=lib.clock), UploadLimits(idle_s=100))


def collection(lib: Library, retention: Retention | None = None) -> Collection:
    retention = retention or Retention()
    return Collection(
        lib.manifests, uploads_of(lib), History(lib.manifests), lib.adoption, retention
    )


def sums(plan: Plan) -> dict[str, tuple[int, int]]:
    return {item.reason: (item.count, item.size) for item in plan.goes}


async def collect(lib: Library, grace_s: int | None = None) -> dict[str, tuple[int, int]]:
    """Do it; the last sums by reason."""
    events = [event async for event in collection(lib).run(grace_s)]
    assert events[-1] == Done()
    words = {text: reason for reason, text in REASONS.items()}
    return {words[e.text]: (e.count, e.size) for e in events if isinstance(e, Count)}


async def test_an_empty_library_has_nothing_to_tell(lib: Library) -> None:
    assert await collection(lib).plan() == Plan((), ())
    assert await collect(lib) == {}


@pytest.mark.folder("makes a file older than it is")
async def test_every_reason_is_told_and_what_is_told_happens(lib: Library) -> None:
    await lib.base()
    kept = lib.files()
    for number in range(300):
        await lib.put(b"forgotten %03d" % number)
    upload = await uploads_of(lib).begin(NAME)
    await uploads_of(lib).append(NAME, upload.id, Chunk(Bytes(b"partial")))
    await lib.catalog.write(
        lambda tx: tx.put_fetch(Fetch(Digest.of(b"f"), 9, "k" * 32, 1, (Part(0, 9, 4),)))
    )
    orphan = lib.data / "blobs" / Digest.of(b"orphan").file_name
    orphan.write_bytes(b"orphan")
    early = await collection(lib).plan()
    assert sums(early) == {"fetch": (1, 4)}
    assert {item.reason: item.count for item in early.stays} == {"grace": 300, "open upload": 1}
    lib.clock.now += 2 * DAY_NS
    lib.age()
    plan = await collection(lib).plan()
    assert sums(plan) == {
        "unused": (300, 300 * 13),
        "upload": (1, 7),
        "fetch": (1, 4),
        "orphan": (1, 6),
    }
    assert plan.size == 3917
    assert plan.stays == ()
    assert "orphan" not in sums(await collection(lib).plan(orphans=False))
    done = await collect(lib)
    assert done.pop("orphan") == (1, 0)
    assert done == {key: value for key, value in sums(plan).items() if key != "orphan"}
    assert lib.files() == kept
    assert await collection(lib).plan() == Plan((), ())


async def test_another_grace_can_be_asked_for(lib: Library) -> None:
    await lib.put(b"new")
    assert sums(await collection(lib).plan(grace_s=0)) == {"unused": (1, 3)}
    assert await collect(lib, grace_s=60) == {}
    assert await collect(lib, grace_s=0) == {"unused": (1, 3)}
    assert lib.files() == set()


async def test_what_is_linked_or_leased_stays(lib: Library) -> None:
    linked, leased = await lib.put(b"linked"), await lib.put(b"leased")
    far = 1 << 62

    def hold(tx):  # type: ignore[no-untyped-def]
        tx.link_blob(tx.put_repository(NAME).id, Digest.parse(linked), far)
        tx.lease([Digest.parse(leased)], "somebody", far)

    await lib.catalog.write(hold)
    lib.clock.now += 9 * DAY_NS
    plan = await collection(lib).plan(grace_s=0)
    assert sums(plan) == {}
    assert [(item.reason, item.count) for item in plan.stays] == [("grace", 2)]
    assert await collect(lib, grace_s=0) == {}
    assert lib.files() == {linked, leased}


async def test_deleted_models_are_counted_with_the_bytes_that_go_with_them(tmp_path: Path) -> None:
    retention = Retention(undelete_s=1000)
    async with library(tmp_path / "d", retention) as lib:
        await lib.base()
        await lib.make("told", origin="base", system="be kind")
        size = len(b"be kind")
        await lib.models.delete(ModelName.parse("told"))
        plan = await collection(lib, retention).plan()
        assert sums(plan) == {}
        (waiting,) = plan.stays
        assert (waiting.reason, waiting.count) == ("restorable", 1)
        assert waiting.size == size  # its config is shared
        lib.clock.now += 2000 * 10**9
        plan = await collection(lib, retention).plan()
        assert sums(plan) == {"deleted": (1, waiting.size)}
        before = lib.size()
        assert await collect(lib) == sums(plan)
        after = lib.size()
        assert before - after == waiting.size


async def test_what_a_push_replaced_goes_if_that_is_asked_for(lib: Library) -> None:
    async def push(word: bytes) -> None:
        for content in (b"{}", word):
            digest = Digest.parse(await lib.put(content))
            await lib.catalog.write(
                lambda tx, d=digest: tx.link_blob(tx.put_repository(NAME).id, d, 1 << 62)  # type: ignore[misc]
            )
        body = encode_model(
            Descriptor(media.CONFIG, Digest.of(b"{}"), 2),
            [Descriptor(media.MODEL, Digest.of(word), len(word))],
        )
        await lib.manifests.put(NAME, Put("latest", body, media.DOCKER_MANIFEST))

    lib.clock.now = time.time_ns()
    await push(b"old weights")
    await push(b"new weights")
    assert sums(await collection(lib).plan(untagged=True)) == {}
    lib.clock.now += 2 * DAY_NS
    assert sums(await collection(lib).plan()) == {}
    plan = await collection(lib).plan(untagged=True)
    assert sums(plan) == {"untagged": (1, len(b"old weights"))}
    events = [event async for event in collection(lib).run(untagged=True)]
    assert Count(REASONS["untagged"], 1, len(b"old weights")) in events
    assert str(Digest.of(b"new weights")) in lib.files()
    assert str(Digest.of(b"old weights")) not in lib.files()
    assert sums(await collection(lib).plan(untagged=True)) == {}


async def test_pushes_go_on_while_it_runs_with_no_grace(lib: Library) -> None:
    """Every model whose push was answered has every byte, however the two fall together."""
    stop = asyncio.Event()

    async def collects() -> None:
        while not stop.is_set():
            await collect(lib, grace_s=0)
            await asyncio.sleep(0)

    async def pushes(number: int) -> None:
        for turn in range(8):
            name = f"m{number}"
            digest = ""
            for _ in range(50):  # a create takes uploads, which without grace may be gone again
                digest = await lib.put(b"shared adapter")
                try:
                    await lib.base(name)
                except Exception:
                    continue
                break
            else:
                raise AssertionError("the collection leaves no room for pushes")
            assert digest
            if turn % 3 == 2:
                await lib.models.delete(ModelName.parse(name))

    running = asyncio.create_task(collects())
    await asyncio.gather(*(pushes(number) for number in range(4)))
    stop.set()
    await running
    for model in await lib.catalog.scan(lambda tx: tx.models()):
        manifest = await lib.catalog.read(lambda tx, d=model.tag.digest: tx.manifest(d))  # type: ignore[misc]
        assert manifest is not None
        for reference in manifest.references:
            assert str(reference.digest) in lib.files()


def test_every_reason_has_words() -> None:
    assert replace(Plan((), ()), goes=()).size == 0
    assert all(REASONS.values())
