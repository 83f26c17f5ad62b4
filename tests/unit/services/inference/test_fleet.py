"""Rows of workers and placements, and how a running server keeps in step with them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from registry.core.errors import Conflict, ModelUnknown, NotFound, RegistryError, RequestInvalid
from registry.core.names import ModelName
from registry.core.placement import Placement
from registry.ports.catalog import Catalog
from registry.ports.fleet import Enlisted, NewWorker
from registry.ports.workers import Running
from registry.services.inference.fleet import Fleet
from registry.services.inference.muster import Muster
from registry.services.inference.routing import Router
from registry.services.inference.worker_keys import WorkerKeys
from tests.support.backends import BACKENDS
from tests.support.catalog_rows import put_model
from tests.support.fake_worker import FakeWorker, spec_of

pytestmark = pytest.mark.anyio
GPU = NewWorker("GPU", "ollama", "http://gpu:11434", labels=("Big",))
TINY = ModelName.parse("library/tiny")


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    catalog = BACKENDS.catalog(tmp_path)
    await catalog.write(lambda tx: put_model(tx, "library/tiny", "latest", "tiny"))
    yield catalog
    await catalog.close()


@pytest.fixture
def fleet(catalog: Catalog) -> Fleet:
    return Fleet(catalog, lambda: 7)


async def test_a_server_becomes_a_worker_and_is_one_no_longer(fleet: Fleet) -> None:
    made = await fleet.add(GPU)
    assert made == Enlisted("gpu", "ollama", "http://gpu:11434", 7, frozenset({"big"}))
    with pytest.raises(Conflict, match="there is a worker gpu already"):
        await fleet.add(GPU)
    await fleet.drain("Gpu")
    assert await fleet.workers() == [replace(made, drained=True)]
    assert await fleet.drained() == {"gpu"}
    await fleet.remove("GPU")
    with pytest.raises(NotFound):
        await fleet.remove("gpu")
    with pytest.raises(NotFound):
        await fleet.drain("gpu")


async def test_workers_that_are_no_servers_are_drained_by_name(
    fleet: Fleet, catalog: Catalog
) -> None:
    keys = WorkerKeys(catalog, lambda: 7)
    await keys.enrol(await keys.make_token(60), "far")
    for name in ("local", "FAR"):
        await fleet.drain(name)
    with pytest.raises(NotFound, match="there is no worker 'nobody'"):
        await fleet.drain("nobody")
    team = Team(catalog)
    await team.muster.sync()
    assert [team.router.is_draining(name) for name in ("local", "far", "gpu")] == [1, 1, 0]
    await fleet.drain("local", drained=False)
    await fleet.remove("far")
    await keys.enrol(await keys.make_token(60), "far")
    assert await fleet.drained() == frozenset()


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        (NewWorker("local", "ollama", "http://gpu"), Conflict),
        (NewWorker("a", "other", "http://gpu"), RequestInvalid),
        (NewWorker("a", "openai", "http://gpu", slots=-1), RequestInvalid),
        (NewWorker("a", "openai", "http://gpu", key="a\nb"), RequestInvalid),
        (NewWorker("a", "openai", "http://gpu", models={"a//b": "c"}), RequestInvalid),
        (NewWorker("a", "openai", "http://gpu", models={"a": "c\n"}), RequestInvalid),
        (
            NewWorker("a", "openai", "http://gpu", models={str(n): "c" for n in range(1001)}),
            RequestInvalid,
        ),
    ],
)
async def test_wishes_that_cannot_be_fulfilled(
    fleet: Fleet, wish: NewWorker, error: type[RegistryError]
) -> None:
    with pytest.raises(error):
        await fleet.add(wish)
    assert await fleet.workers() == []


async def test_names_of_models_are_made_full_and_no_map_means_all(fleet: Fleet) -> None:
    first = await fleet.add(NewWorker("a", "openai", "http://a", models={"Tiny": "x", "*": "*"}))
    second = await fleet.add(NewWorker("b", "openai", "http://b"))
    assert first.models == {"registry.ollama.ai/library/tiny:latest": "x", "*": "*"}
    assert second.models == {"*": "*"}


async def test_a_model_is_placed_in_any_spelling(fleet: Fleet) -> None:
    await fleet.place(TINY, ("GPU",))
    await fleet.pin(ModelName.parse("Library/TINY"))
    found = [item for _, item in await fleet.placements()]
    assert found == [Placement(frozenset({"gpu"}), pinned=True)]
    await fleet.place(TINY, ())
    await fleet.pin(TINY, pinned=False)
    assert await fleet.placements() == []
    with pytest.raises(ModelUnknown):
        await fleet.pin(ModelName.parse("none"))
    assert await fleet.pin(ModelName.parse("none"), pinned=False) == Placement()


class Started(FakeWorker):
    """A worker that notes that it was started."""

    started = False

    def start(self) -> None:
        self.started = True


class Team:
    """A muster over fake workers, and what it made and warmed."""

    def __init__(self, catalog: Catalog) -> None:
        self.router = Router()
        self.made: list[Started] = []
        self.warmed: list[ModelName] = []
        self.muster = Muster(catalog, self.router, self._make, self._warm)

    def _make(self, row: Enlisted, changed: Callable[[], None]) -> Started:
        if row.url == "http://bad":
            raise RequestInvalid("bad")
        self.made.append(Started(row.name))
        return self.made[-1]

    async def _warm(self, name: ModelName) -> None:
        self.warmed.append(name)
        if name.model == "broken":
            raise NotFound("gone")

    def names(self) -> list[str]:
        return [worker.name for worker in self.router.workers()]


async def test_rows_become_workers_of_the_router(fleet: Fleet, catalog: Catalog) -> None:
    team = Team(catalog)
    team.router.add(FakeWorker("taken"))
    for name in ("gpu", "taken", "bad"):
        await fleet.add(NewWorker(name, "ollama", f"http://{name}"))
    await team.muster.sync()
    assert team.names() == ["taken", "gpu"]
    assert team.made[0].started
    await fleet.drain("gpu")
    await team.muster.sync()
    assert team.router.is_draining("gpu")
    assert len(team.made) == 1
    await fleet.remove("gpu")
    await fleet.add(NewWorker("gpu", "ollama", "http://elsewhere"))
    await team.muster.sync()
    await team.muster.sync()
    assert [worker.name for worker in team.made] == ["gpu", "gpu"]
    assert not team.router.is_draining("gpu")
    await team.muster.close()
    assert team.names() == ["taken"]
    assert all(worker.closed for worker in team.made)


async def test_what_runs_on_a_removed_worker_goes_on(fleet: Fleet, catalog: Catalog) -> None:
    team = Team(catalog)
    await fleet.add(GPU)
    await team.muster.sync()

    async def use(running: Running) -> AsyncGenerator[int, None]:
        yield 1
        yield 2

    answer = team.router.stream(spec_of(), None, use)
    assert await anext(answer) == 1
    await fleet.remove("gpu")
    await team.muster.sync()
    await asyncio.sleep(0.01)
    assert team.names() == []
    assert not team.made[0].closed
    assert await anext(answer) == 2
    await answer.aclose()
    await team.muster.close()
    assert team.made[0].closed


async def test_pinned_models_are_loaded_where_they_run_nowhere(
    fleet: Fleet, catalog: Catalog
) -> None:
    team = Team(catalog)
    broken = ModelName.parse("broken")
    await catalog.write(lambda tx: put_model(tx, "library/broken", "latest", "broken"))
    for name in (broken, TINY):
        await fleet.pin(name)
    await fleet.add(GPU)
    await team.muster.sync()
    await team.muster.warm_pinned()
    assert team.warmed == [broken, TINY]
    await (await team.made[0].acquire(spec_of("TINY"))).release(None)
    await team.muster.warm_pinned()
    assert team.warmed == [broken, TINY, broken]
    await team.muster.close()


async def test_a_running_server_looks_by_itself(fleet: Fleet, catalog: Catalog) -> None:
    team = Team(catalog)
    await fleet.add(GPU)
    team.muster.start()
    async with asyncio.timeout(5):
        while not team.made:
            await asyncio.sleep(0.01)
    await team.muster.close()
