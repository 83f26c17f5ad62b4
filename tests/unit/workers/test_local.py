"""The local worker opens blobs where the store has them."""

from pathlib import Path

import pytest

from registry.adapters.blobs_fs import FileBlobStore
from registry.core.digest import Digest
from registry.core.errors import BlobUnknown, CannotRun
from registry.ports.blobs import BlobStore
from registry.ports.workers import LoadSpec, RunnerOptions, Weights
from registry.settings import Settings
from registry.workers import local as workers_local
from registry.workers.engine import find_engine
from registry.workers.local import LOCAL, local_node
from registry.workers.node import Node
from tests.support.library import Library, library
from tests.support.nodes import Shelf, said
from tests.support.scripted_model import scripted_model

pytestmark = [pytest.mark.anyio, pytest.mark.folder]


@pytest.mark.engine
async def test_a_blob_of_the_library_is_run_without_a_copy(tmp_path: Path) -> None:
    model = scripted_model(["Hel", "lo"])
    async with library(tmp_path / "data") as lib:
        digest = Digest.parse(await lib.put(model))
        spec = LoadSpec(
            Shelf(tmp_path).put("m", b"").name,
            digest,
            Weights(digest, len(model)),
            options=RunnerOptions(num_ctx=256),
        )
        settings = Settings.load({"REGISTRY_WORKER__LABELS": "CPU, near"}).worker
        source = workers_local.Library(lib.catalog, lib.store, tmp_path / "cache")
        worker = local_node(settings, find_engine("xllamacpp"), source)
        try:
            assert (worker.name, worker.facts().has_all) == (LOCAL, True)
            assert worker.facts().labels == {"cpu", "near"}
            running = await worker.acquire(spec)
            assert await said(running) == "Hello"
            (held,) = worker._held.values()
            assert held.child is not None
            maps = Path(f"/proc/{held.child.pid}/maps").read_text()
            assert str(tmp_path / "data" / "blobs" / digest.file_name) in maps
        finally:
            await worker.close()


class Elsewhere(FileBlobStore):
    """A store without files of its own."""

    reuses_keys = False

    def path(self, storage_key: str) -> str | None:
        return None


async def test_a_blob_that_is_gone_is_told(tmp_path: Path) -> None:
    async with library(tmp_path / "data") as lib:
        here = node(lib, tmp_path)
        with pytest.raises(BlobUnknown):
            await here._config.fetch(Weights(Digest.of(b"other"), 10))
        digest = Digest.parse(await lib.put(b"some bytes"))
        assert (await here._config.fetch(Weights(digest, 10))).read_bytes() == b"some bytes"
    assert not (tmp_path / "cache").exists()


def node(lib: Library, tmp_path: Path, store: BlobStore | None = None) -> Node:
    source = workers_local.Library(lib.catalog, store or lib.store, tmp_path / "cache")
    return local_node(Settings.load({}).worker, find_engine("xllamacpp"), source)


async def test_a_blob_of_an_object_store_is_fetched_once_and_goes_on(tmp_path: Path) -> None:
    data = bytes(range(256)) * 20_000
    async with library(tmp_path / "data") as lib:
        weights = Weights(Digest.parse(await lib.put(data)), len(data))
        elsewhere = node(lib, tmp_path, Elsewhere(tmp_path / "data"))
        part = tmp_path / "cache" / "incoming" / weights.digest.file_name
        part.write_bytes(data[:1_000_000])
        path = await elsewhere._config.fetch(weights)
        assert path.read_bytes() == data
        assert path.parent == tmp_path / "cache" / "blobs"
        assert await elsewhere._config.fetch(weights) == path
        again = node(lib, tmp_path, Elsewhere(tmp_path / "data"))
        assert await again._config.fetch(weights) == path


async def test_bytes_of_an_object_store_that_are_others_are_not_kept(tmp_path: Path) -> None:
    async with library(tmp_path / "data") as lib:
        weights = Weights(Digest.parse(await lib.put(b"some bytes")), 10)
        (tmp_path / "data" / "blobs" / weights.digest.file_name).write_bytes(b"others now")
        elsewhere = node(lib, tmp_path, Elsewhere(tmp_path / "data"))
        with pytest.raises(CannotRun):
            await elsewhere._config.fetch(weights)
        assert list((tmp_path / "cache").rglob("sha256-*")) == []
