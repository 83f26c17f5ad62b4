"""Whether the server is ready, part by part, and what it says of running models."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from registry.app import add_local_worker, application, build, prepare
from registry.services import Services
from registry.web.health import Readiness
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


@dataclass
class Part:
    """Something that hangs until it is let go."""

    asked: int = 0
    free: asyncio.Event = field(default_factory=asyncio.Event)

    async def check(self) -> None:
        self.asked += 1
        await self.free.wait()


async def test_a_part_that_hangs_is_told_in_time_and_asked_once() -> None:
    database, store = Part(), Part()
    store.free.set()
    bundle = cast(Services, SimpleNamespace(catalog=database, store=store))
    readiness = Readiness(bundle, patience_s=0.01)
    for _ in range(3):
        found = await readiness.parts()
        assert found == {"database": "no answer in 0.01 s", "store": "ok"}
    assert (database.asked, store.asked) == (1, 3)
    database.free.set()
    assert await readiness.parts() == {"database": "ok", "store": "ok"}
