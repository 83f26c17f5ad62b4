"""The local worker opens blobs where the store has them."""

from pathlib import Path
from typing import cast

import pytest

from registry.core.digest import Digest
from registry.core.errors import BlobUnknown, Unavailable
from registry.ports.blobs import BlobStore
from registry.ports.workers import LoadSpec, RunnerOptions, Weights
from registry.settings import Settings
from registry.workers.engine import find_engine
from registry.workers.local import LOCAL, local_node
from tests.support.library import library
from tests.support.nodes import Shelf, said
from tests.support.scripted_model import scripted_model

pytestmark = pytest.mark.anyio


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
        worker = local_node(settings, find_engine("xllamacpp"), lib.catalog, lib.store)
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


class NoFiles:
    """A store somewhere else."""

    def path(self, storage_key: str) -> str | None:
        return None


async def test_a_blob_that_is_gone_or_lies_elsewhere_is_told(tmp_path: Path) -> None:
    settings = Settings.load({}).worker
    engine = find_engine("xllamacpp")
    async with library(tmp_path / "data") as lib:
        digest = Digest.parse(await lib.put(b"some bytes"))
        spec = LoadSpec(Shelf(tmp_path).put("m", b"").name, digest, Weights(digest, 10))
        missing = Weights(Digest.of(b"other"), 10)
        elsewhere = local_node(settings, engine, lib.catalog, cast(BlobStore, NoFiles()))
        here = local_node(settings, engine, lib.catalog, lib.store)
        with pytest.raises(Unavailable, match="no files that a local worker could open"):
            await elsewhere._config.fetch(spec.model)
        with pytest.raises(BlobUnknown):
            await here._config.fetch(missing)
        path = await here._config.fetch(spec.model)
        assert path.read_bytes() == b"some bytes"
