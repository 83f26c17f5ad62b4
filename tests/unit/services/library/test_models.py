"""Models by name: listed, shown, copied, deleted; the folder and the bytes follow."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.errors import ModelUnknown
from registry.core.gguf import Kind
from registry.core.names import ModelName
from registry.ports.catalog import Transaction
from registry.settings import Retention
from tests.support.gguf import SMALLEST, array, field, gguf
from tests.support.library import DAY_NS, Library, library

pytestmark = pytest.mark.anyio


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data") as made:
        yield made


async def names(lib: Library) -> list[str]:
    body = await lib.listing.body()
    return [item["name"] for item in json.loads(body.content)["models"]]


async def copy(lib: Library, source: str, destination: str) -> None:
    await lib.models.copy(ModelName.parse(source), ModelName.parse(destination))


async def delete(lib: Library, name: str) -> None:
    await lib.models.delete(ModelName.parse(name))


async def test_the_list_is_newest_first_and_follows_every_change(lib: Library) -> None:
    assert (await lib.listing.body()).content == b'{"models":[]}'
    await lib.base("a")
    first = await lib.listing.body()
    lib.clock.now += 10**9
    await copy(lib, "a", "b")
    assert await names(lib) == ["b:latest", "a:latest"]
    assert (await lib.listing.body()).etag != first.etag
    lib.clock.now += 10**9
    await copy(lib, "b", "team/a")
    assert await names(lib) == ["team/a:latest", "b:latest", "a:latest"]
    await delete(lib, "b")
    assert await names(lib) == ["team/a:latest", "a:latest"]
    assert [item.name.short for item in await lib.listing.models()] == await names(lib)


async def test_ties_within_a_second_are_sorted_by_name(lib: Library) -> None:
    for name in ("c", "a", "b"):
        await lib.base(name)
    assert await names(lib) == ["a:latest", "b:latest", "c:latest"]


async def test_a_list_made_anew_is_the_one_that_was_kept_up(lib: Library, tmp_path: Path) -> None:
    for name in ("a", "b", "x/c"):
        await lib.base(name)
    await delete(lib, "b")
    kept = await lib.listing.body()
    fresh = type(lib.listing)(lib.catalog, lib.listing._when, lib.listing._scratch)
    assert (await fresh.body()).content == kept.content


async def test_an_unchanged_list_is_the_same_bytes(lib: Library) -> None:
    await lib.base()
    assert await lib.listing.body() is await lib.listing.body()


async def test_names_are_found_in_any_case_and_kept_in_the_first(lib: Library) -> None:
    await lib.base("Team/Llama:V1")
    await copy(lib, "team/llama:v1", "TEAM/LLAMA:other")
    assert set(await names(lib)) == {"Team/Llama:V1", "Team/Llama:other"}
    await lib.make("team/LLAMA:v1", origin="Team/Llama:V1", system="new")
    assert (await lib.show("TEAM/llama:V1"))["system"] == "new"
    assert len(await names(lib)) == 2
    await delete(lib, "TEAM/LLAMA:V1")
    assert await names(lib) == ["Team/Llama:other"]


async def test_each_part_takes_the_spelling_that_is_there(lib: Library) -> None:
    await lib.base("NameAcme/MixedCase:TagA")
    await copy(lib, "nameacme/mixedcase:taga", "mario:taga")
    assert set(await names(lib)) == {"NameAcme/MixedCase:TagA", "mario:TagA"}


@pytest.mark.folder
async def test_delete_frees_what_nothing_else_refers_to(lib: Library) -> None:
    await lib.base()
    await lib.make("a", origin="base", system="shared", template="only {{ .Prompt }}")
    await lib.make("b", origin="base", system="shared")
    await delete(lib, "a")
    await lib.housekeeping.purge()
    texts = {(lib.data / "blobs" / name.replace(":", "-")).read_bytes() for name in lib.files()}
    assert b"shared" in texts
    assert b"only {{ .Prompt }}" not in texts
    for name in ("base", "b"):
        await delete(lib, name)
    await lib.housekeeping.purge()
    assert lib.files() == set()
    assert lib.tag_files() == set()
    assert list((lib.data / "manifests").iterdir()) == []


async def test_delete_does_not_touch_a_fresh_upload(lib: Library) -> None:
    await lib.base()
    upload = await lib.put(b"waiting for its create")
    await delete(lib, "base")
    assert await lib.has(upload)


async def test_without_pruning_blobs_stay(tmp_path: Path) -> None:
    async with library(tmp_path / "d", Retention(prune=False)) as lib:
        await lib.base()
        await delete(lib, "base")
        await lib.housekeeping.purge()
        assert len(lib.files()) == 2


@pytest.mark.folder
async def test_what_was_copied_over_goes_with_the_sweep(lib: Library) -> None:
    await lib.base()
    await lib.make("a", origin="base", system="old")
    await copy(lib, "base", "a")
    assert any(file.read_bytes() == b"old" for file in (lib.data / "blobs").iterdir())
    lib.clock.now += 2 * DAY_NS
    await lib.housekeeping.sweep()
    assert all(file.read_bytes() != b"old" for file in (lib.data / "blobs").iterdir())
    assert (await lib.show("a"))["details"]["format"] == "gguf"


async def test_uploads_are_swept_after_their_grace_and_not_before(lib: Library) -> None:
    upload = await lib.put(b"forgotten")
    lib.clock.now += DAY_NS // 2
    await lib.housekeeping.sweep()
    assert await lib.has(upload)
    lib.clock.now += DAY_NS
    await lib.housekeeping.sweep()
    assert not await lib.has(upload)
    assert lib.files() == set()


@pytest.mark.parametrize("action", [copy, delete])
async def test_absent_models_are_unknown(lib: Library, action: object) -> None:
    with pytest.raises(ModelUnknown):
        await (copy(lib, "nobody", "x") if action is copy else delete(lib, "nobody"))
    assert await lib.models.find(ModelName.parse("bad name")) is None


async def test_a_copy_onto_itself_is_nothing_even_for_an_absent_model(lib: Library) -> None:
    await copy(lib, "nobody", "nobody")
    assert await names(lib) == []


@pytest.mark.folder
async def test_show_opens_no_file_unless_it_is_verbose(lib: Library) -> None:
    tokens = array("tokenizer.ggml.tokens", Kind.STRING, [f"t{n}" for n in range(2000)])
    await lib.base("m", gguf(field("general.architecture", Kind.STRING, "test"), tokens))
    for file in (lib.data / "blobs").iterdir():
        file.rename(file.with_suffix(".away"))
    assert (await lib.show("m"))["model_info"]["tokenizer.ggml.tokens"] is None
    for file in (lib.data / "blobs").iterdir():
        file.rename(file.with_suffix(""))
    verbose = await lib.show("m", verbose=True)
    assert verbose["model_info"]["tokenizer.ggml.tokens"][1999] == "t1999"


async def test_show_lays_system_and_options_over_the_stored_ones(lib: Library) -> None:
    await lib.base()
    await lib.make("m", origin="base", system="stored", parameters={"seed": 3})
    shown = await lib.show("m", system="spoken", options={"num_ctx": 99, "zzz": [1, "two"]})
    assert shown["system"] == "spoken"
    assert shown["parameters"] == "seed                           3"
    assert (
        "PARAMETER num_ctx 99\nPARAMETER seed 3\nPARAMETER zzz 1\nPARAMETER zzz two\n"
        in (shown["modelfile"])
    )
    assert (await lib.show("m"))["system"] == "stored"


async def test_no_answer_tells_where_the_folder_is(lib: Library) -> None:
    await lib.base()
    assert str(lib.data) not in json.dumps(await lib.show("base"))


async def test_a_lone_adapter_cannot_be_shown(lib: Library) -> None:
    lora = gguf(
        field("general.architecture", Kind.STRING, "test"),
        field("general.type", Kind.STRING, "adapter"),
    )
    await lib.make("lora", files={"l.gguf": await lib.put(lora)})
    with pytest.raises(ModelUnknown):
        await lib.show("lora")


@pytest.mark.folder
async def test_what_the_folder_misses_after_a_crash_is_written_at_the_next_change(
    lib: Library,
) -> None:
    await lib.base()
    (lib.data / "manifests").rename(lib.data / "lost")  # as if the process died before writing
    await lib.base("other", SMALLEST)
    assert "registry.ollama.ai/library/other/latest" in lib.tag_files()


async def test_no_tag_file_outlives_the_blobs_it_names(lib: Library) -> None:
    await lib.base()

    def delete_and_die(tx: Transaction) -> None:  # before the models folder was written
        tag = tx.find_model(ModelName.parse("base"))
        assert tag is not None
        tx.delete_tag(tag.repository.id, tag.name)
        lib.manifests.drop(tx, tag.repository.id, tag.digest)

    await lib.catalog.write(delete_and_die)
    assert lib.tag_files() != set()
    await lib.housekeeping.purge()
    assert (lib.tag_files(), lib.files()) == (set(), set())


@pytest.mark.folder
async def test_what_a_crash_left_in_incoming_is_swept(lib: Library) -> None:
    incoming = await lib.store.create(5)
    await incoming.write(b"crash")
    await incoming.flush()
    key = incoming.key
    (lib.data / "incoming" / f"manifest-{'a' * 32}").touch()
    await incoming.close()
    lib.clock.now = time.time_ns() + 30 * 60 * 10**9
    await lib.housekeeping.sweep()
    assert key in {path.name for path in (lib.data / "incoming").iterdir()}
    lib.clock.now = time.time_ns() + 2 * 3600 * 10**9
    await lib.housekeeping.sweep()
    assert lib.incoming() == []
