"""A list too long for memory: the same bytes as the kept one's, from a file; views and changes."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.names import ModelName, RepositoryName
from registry.services.library import listing
from registry.services.library.listing import Form, Listing, View, Written
from tests.support.library import Library, library

pytestmark = pytest.mark.anyio

_IDS = Form(b"<", lambda short, _updated, _card: short.encode(), b">", b"none")


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data") as made:
        await made.base("m0")
        for number in range(1, 6):
            made.clock.now += 400_000_000
            await copy(made, "m0", f"{'team/' if number % 2 else ''}m{number}")
        yield made


async def copy(lib: Library, source: str, destination: str) -> None:
    await lib.models.copy(ModelName.parse(source), ModelName.parse(destination))


def fresh(lib: Library) -> Listing:
    return Listing(lib.catalog, lib.listing._when, lib.listing._scratch)


async def content(written: Written | None) -> bytes:
    assert written is not None
    data = b"".join([piece async for piece in written.content.chunks()])
    assert len(data) == written.size
    assert written.etag == f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    return data


@pytest.mark.parametrize("block", [1, 1 << 20])
async def test_a_long_list_is_the_kept_one_s_bytes(
    lib: Library, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await lib.listing.body()
    assert await lib.listing.written() is None
    monkeypatch.setattr(listing, "MOST_KEPT", 5)
    monkeypatch.setattr(listing, "_BLOCK", block)
    long = fresh(lib)
    written = await long.written()
    assert await content(written) == kept.content
    assert written is await long.written()
    assert written is not None
    assert written.etag == kept.etag
    assert (await long.body()).content == kept.content
    assert await long.models() == await lib.listing.models()
    assert long._models == {}
    assert long._body is None


async def test_a_list_becomes_long_and_short_again(
    lib: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MOST_KEPT", 6)
    assert await lib.listing.written() is None
    await copy(lib, "m0", "m7")
    first = await lib.listing.written()
    assert json.loads(await content(first))["models"][0]["name"] == "m7:latest"
    assert lib.listing._models == {}
    await lib.models.delete(ModelName.parse("m7"))
    assert await lib.listing.written() is None
    assert (await lib.listing.body()).content == (await fresh(lib).body()).content
    assert b'"m7:latest"' in await content(first)


async def test_a_list_that_is_being_read_stays_as_it_was(
    lib: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MOST_KEPT", 3)
    before = (await lib.listing.body()).content
    old = await lib.listing.written()
    assert old is not None
    reading = old.content.chunks()
    lib.clock.now += 10**9
    await copy(lib, "m0", "m1")
    new = await lib.listing.written()
    assert b"".join([piece async for piece in reading]) == before
    assert await content(new) == (await lib.listing.body()).content != before


async def test_a_view_has_a_list_of_its_own(lib: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def own(path: RepositoryName) -> bool:
        return path.path.startswith("team/")

    kept = await fresh(lib).body(View("ann", own))
    monkeypatch.setattr(listing, "MOST_KEPT", 3)
    views = [View("ann", own), View("bob", lambda path: False), View("ann", own)]
    ann, bob, again = [await lib.listing.written(view) for view in views]
    assert await content(ann) == kept.content
    assert await content(bob) == b'{"models":[]}'
    assert again is ann
    assert await content(await lib.listing.written(views[1], _IDS)) == b"none"
    ids = await content(await lib.listing.written(views[0], _IDS))
    assert sorted(ids[1:-1].split(b",")) == [b"team/m%d:latest" % n for n in (1, 3, 5)]


async def test_many_who_ask_at_once_share_one_list_and_few_are_kept(
    lib: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MOST_KEPT", 3)
    lists = await asyncio.gather(*(lib.listing.written() for _ in range(5)))
    assert len({id(item) for item in lists}) == 1
    for number in range(20):
        await lib.listing.written(View(number, lambda path: True))
    assert len(lib.listing._written) == 8
