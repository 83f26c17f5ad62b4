"""A catalog that was lost comes back from the store: images, indexes, referrers, odd names."""

import hashlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import delete

from registry.adapters.statements import Statement
from registry.adapters.tables import metadata
from registry.core.digest import Digest
from registry.core.media import OCI_INDEX, OCI_MANIFEST
from registry.core.names import ModelName, RepositoryName
from registry.core.records import RecordName
from registry.ports.catalog import Reader
from registry.services.library.manifests import Put
from registry.settings import Retention
from tests.support.library import Library, library

pytestmark = pytest.mark.anyio
REPOSITORY = RepositoryName("team/Nested/image")
FOREVER = 4 * 10**18


@dataclass(slots=True)
class Pushes:
    """An OCI client's pushes into one repository of a library."""

    lib: Library
    repository: RepositoryName = REPOSITORY

    async def blob(self, data: bytes, algorithm: str = "sha256") -> dict[str, object]:
        named = Digest.of(data, algorithm)
        blob = await self.lib.blobs.put_bytes(data)

        def link(tx) -> None:  # type: ignore[no-untyped-def]
            if named != blob.digest:
                tx.alias_blob(named, blob.digest)
            tx.link_blob(tx.put_repository(self.repository).id, blob.digest, FOREVER)

        await self.lib.catalog.write(link)
        return {"mediaType": "application/x.layer", "digest": str(named), "size": len(data)}

    async def image(self, reference: str | None, text: str, **more: object) -> dict[str, object]:
        algorithm = str(more.pop("algorithm", "sha256"))
        layer = await self.blob(text.encode(), algorithm)
        body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": layer, "layers": [layer]}
        return await self.put(reference, json.dumps({**body, **more}, indent=1).encode())

    async def put(
        self, reference: str | None, body: bytes, media_type: str = OCI_MANIFEST
    ) -> dict[str, object]:
        reference = reference or str(Digest.of(body))
        done = await self.lib.manifests.put(self.repository, Put(reference, body, media_type))
        return {"mediaType": media_type, "digest": str(done.digest), "size": len(body)}

    async def index(self, reference: str | None, *children: dict[str, object]) -> dict[str, object]:
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
        return await self.put(reference, json.dumps(body).encode(), OCI_INDEX)


def everything(tx: Reader) -> dict[str, object]:
    """Every repository with its tags, manifests, where they point and what refers to what."""
    found: dict[str, object] = {}
    for name in tx.repositories("", 100):
        repository = tx.repository(name)
        assert repository is not None
        tags = {tag: tx.tag(repository.id, tag) for tag in tx.tags(repository.id, "", 100)}
        found[name.path] = {tag: str(at.digest) for tag, at in tags.items() if at is not None}
    return found


async def held(lib: Library, name: RepositoryName, *digests: object) -> list[object]:
    """The manifests with those digests, as the repository has them."""

    def look(tx: Reader) -> list[object]:
        repository = tx.repository(name)
        assert repository is not None
        known = [Digest.parse(str(text)) for text in digests]
        return [tx.manifest(item) for item in known if tx.has_manifest(repository.id, item)]

    return await lib.catalog.read(look)


async def emptied(lib: Library) -> None:
    """Lose every name: what a new database beside the old store knows."""
    await lib.housekeeping.finish()
    await lib.catalog.write(_forget_all)
    lib.clock.now = time.time_ns() + 5 * 10**9  # an object store looks at what is older only


def _forget_all(tx) -> None:  # type: ignore[no-untyped-def]
    for table in reversed(metadata.sorted_tables):
        tx._sql.run(Statement(delete(table)))


async def rebuilt(lib: Library) -> list[str]:
    """Take everything in; what could not be."""
    return [f"{deed.name}: {deed.fault}" async for deed in lib.adoption.adopting() if deed.fault]


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data") as lib:
        yield lib


async def test_an_emptied_catalog_gets_everything_back(lib: Library) -> None:
    push = Pushes(lib)
    first, second = await push.image(None, "arm"), await push.image(None, "amd")
    inner = await push.index(None, first)
    index = await push.index("Multi", second, inner)
    untagged = await push.image(None, "untagged")
    signature = await push.image(None, "signature", subject=index)
    odd = await push.image("sha512", "odd", algorithm="sha512")
    await lib.base("base")
    await lib.make("team/child:q4", origin="base", system="s")
    await Pushes(lib, RepositoryName("library/base")).image("picture", "beside a model")
    before = await lib.catalog.read(everything)
    digests = [item["digest"] for item in (first, second, inner, index, untagged, signature, odd)]
    manifests = await held(lib, REPOSITORY, *digests)
    assert len(manifests) == len(digests)
    files = lib.files() if (lib.data / "blobs").exists() else None

    await emptied(lib)
    assert await lib.catalog.read(everything) == {}
    assert await rebuilt(lib) == []

    assert await lib.catalog.read(everything) == before
    assert await held(lib, REPOSITORY, *digests) == manifests
    subject = Digest.parse(str(index["digest"]))
    referrers = await lib.manifests.referrers(REPOSITORY, subject)
    assert [str(item.digest) for item in referrers] == [signature["digest"]]
    assert await lib.has(str(Digest.of(b"odd", "sha512")))
    assert files is None or lib.files() == files
    assert await rebuilt(lib) == []


async def test_what_was_deleted_stays_deleted(lib: Library) -> None:
    push = Pushes(lib)
    for tag in ("v1", "v2", "v3"):
        await push.image(tag, tag)
    kept, gone, moved = [
        (await lib.manifests.get(REPOSITORY, tag)).digest for tag in ("v1", "v2", "v3")
    ]
    await lib.manifests.delete(REPOSITORY, str(gone))
    await lib.manifests.delete(REPOSITORY, "v3")  # only the tag
    before = await lib.catalog.read(everything)
    await emptied(lib)
    assert await rebuilt(lib) == []
    assert await lib.catalog.read(everything) == before == {REPOSITORY.path: {"v1": str(kept)}}
    assert [item is not None for item in await held(lib, REPOSITORY, gone, moved)] == [True]


