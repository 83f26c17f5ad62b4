"""Retention: what goes by the rules, and what stays whatever they say."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.access import Policy
from registry.core.errors import NotFound, RequestInvalid
from registry.core.names import ModelName
from registry.core.placement import Placement
from registry.core.retention import RetentionRule
from registry.services.library.history import History
from registry.services.upkeep.retention import RetentionRules
from registry.settings import Retention
from tests.support.library import DAY_NS, Library, library

pytestmark = pytest.mark.anyio
TAGS = ("v1", "v2", "v3", "latest")


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data", Retention(undelete_s=1000)) as made:
        for tag in TAGS:
            await made.base(f"team/m:{tag}")
            made.clock.now += DAY_NS
        await made.base("other:v1")
        yield made


async def left(lib: Library) -> set[str]:
    return {model.tag.model.short for model in await lib.catalog.scan(lambda tx: tx.models())}


async def dry(rules: RetentionRules) -> list[str]:
    return [victim.name.short async for victim in rules.victims()]


async def test_without_a_rule_nothing_goes(lib: Library) -> None:
    assert await dry(RetentionRules(lib.manifests)) == []


async def test_the_dry_run_tells_what_then_goes(lib: Library) -> None:
    rules = RetentionRules(lib.manifests)
    await rules.set_rule(RetentionRule("Team/*", keep_last=1, keep_tags=("v2",)))
    assert await dry(rules) == ["team/m:v1", "team/m:v3"]
    assert len(await left(lib)) == 5
    gone = [victim.name.short async for victim in rules.deleting()]
    assert gone == ["team/m:v1", "team/m:v3"]
    assert await left(lib) == {"team/m:v2", "team/m:latest", "other:v1"}
    assert await dry(rules) == []


async def test_what_went_can_be_brought_back(lib: Library) -> None:
    rules = RetentionRules(lib.manifests)
    await rules.set_rule(RetentionRule("team/*", keep_s=86_400))
    await rules.run()
    name = ModelName.parse("team/m:v1")
    history = History(lib.manifests)
    assert (await history.of(name))[0].who == "retention"
    await history.restore(name)
    assert "team/m:v1" in await left(lib)


async def test_what_is_pinned_leased_or_immutable_stays(lib: Library) -> None:
    rules = RetentionRules(lib.manifests)
    await rules.set_rule(RetentionRule("*", keep_tags=("nothing",)))

    def hold(tx):  # type: ignore[no-untyped-def]
        tx.put_placement(ModelName.parse("team/m:v1"), Placement(pinned=True))
        tx.put_policy(Policy("team/*", immutable=("v2",)))

    await lib.catalog.write(hold)
    await lib.make("other:v1", origin="other:v1", parameters={"seed": 1})
    held = await lib.catalog.read(lambda tx: tx.find_model(ModelName.parse("other:v1")))
    assert held is not None
    manifest = await lib.catalog.read(lambda tx: tx.manifest(held.digest))
    assert manifest is not None
    await lib.catalog.write(
        lambda tx: tx.lease([r.digest for r in manifest.references][-1:], "somebody", 1 << 62)
    )
    await rules.run()
    assert await left(lib) == {"team/m:v1", "team/m:v2", "other:v1"}


async def test_a_tag_that_is_moved_meanwhile_stays(lib: Library) -> None:
    rules = RetentionRules(lib.manifests)
    await rules.set_rule(RetentionRule("team/*", keep_last=3))
    async for victim in rules.victims():
        await lib.base(victim.name.short)
        assert not await rules._delete(victim)
    assert "team/m:v1" in await left(lib)


async def test_rules_come_and_go(lib: Library) -> None:
    rules = RetentionRules(lib.manifests)
    made = await rules.set_rule(RetentionRule("A/*", 1))
    assert await rules.rules() == [made] == [RetentionRule("a/*", 1)]
    await rules.delete_rule("A/*")
    with pytest.raises(NotFound):
        await rules.delete_rule("a/*")
    with pytest.raises(RequestInvalid):
        await rules.set_rule(RetentionRule("a/*"))
