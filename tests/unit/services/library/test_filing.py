"""Files for what the catalog decided: at once without a sync, then synced, then forgotten."""

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from registry.adapters.blobs_fs import FileBlobStore
from registry.adapters.models_folder import FolderOnDisk
from registry.core.digest import Digest
from registry.core.names import ModelName, RepositoryName
from registry.core.records import RecordName
from registry.ports.blobs import Opened
from registry.ports.catalog import FolderChange, Manifest, Reader, Transaction
from registry.services.library.filing import Filing
from registry.services.library.held import open_blob
from tests.support.library import Library, library
from tests.support.syncs import Syncs

pytestmark = [pytest.mark.anyio, pytest.mark.folder]

IMAGE = Manifest(
    Digest.of(b"{}"), "application/vnd.oci.image.manifest.v1+json", b"{}", references=()
)
TAG = "registry.ollama.ai/library/m/latest"


async def due(lib: Library) -> tuple[int, int]:
    """Contents and changes of the models folder that are not known to be on the disk."""

    def work(tx: Reader) -> tuple[int, int]:
        return len(tx.unwritten(1000)), len(tx.folder_changes(1000))

    return await lib.catalog.read(work)


async def layered(lib: Library, name: str = "m", system: str = "Be brief.") -> None:
    """A model with a text of its own."""
    await lib.make(name, origin="base", system=system)


async def test_a_create_is_answered_with_files_written_and_none_synced(
    tmp_path: Path, syncs: Syncs
) -> None:
    async with library(tmp_path) as lib:
        await lib.base()
        await lib.housekeeping.finish()
        syncs.paths.clear()
        syncs.whole.clear()
        await layered(lib)
        assert str(Digest.of(b"Be brief.")) in lib.files()
        assert TAG in lib.tag_files()
        assert syncs.whole == []
        assert [path for path in syncs.paths if path.is_relative_to(tmp_path / "blobs")] == []
        assert await due(lib) == (1, 1)  # the text; the tag


async def test_what_is_forgotten_was_synced(tmp_path: Path, syncs: Syncs) -> None:
    async with library(tmp_path) as lib:
        await lib.base()
        await layered(lib)
        syncs.offers_whole = False
        await lib.housekeeping.finish()
        assert await due(lib) == (0, 0)
        blobs = tmp_path / "blobs"
        assert {blobs / Digest.of(b"Be brief.").file_name, blobs} <= set(syncs.paths)
        assert tmp_path / "manifests" / TAG in syncs.paths


async def test_syncs_come_by_themselves(tmp_path: Path) -> None:
    async with library(tmp_path) as lib:
        await lib.base()
        async with asyncio.timeout(20):
            while await due(lib) != (0, 0):
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("what", ["emptied", "torn", "gone"])
async def test_the_next_start_puts_right_what_a_power_cut_left(tmp_path: Path, what: str) -> None:
    async with library(tmp_path / "a") as lib:
        await lib.base()
        await lib.housekeeping.finish()
        await layered(lib)
        expected = lib.files(), lib.tag_files()
        shutil.copytree(tmp_path / "a", tmp_path / "b")
    harm(tmp_path / "b" / "blobs" / Digest.of(b"Be brief.").file_name, what)
    harm(tmp_path / "b" / "manifests" / TAG, what)
    async with library(tmp_path / "b") as lib:
        await lib.housekeeping.recover()
        assert (lib.files(), lib.tag_files()) == expected
        await lib.housekeeping.finish()
        assert await due(lib) == (0, 0)


async def test_a_start_without_room_takes_torn_files_away_and_serves_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    digest = Digest.of(b"Be brief.")
    async with library(tmp_path / "a") as lib:
        await lib.base()
        await lib.housekeeping.finish()
        await layered(lib)
        expected = lib.files(), lib.tag_files()
        shutil.copytree(tmp_path / "a", tmp_path / "b")
    file, tag = tmp_path / "b" / "blobs" / digest.file_name, tmp_path / "b" / "manifests" / TAG
    harm(file, "torn")
    harm(tag, "emptied")
    async with library(tmp_path / "b") as lib:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", refuse)
            await lib.housekeeping.recover()
        assert not file.exists()
        assert not tag.exists()
        blob = await lib.catalog.read(lambda tx: tx.blob(digest))
        assert blob is not None
        async with await lib.blobs.open(blob) as opened:
            assert await opened.read(0, opened.size) == b"Be brief."
        await lib.housekeeping.settle([])  # there is room again
        assert (lib.files(), lib.tag_files()) == expected


def harm(path: Path, what: str) -> None:
    if what == "gone":
        path.unlink()
    else:
        path.write_bytes(b"" if what == "emptied" else path.read_bytes()[:-3] + bytes(3))


async def test_a_sync_that_fails_is_done_anew_from_the_rows(tmp_path: Path, syncs: Syncs) -> None:
    async with library(tmp_path) as lib:
        await lib.base()
        await lib.housekeeping.finish()
        await layered(lib)
        syncs.fails_with = 5
        await lib.housekeeping.finish()
        assert await due(lib) == (1, 1)
        syncs.fails_with = None
        (tmp_path / "blobs" / Digest.of(b"Be brief.").file_name).write_bytes(b"dropped")
        await lib.housekeeping.settle([])
        assert str(Digest.of(b"Be brief.")) in lib.files()
        await lib.housekeeping.finish()
        assert await due(lib) == (0, 0)