@pytest.mark.parametrize("undelete_s", [0, 3600])
async def test_a_replaced_model_does_not_come_back(tmp_path: Path, undelete_s: int) -> None:
    async with library(tmp_path / "data", Retention(undelete_s=undelete_s)) as lib:
        await lib.base("base")
        await lib.make("m", origin="base", system="old")
        old = await lib.digest("m")
        await lib.make("m", origin="base", system="new")
        before = await lib.catalog.read(everything)
        await emptied(lib)
        assert await rebuilt(lib) == []
        assert await lib.catalog.read(everything) == before
        name = ModelName.parse("m").repository
        assert await held(lib, name, f"sha256:{old}") == []


async def test_a_model_that_lost_its_tag_to_an_image_is_kept_as_a_manifest(lib: Library) -> None:
    await lib.base("m")
    model = await lib.digest("m")
    push = Pushes(lib, ModelName.parse("m").repository)
    await push.image("latest", "an image now")
    before = await lib.catalog.read(everything)
    await emptied(lib)
    assert await rebuilt(lib) == []
    assert await lib.catalog.read(everything) == before
    assert len(await held(lib, push.repository, f"sha256:{model}")) == 1


async def test_models_that_ollama_cannot_name_and_models_without_a_tag(lib: Library) -> None:
    await lib.base("base")
    base = ModelName.parse("base").repository
    body = (await lib.manifests.get(base, "latest")).body
    push = Pushes(lib, base)
    await push.put("x" * 100, body, "")
    other = body.replace(b'{"schemaVersion"', b'{ "schemaVersion"')
    await push.put(None, other, "")
    exact = Digest.of(other + b" ", "sha512")
    await push.put(str(exact), other + b" ", "")
    await lib.catalog.write(lambda tx: tx.put_tag(tx.put_repository(base).id, "long", exact, 5))
    await lib.housekeeping.settle([])
    before = await lib.catalog.read(everything)
    digests = [exact, Digest.of(other), Digest.of(body)]
    manifests = await held(lib, base, *digests)
    assert len(manifests) == 3
    await emptied(lib)
    assert await rebuilt(lib) == []
    assert await lib.catalog.read(everything) == before
    assert await held(lib, base, *digests) == manifests


async def test_what_a_crash_left_due_is_written_at_the_start(lib: Library) -> None:
    """Killed after its transaction: the rows are there, the files are not."""
    push = Pushes(lib)
    layer = await push.blob(b"layer")
    body = json.dumps({"schemaVersion": 2, "config": layer, "layers": []}).encode()
    prepared = await lib.manifests.prepare(body, OCI_MANIFEST)

    def commit(tx) -> None:  # type: ignore[no-untyped-def]
        repository = tx.put_repository(REPOSITORY)
        lib.manifests.commit(tx, repository, prepared)
        tx.put_tag(repository.id, "v1", prepared.row.digest, 5)

    await lib.catalog.write(commit)
    assert await lib.adoption._folder.records() == []
    await lib.housekeeping.recover()
    await lib.housekeeping.finish()
    assert len(await lib.adoption._folder.records()) == 2
    before = await lib.catalog.read(everything)
    await emptied(lib)
    assert await rebuilt(lib) == []
    assert await lib.catalog.read(everything) == before


async def test_after_a_restore_every_record_is_written_anew(lib: Library) -> None:
    await lib.base("base")
    await Pushes(lib).index("multi", await Pushes(lib).image(None, "child"))
    await lib.housekeeping.finish()
    folder = lib.adoption._folder
    before = sorted(await folder.records())
    for place in before:
        record = await folder.read_record(place)
        assert record is not None
    await lib.housekeeping.finish()
    names = [RecordName(REPOSITORY, "multi")]
    await lib.catalog.write(lambda tx: tx.record_all())
    assert all([await lib.catalog.read(lambda tx, n=n: tx.is_folder_change_due(n)) for n in names])  # type: ignore[misc]
    assert await lib.adoption.publish() == 1
    await lib.housekeeping.finish()
    assert sorted(await folder.records()) == before


@pytest.mark.parametrize("harm", ["blob", "record", "child", "misplaced"])
async def test_what_is_damaged_is_told_and_its_bytes_are_left_alone(
    lib: Library, harm: str
) -> None:
    if not (lib.data / "blobs").exists():
        pytest.skip("harms files")
    push = Pushes(lib)
    child = await push.image(None, "child")
    await push.index("multi", child)
    whole = await push.image("whole", "whole")
    await emptied(lib)
    name = RecordName(REPOSITORY, str(child["digest"]))
    record = lib.data / "records" / name.file_path
    match harm:
        case "blob":
            sha = hashlib.sha256(b"child").hexdigest()
            (lib.data / "blobs" / f"sha256-{sha}").write_bytes(b"chilD")
        case "record":
            record.write_bytes(record.read_bytes() + b" ")
        case "child":
            record.unlink()
        case _:
            record.rename(record.with_name(f"sha256-{'a' * 64}"))
    (lib.data / "records" / "x").mkdir()
    (lib.data / "records" / "x" / "notes.txt").write_text("nothing of ours")
    faults = await rebuilt(lib)
    assert len(faults) == (2 if harm == "child" else 3)
    assert await lib.catalog.read(everything) == {REPOSITORY.path: {"whole": str(whole["digest"])}}
    if harm == "blob":
        _, spared = await lib.adoption.adopt()
        assert Digest.of(b"child") in spared
