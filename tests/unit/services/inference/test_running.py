"""What runs, on which worker, for how long, also of models that are gone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.digest import Digest
from registry.core.duration import LONGEST
from registry.core.names import ModelName
from registry.ports.workers import Loaded, WorkerFacts
from registry.services.inference.routing import Router
from registry.services.inference.running import running_models
from tests.support.fake_worker import FakeWorker
from tests.support.library import Library, library

pytestmark = pytest.mark.anyio

SECOND = 10**9


class Telling(FakeWorker):
    """A worker that says what runs on it."""

    def __init__(self, name: str, *loaded: Loaded) -> None:
        super().__init__(name)
        self._told = loaded

    def facts(self) -> WorkerFacts:
        return WorkerFacts(loaded=self._told)


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data") as made:
        yield made


def loaded(name: str, manifest: Digest, expires_at: int | None, size: int = 0) -> Loaded:
    return Loaded("k", ModelName.parse(name), manifest, Digest.of(b"w"), size, 0, 128,
                  expires_at=expires_at)  # fmt: skip


def router_of(*workers: FakeWorker) -> Router:
    router = Router()
    for worker in workers:
        router.add(worker)
    return router


async def test_the_latest_to_expire_comes_first_by_the_second(lib: Library) -> None:
    digest = Digest.parse(f"sha256:{await lib.base('m')}")
    now = lib.clock.now
    one = Telling(
        "one",
        loaded("a", digest, now + 5 * SECOND),
        loaded("b", digest, now + 9 * SECOND),
    )
    two = Telling("two", loaded("c", digest, None), loaded("d", digest, now + 9 * SECOND + 1))
    found = await running_models(router_of(one, two), lib.models, lib.clock)
    assert [(item.loaded.name.model, item.worker) for item in found] == [
        ("c", "two"),
        ("b", "one"),
        ("d", "two"),
        ("a", "one"),
    ]
    assert found[0].expires_at > now + LONGEST


async def test_a_size_that_is_not_known_is_that_of_the_weights(lib: Library) -> None:
    digest = Digest.parse(f"sha256:{await lib.base('m')}")
    worker = Telling("w", loaded("m", digest, 1), loaded("m", digest, 1, size=5))
    first, second = await running_models(router_of(worker), lib.models, lib.clock)
    shown = await lib.models.find(ModelName.parse("m"))
    assert shown is not None
    parts = await lib.models.parts(shown)
    assert (first.loaded.size, second.loaded.size) == (parts.manifest.layers[0].size, 5)
    assert first.details == parts.details()


async def test_a_model_deleted_since_is_told_as_it_was(lib: Library) -> None:
    digest = Digest.parse(f"sha256:{await lib.base('m')}")
    router = router_of(Telling("w", loaded("m", digest, 1)))
    (before,) = await running_models(router, lib.models, lib.clock)
    await lib.models.delete(ModelName.parse("m"))
    (after,) = await running_models(router, lib.models, lib.clock)
    assert after.details == before.details


async def test_a_model_nobody_remembers_is_told_by_name(lib: Library) -> None:
    router = router_of(Telling("w", loaded("gone", Digest.of(b"never seen"), 1)))
    (item,) = await running_models(router, lib.models, lib.clock)
    assert item.loaded.name.model == "gone"
    assert item.details["family"] == ""
