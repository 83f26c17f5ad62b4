"""What every catalog does with workers, placements and usage."""

from dataclasses import replace

from registry.core.names import ModelName
from registry.core.placement import Placement
from registry.ports.catalog import Catalog
from registry.ports.fleet import Enlisted, Replica, Usage

WORKER = Enlisted(
    name="gpu",
    kind="ollama",
    url="http://gpu:11434",
    created_at=1,
    labels=frozenset({"gpu", "big"}),
    models={"registry.ollama.ai/library/a:1": "a"},
    slots=4,
    key="s3cret",
)
HOUR = 3_600 * 10**9


class FleetContract:
    async def test_a_worker_comes_back_as_it_was_put(self, catalog: Catalog) -> None:
        await catalog.write(lambda tx: tx.put_worker(replace(WORKER, name="b")))
        await catalog.write(lambda tx: tx.put_worker(replace(WORKER, slots=1)))
        await catalog.write(lambda tx: tx.put_worker(replace(WORKER, drained=True)))
        found = await catalog.read(lambda tx: tx.workers())
        assert found == [replace(WORKER, name="b"), replace(WORKER, drained=True)]
        assert "s3cret" not in repr(found)
        assert await catalog.write(lambda tx: tx.delete_worker("gpu"))
        assert not await catalog.write(lambda tx: tx.delete_worker("gpu"))
        assert [item.name for item in await catalog.read(lambda tx: tx.workers())] == ["b"]

    async def test_workers_are_drained_by_name(self, catalog: Catalog) -> None:
        assert await catalog.read(lambda tx: tx.drained()) == frozenset()
        for name in ("local", "gpu", "gpu"):
            await catalog.write(lambda tx, name=name: tx.drain(name, drained=True))  # type: ignore[misc]  # mypy sees no default
        assert await catalog.read(lambda tx: tx.drained()) == {"local", "gpu"}
        for name in ("gpu", "unknown"):
            await catalog.write(lambda tx, name=name: tx.drain(name, drained=False))  # type: ignore[misc]  # mypy sees no default
        assert await catalog.read(lambda tx: tx.drained()) == {"local"}

    async def test_a_replica_is_as_it_last_said(self, catalog: Catalog) -> None:
        one, two = Replica("a", "http://a", 1, 5, "[]"), Replica("b", "", 1 << 40, 1 << 62, "[1]")
        await catalog.write(lambda tx: tx.put_replica(two))
        await catalog.write(lambda tx: tx.put_replica(replace(one, beat=0, workers="")))
        await catalog.write(lambda tx: tx.put_replica(one))
        assert await catalog.read(lambda tx: tx.replicas()) == [one, two]
        await catalog.write(lambda tx: tx.delete_replica("a"))
        await catalog.write(lambda tx: tx.delete_replica("a"))
        assert await catalog.read(lambda tx: tx.replicas()) == [two]

    async def test_a_placement_is_of_a_model_in_any_case(self, catalog: Catalog) -> None:
        name, other = ModelName.parse("Team/Llama:8B"), ModelName.parse("team/llama:8b")
        await catalog.write(lambda tx: tx.put_placement(name, Placement(frozenset({"gpu"}))))
        await catalog.write(lambda tx: tx.put_placement(other, Placement(pinned=True)))
        assert await catalog.read(lambda tx: tx.placements()) == [(other, Placement(pinned=True))]
        await catalog.write(lambda tx: tx.put_placement(name, Placement()))
        assert await catalog.read(lambda tx: tx.placements()) == []

    async def test_usage_of_the_same_kind_adds_up(self, catalog: Catalog) -> None:
        one = Usage(HOUR, "ann", "a:1", "gpu", 1, 10, 20, 1 << 40)
        rows = [one, replace(one, tokens=5), replace(one, account="bob"), replace(one, hour=0)]
        await catalog.write(lambda tx: tx.add_usage(rows))
        await catalog.write(lambda tx: tx.add_usage([]))
        await catalog.write(lambda tx: tx.add_usage([one]))
        found = await catalog.read(lambda tx: tx.usage(0, 2 * HOUR, 10))
        assert found == [
            Usage(HOUR, "ann", "a:1", "gpu", 3, 30, 45, 3 << 40),
            replace(one, account="bob"),
            replace(one, hour=0),
        ]
        assert len(await catalog.read(lambda tx: tx.usage(HOUR, 2 * HOUR, 1))) == 1
        assert await catalog.read(lambda tx: tx.usage(0, HOUR, 10)) == [replace(one, hour=0)]
        assert await catalog.write(lambda tx: tx.trim_usage(HOUR)) == 1
        assert await catalog.read(lambda tx: tx.usage(0, HOUR, 10)) == []
