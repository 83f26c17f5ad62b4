"""A folder that holds more than the catalog knows."""

import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.adapters.models_folder import FolderOnDisk
from registry.core.names import ModelName
from registry.ports.catalog import Transaction
from registry.services.library.strays import Search, Strays
from registry.services.upkeep.adoption import Adoption
from tests.support.library import Library, library

pytestmark = [pytest.mark.anyio, pytest.mark.folder]
TAG = "registry.ollama.ai/library/base/latest"


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data") as lib:
        yield lib


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A folder of models without a catalog, the way a real Ollama leaves it."""
    async with library(tmp_path / "source") as source:
        await source.base()
        await source.make("team/Other:Q4", origin="base", system="Be brief.")
        source.age()
    folder = tmp_path / "data"
    for part in ("blobs", "manifests"):
        shutil.copytree(tmp_path / "source" / part, folder / part)
    os.utime(folder / "manifests" / TAG, (1_500_000_000, 1_500_000_000))
    return folder


async def test_models_of_a_folder_become_known(folder: Path, lib: Library) -> None:
    before = lib.files()
    assert await lib.adoption.run() == 0
    models = {model.name.short: model for model in await lib.listing.models()}
    assert set(models) == {"base:latest", "team/Other:Q4"}
    assert models["base:latest"].updated_at == 1_500_000_000 * 10**9
    assert (await lib.show("team/other:q4"))["system"] == "Be brief."
    assert lib.files() == before
    await lib.models.delete(ModelName.parse("base"))
    assert await lib.adoption.run() == 0
    assert [model.name.short for model in await lib.listing.models()] == ["team/Other:Q4"]


async def test_again_there_is_nothing_to_do(folder: Path, lib: Library) -> None:
    await lib.adoption.run()
    models = await lib.listing.models()
    assert await lib.adoption._strangers() == []
    await lib.adoption.run()
    assert await lib.listing.models() == models


async def test_a_catalog_that_was_lost_is_made_anew(tmp_path: Path) -> None:
    async with library(tmp_path) as lib:
        await lib.base()
        await lib.make("child", origin="base", parameters={"seed": 7})
        digests = [await lib.digest(name) for name in ("base", "child")]
    for file in tmp_path.glob("registry.db*"):
        file.unlink()
    async with library(tmp_path) as lib:
        await lib.adoption.run()
        assert [await lib.digest(name) for name in ("base", "child")] == digests


@pytest.mark.parametrize("harm", ["changed", "cut", "gone", "no manifest", "index", "endless"])
async def test_what_is_damaged_is_left_out_and_left_alone(
    folder: Path, lib: Library, harm: str
) -> None:
    tag = folder / "manifests" / TAG
    match harm:
        case "changed":
            for file in (folder / "blobs").iterdir():
                file.write_bytes(b"x" * file.stat().st_size)
        case "cut":
            for file in (folder / "blobs").iterdir():
                file.write_bytes(file.read_bytes()[:-1])
        case "gone":
            for file in (folder / "blobs").iterdir():
                file.unlink()
        case "no manifest":
            tag.write_bytes(b"nonsense")
        case "index":
            tag.write_bytes(b'{"schemaVersion":2,"manifests":[]}')
        case _:
            tag.write_bytes(b" " * (5 << 20))
    files = sorted(file.name for file in (folder / "blobs").iterdir())
    await lib.adoption.run()
    known = {model.name.short for model in await lib.listing.models()}
    assert known == ({"team/Other:Q4"} if harm in {"no manifest", "index", "endless"} else set())
    if harm in {"changed", "cut"}:
        assert sorted(file.name for file in (folder / "blobs").iterdir()) == files


async def test_what_cannot_be_a_tag_is_passed_over(folder: Path, lib: Library) -> None:
    root = folder / "manifests"
    (root / "file").write_text("x")
    (root / "registry.ollama.ai" / "library" / "base" / "deeper" / "still").mkdir(parents=True)
    (root / "registry.ollama.ai" / "library" / ".hidden").mkdir()
    (root / "registry.ollama.ai" / "library" / ".hidden" / "latest").write_text("{}")
    (root / "registry.ollama.ai" / "library" / "link").symlink_to("base")
    await lib.adoption.run()
    assert len(await lib.listing.models()) == 2


async def test_a_model_deleted_meanwhile_does_not_come_back(folder: Path, lib: Library) -> None:
    file = await lib.adoption._folder.read(ModelName.parse("base"))  # as the duty found it
    assert file is not None
    await lib.adoption.run()
    await lib.models.delete(ModelName.parse("base"))
    search = Search(lib.store, Strays(lib.catalog, lib.store), 0)
    assert not await lib.adoption._take_in(file, search)
    assert await lib.models.find(ModelName.parse("base")) is None


async def test_bytes_that_nothing_mentions_go_when_they_are_old(lib: Library) -> None:
    await lib.base()
    before = lib.files()
    incoming = await lib.store.create(5)
    await incoming.write(b"crash")
    await incoming.publish(await incoming.seal())  # and the process dies before its transaction
    await incoming.discard()
    assert len(lib.files()) == 3
    lib.clock.now = time.time_ns()
    assert await lib.adoption.run() == 0
    lib.age()
    assert await lib.adoption.run() == 1
    assert lib.files() == before


async def test_a_sweep_between_publish_and_transaction_loses_nothing(lib: Library) -> None:
    incoming = await lib.store.create(5)
    await incoming.write(b"bytes")
    digest = await incoming.seal()
    key = await incoming.publish(digest)
    lib.age()
    await lib.adoption.run()
    assert lib.files() == set()

    def commit(tx: Transaction) -> None:
        incoming.confirm()
        tx.put_blob(digest, 5, key, lib.clock())

    await lib.catalog.write(commit)
    await incoming.close()
    assert lib.files() == {str(digest)}


async def test_a_new_catalog_deletes_nothing_for_a_day(lib: Library) -> None:
    """Another one, whose loss nobody has noticed yet, may know what this does not."""
    await lib.put(b"an image's layer")
    adoption = Adoption(lib.manifests, FolderOnDisk(lib.data), 0)
    lib.age()
    (lib.data / "blobs" / f"sha256-{'a' * 64}").write_bytes(b"of another catalog")
    lib.age()
    lib.clock.now = time.time_ns()
    for hours, gone in ((0, 0), (23, 0), (2, 1)):
        lib.clock.now += hours * 3_600 * 10**9
        assert await adoption.run() == gone
