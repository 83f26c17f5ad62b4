"""What became of a tag; deleted and replaced models brought back, until they are gone for good."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.access import Policy
from registry.core.errors import ManifestUnknown, ModelUnknown, TagImmutable
from registry.core.names import ModelName
from registry.services.access.rights import TagGuard
from registry.services.library.history import History
from registry.settings import Retention
from tests.support.library import DAY_NS, Library, library

pytestmark = pytest.mark.anyio
BASE = ModelName.parse("base")
ANN = TagGuard(who="ann")


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data", Retention(undelete_s=86_400)) as made:
        yield made


async def test_a_deleted_model_comes_back_with_every_byte(lib: Library) -> None:
    digest = await lib.base()
    files, tags = lib.files(), lib.tag_files()
    await lib.models.delete(BASE, ANN)
    await lib.housekeeping.purge()
    assert lib.tag_files() == set()
    assert lib.files() == files
    history = History(lib.manifests)
    deleted, made = await history.of(BASE)
    assert (deleted.who, deleted.new, deleted.kept) == ("ann", None, True)
    assert (made.who, made.old, made.kept) == ("", None, True)
    tag = await history.restore(BASE)
    assert tag.digest.hex == digest
    assert (await lib.show("base"))["details"]["format"] == "gguf"
    assert (lib.files(), lib.tag_files()) == (files, tags)
    lib.clock.now += 2 * DAY_NS
    await history.sweep()
    assert await lib.digest("base") == digest


async def test_after_its_time_it_is_gone_for_good(lib: Library) -> None:
    await lib.base()
    await lib.models.delete(BASE)
    history = History(lib.manifests)
    lib.clock.now += DAY_NS // 2
    await history.sweep()
    assert len(lib.files()) == 2
    lib.clock.now += DAY_NS
    steps = [step async for step in history.sweeping()]
    await lib.housekeeping.purge()
    assert lib.files() == set()
    assert [(step.reason, step.count) for step in steps] == [("deleted", 1)]
    assert steps[0].size > 0
    assert not (await history.of(BASE))[0].kept
    with pytest.raises(ManifestUnknown, match="gone for good"):
        await history.restore(BASE)


async def test_without_time_to_bring_it_back_it_goes_at_once(tmp_path: Path) -> None:
    async with library(tmp_path / "d") as lib:
        await lib.base()
        await lib.models.delete(BASE)
        await lib.housekeeping.purge()
        assert lib.files() == set()
        with pytest.raises(ManifestUnknown):
            await History(lib.manifests).restore(BASE)


async def test_a_replaced_model_can_be_moved_back_to_and_forth(lib: Library) -> None:
    first = await lib.base()
    await lib.make("base", origin="base", system="new")
    second = await lib.digest("base")
    await lib.make("other", origin="base", system="third")
    await lib.models.copy(ModelName.parse("other"), BASE, ANN)
    history = History(lib.manifests)
    events = await history.of(BASE)
    assert [event.new and event.new.hex for event in events[1:]] == [second, first]
    assert (await history.restore(BASE, to=events[2].id)).digest.hex == first
    assert (await history.restore(BASE, to=events[1].id)).digest.hex == second
    assert (await history.restore(BASE)).digest.hex == first
    assert (await history.restore(BASE, to=events[2].id)).digest.hex == first  # it is that already
    assert len(await history.of(BASE)) == 6
    assert len(await history.of(BASE, before=events[0].id, limit=1)) == 1


async def test_only_what_was_can_be_brought_back(lib: Library) -> None:
    await lib.base()
    history = History(lib.manifests)
    for name, to in (("none", 0), ("team/none", 3), ("base", 99)):
        with pytest.raises(ModelUnknown):
            await history.restore(ModelName.parse(name), to)
    with pytest.raises(ModelUnknown):
        await history.of(ModelName.parse("none"))
    with pytest.raises(ManifestUnknown):  # before it was made it was nothing
        await history.restore(BASE)


async def test_a_tag_that_must_not_move_is_not_moved_back(lib: Library) -> None:
    await lib.base()
    await lib.make("base", origin="base", system="new")
    guard = TagGuard(policy=Policy("*", immutable=("latest",)))
    with pytest.raises(TagImmutable):
        await History(lib.manifests).restore(BASE, guard=guard)
