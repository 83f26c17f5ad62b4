"""What models, tags and namespaces take, and what is shared."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.errors import ModelUnknown
from registry.core.names import ModelName
from registry.services.upkeep.storage import Storage
from tests.support.library import Library, library

pytestmark = pytest.mark.anyio


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data") as made:
        await made.base("base")
        await made.make("team/told:v1", origin="base", system="be kind")
        await made.make("team/told:v2", origin="base", system="be brief")
        await made.models.copy(ModelName.parse("base"), ModelName.parse("other/copy"))
        yield made


async def names(lib: Library, name: str, **page: object) -> list[str]:
    return [item.name for item in await Storage(lib.catalog).within(name, **page)]  # type: ignore[arg-type]


async def test_the_totals_are_what_is_on_the_disk(lib: Library) -> None:
    await lib.put(b"not used yet")
    totals = await Storage(lib.catalog).totals()
    assert totals.blobs.count == len(lib.files())
    assert totals.blobs.size == lib.size()
    assert (totals.unused.count, totals.unused.size) == (1, 12)
    assert totals.uploads.count == totals.fetches.count == 0
    assert not totals.suspects
    assert not totals.quotas


async def test_a_namespace_holds_models_and_a_model_tags(lib: Library) -> None:
    assert [item.name for item in await Storage(lib.catalog).namespaces()] == [
        "library",
        "other",
        "team",
    ]
    assert await names(lib, "team") == ["team/told"]
    assert await names(lib, "team/told") == ["team/told:v1", "team/told:v2"]
    assert await names(lib, "TEAM/told:V2") == ["team/told:v2"]
    assert await names(lib, "base") == ["base:latest"]
    assert await names(lib, "library/") == ["library/base"]


async def test_names_come_in_pages(lib: Library) -> None:
    assert await names(lib, "team/told", limit=1) == ["team/told:v1"]
    assert await names(lib, "team/told", after="v1") == ["team/told:v2"]
    assert await names(lib, "team/told", after="v2") == []
    assert await names(lib, "team", after="team/told") == []
    assert [t.name for t in await Storage(lib.catalog).namespaces("library", 1)] == ["other"]


async def test_what_would_be_free_is_told_from_what_is_shared(lib: Library) -> None:
    taken = {item.name: item.shares for item in await Storage(lib.catalog).within("team/told")}
    for shares in taken.values():
        assert 0 < shares.unique < shares.size
    (whole,) = await Storage(lib.catalog).within("team")
    assert whole.shares.unique == sum(shares.unique for shares in taken.values())
    before = (await Storage(lib.catalog).totals()).blobs.size
    await lib.models.delete(ModelName.parse("team/told:v1"))
    after = (await Storage(lib.catalog).totals()).blobs.size
    assert before - after == taken["team/told:v1"].unique


async def test_nothing_of_that_name(lib: Library) -> None:
    for name in ("none", "team/none", "base:none", "none/", "a b", "", "x" * 999, "../x"):
        with pytest.raises(ModelUnknown):
            await names(lib, name)