async def test_a_blob_without_its_file_is_served_from_the_catalog(tmp_path: Path) -> None:
    async with library(tmp_path) as lib:
        await lib.base()
        await layered(lib)
        digest = Digest.of(b"Be brief.")
        (tmp_path / "blobs" / digest.file_name).unlink()
        blob = await lib.catalog.read(lambda tx: tx.blob(digest))
        assert blob is not None
        async with await lib.blobs.open(blob) as opened:
            assert (opened.size, opened.fileno()) == (9, None)
            assert await opened.read(3, 8) == b"brief"
            assert [piece async for piece in opened.chunks(0, 9)] == [b"Be brief."]


async def test_a_blob_is_found_that_is_written_and_forgotten_between_two_looks(
    tmp_path: Path,
) -> None:
    async with library(tmp_path) as lib:
        await lib.base()
        await layered(lib)
        digest = Digest.of(b"Be brief.")
        path, away = tmp_path / "blobs" / digest.file_name, tmp_path / "away"
        path.rename(away)
        blob = await lib.catalog.read(lambda tx: tx.blob(digest))
        assert blob is not None

        class Early(FileBlobStore):
            """Looks before the file is there; then everything happens at once."""

            async def open(self, storage_key: str) -> Opened:
                try:
                    return await super().open(storage_key)
                finally:
                    if away.exists():
                        away.rename(path)
                        await lib.housekeeping.finish()

        store = Early(tmp_path)
        async with await open_blob(lib.catalog, store, blob) as opened:
            assert await opened.read(0, 9) == b"Be brief."
        store.close()


async def test_no_tag_is_written_before_all_contents_are(tmp_path: Path) -> None:
    async with library(tmp_path) as lib:
        await lib.base()
        store, folder = FileBlobStore(tmp_path / "other"), Watched(tmp_path / "other")

        def many(tx: Transaction) -> None:
            for number in range(150):
                text = b"%d" % number
                blob = tx.put_blob(Digest.of(text), len(text), Digest.of(text).file_name, 1)
                tx.put_content(blob, text)

        await lib.catalog.write(many)
        await layered(lib, "late")
        filing = Filing(lib.catalog, store, folder)
        await filing.write()
        assert folder.blobs_seen == len(list((tmp_path / "other" / "blobs").iterdir())) > 150
        await filing.finish()
        store.close()


class Watched(FolderOnDisk):
    """A models folder that looks how many blobs there are when its first tag comes."""

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        self._blobs = data / "blobs"
        self.blobs_seen = 0

    def apply(self, changes: Sequence[FolderChange]) -> None:
        if changes and not self.blobs_seen:
            self.blobs_seen = len(list(self._blobs.iterdir()))
        super().apply(changes)


def files(data: Path) -> dict[str, bytes]:
    """The tags of a models folder and what they hold."""
    root = data / "manifests"
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


class Late(FolderOnDisk):
    """A models folder of a process whose first write of a kind comes after something else."""

    def __init__(
        self, data: Path, kind: type[ModelName | RecordName], first: Callable[[], object]
    ) -> None:
        super().__init__(data)
        self._kind = kind
        self._due = [first]

    def apply(self, changes: Sequence[FolderChange]) -> None:
        if self._due and any(isinstance(item.name, self._kind) for item in changes):
            self._due.pop()()
        super().apply(changes)


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("becomes", ["deleted", "another"])
async def test_a_process_that_is_late_does_not_bring_an_older_tag_back(
    tmp_path: Path, becomes: str, forgotten: bool
) -> None:
    async with library(tmp_path) as lib:
        await lib.base()
        await lib.housekeeping.finish()
        await layered(lib)
        seen: dict[str, bytes] = {}

        async def change() -> None:
            if becomes == "deleted":
                await lib.models.delete(ModelName.parse("m"))
            else:
                await layered(lib, system="Be long.")
            if forgotten:
                await lib.housekeeping.finish()
            seen.update(files(tmp_path))

        loop = asyncio.get_running_loop()
        folder = Late(
            tmp_path, ModelName, lambda: asyncio.run_coroutine_threadsafe(change(), loop).result(20)
        )
        filing = Filing(lib.catalog, lib.store, folder)
        await filing.write()
        assert files(tmp_path) == seen
        assert (TAG in seen) == (becomes == "another")
        await filing.finish()


async def test_a_process_that_is_late_does_not_bring_an_older_record_back(tmp_path: Path) -> None:
    name = RecordName(RepositoryName.parse("library/m"), "v1")
    async with library(tmp_path) as lib:
        await lib.base()

        def tagged(tx: Transaction, *, there: bool) -> None:
            repository = tx.put_repository(name.repository)
            if there:
                tx.put_manifest(repository.id, IMAGE, 1)
                tx.put_tag(repository.id, "v1", IMAGE.digest, 1)
            else:
                tx.delete_tag(repository.id, "v1")

        async def delete() -> None:
            await lib.catalog.write(partial(tagged, there=False))
            await lib.housekeeping.settle([])
            await lib.housekeeping.finish()

        await lib.catalog.write(partial(tagged, there=True))
        loop = asyncio.get_running_loop()
        folder = Late(
            tmp_path,
            RecordName,
            lambda: asyncio.run_coroutine_threadsafe(delete(), loop).result(20),
        )
        filing = Filing(lib.catalog, lib.store, folder)
        await filing.write()
        await filing.finish()
        assert name.file_path not in await folder.records()


async def test_creates_at_once_are_all_filed(tmp_path: Path) -> None:
    async with library(tmp_path) as lib:
        await lib.base()
        await asyncio.gather(*(layered(lib, f"m{n}", f"text {n}") for n in range(12)))
        assert len(lib.tag_files()) == 13
        await lib.housekeeping.finish()
        assert await due(lib) == (0, 0)
