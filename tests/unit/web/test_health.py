"""Whether the server is ready, part by part, and what it says of running models."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.app import add_local_worker, application, build, prepare
from registry.services import Services
from tests.support.asgi import Caller
from tests.support.backends import BACKENDS

pytestmark = pytest.mark.anyio


def services(folder: Path, **worker: Any) -> Services:
    settings = BACKENDS.settings(folder)
    changed = settings.worker.model_copy(update=worker)
    settings = settings.model_copy(update={"worker": changed})
    prepare(settings)
    return build(settings)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"


async def parts(made: Services) -> tuple[int, dict[str, str]]:
    try:
        answer = await Caller(application(made), {"host": "localhost"})("GET", "/readyz")
        return answer.status, json.loads(answer.body)["parts"]
    finally:
        for worker in made.router.workers():
            await worker.close()
        await made.catalog.close()


async def test_no_worker_is_told_and_does_not_make_the_library_unready(folder: Path) -> None:
    made = services(folder, local="off")
    add_local_worker(made)
    assert made.router.workers() == ()
    assert await parts(made) == (
        200,
        {
            "database": "ok",
            "store": "ok",
            "inference": "no inference worker is connected to this server",
        },
    )


async def test_an_engine_that_is_missing_is_told_in_words(folder: Path) -> None:
    made = services(folder, engine="/nowhere/llama-server")
    add_local_worker(made)
    status, found = await parts(made)
    assert status == 200
    assert found["inference"].startswith("the program that REGISTRY_WORKER__ENGINE names")


@pytest.mark.engine
async def test_a_server_with_the_engine_runs_models(folder: Path) -> None:
    made = services(folder)
    add_local_worker(made)
    (worker,) = made.router.workers()
    facts = worker.facts()
    assert (facts.engine, facts.has_all, facts.loaded) == ("xllamacpp", True, ())
    assert (await parts(made))[1]["inference"] == "ok"
