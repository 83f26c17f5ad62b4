"""What Prometheus is told of the library."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from registry.app import application, build, prepare
from registry.services import Services
from tests.support.asgi import Caller
from tests.support.backends import BACKENDS
from tests.support.catalog_rows import put_blob

pytestmark = pytest.mark.anyio


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Services]:
    settings = BACKENDS.settings(tmp_path / "data")
    prepare(settings)
    services = build(settings)
    yield services
    await services.catalog.close()


async def told(made: Services) -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels."""
    answer = await Caller(application(made), {"host": "localhost"})("GET", "/metrics")
    assert answer.status == 200
    families = text_string_to_metric_families(answer.body.decode())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


async def test_what_there_is_and_that_it_works(made: Services) -> None:
    size = (await made.catalog.write(lambda tx: put_blob(tx, "a"))).size
    found = await told(made)
    assert found["registry_ready", "database"] == found["registry_ready", "store"] == 1
    assert found["registry_blobs",] == 1
    assert found["registry_blob_bytes",] == size
    assert found["registry_damaged_blobs",] == found["registry_uploads",] == 0
    assert 0 < found["registry_data_free_bytes",] <= found["registry_data_total_bytes",]
    assert found["process_resident_memory_bytes",] > 0
    assert found["registry_inference_waiting",] == 0


@pytest.mark.folder("takes the store away")
async def test_what_does_not_work_is_told(made: Services) -> None:
    shutil.rmtree(made.settings.data / "incoming")
    found = await told(made)
    assert found["registry_ready", "database"] == 1
    assert found["registry_ready", "store"] == 0
    await made.catalog.close()
    found = await told(made)
    assert found["registry_ready", "database"] == 0
    assert ("registry_blobs",) not in found
    assert found["registry_data_free_bytes",] > 0
