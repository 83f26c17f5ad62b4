"""Retention: deletes tags that no rule keeps, once a day and when asked; says before what it would.

The rules are `core/retention.py`'s. Whatever they say, a tag stays that is pinned to stay loaded,
that a policy makes immutable, or whose blobs somebody works with. What is deleted can be brought
back like anything that is deleted: see `services/library/history.py`.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from registry.core.access import Policy, is_immutable, policy_of
from registry.core.errors import NotFound
from registry.core.names import ModelName, RepositoryName
from registry.core.retention import RetentionRule, TagAge, outlived, rule_of
from registry.ports.catalog import Freed, Reader, Transaction
from registry.ports.upkeep import KeptTag
from registry.services.library.manifests import Manifests

WHO = "retention"
_PAGE = 200

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Outlived:
    """A tag that no rule keeps, the rule that covers it, and when the tag was last moved."""

    name: ModelName
    rule: RetentionRule
    updated_at: int


@dataclass(frozen=True, slots=True)
class _Measure:
    """What decides, as of one moment."""

    rules: tuple[RetentionRule, ...]
    policies: tuple[Policy, ...]
    pinned: frozenset[str]

    @classmethod
    def of(cls, tx: Reader) -> "_Measure":
        pinned = (str(name).lower() for name, item in tx.placements() if item.pinned)
        return cls(tuple(tx.retention_rules()), tuple(tx.policies()), frozenset(pinned))

    def holds(self, name: ModelName, tag: KeptTag) -> bool:
        """Whether the tag stays whatever the rules say."""
        policy = policy_of(name.repository, self.policies)
        return tag.held or str(name).lower() in self.pinned or is_immutable(tag.name, policy)


class RetentionRules:
    """The use case. `clock` is that of the manifests."""

    def __init__(self, manifests: Manifests) -> None:
        self._manifests = manifests
        self._catalog = manifests.catalog
        self._clock = manifests.clock

    async def rules(self) -> list[RetentionRule]:
        """All rules, by pattern."""
        return await self._catalog.scan(lambda tx: tx.retention_rules())

    async def set_rule(self, rule: RetentionRule) -> RetentionRule:
        """Add a rule, or overwrite the one of the same pattern.

        Raises:
            RequestInvalid: it cannot be.
        """
        rule = rule.checked()
        await self._catalog.write(lambda tx: tx.put_retention_rule(rule))
        return rule

    async def delete_rule(self, pattern: str) -> None:
        """Remove a rule.

        Raises:
            NotFound: there is none for that pattern.
        """
        if not await self._catalog.write(lambda tx: tx.delete_retention_rule(pattern.lower())):
            raise NotFound(f"there is no retention rule for {pattern[:100]!r}")

    async def run(self) -> None:
        """Delete what no rule keeps."""
        async with aclosing(self.deleting()) as victims:
            async for victim in victims:
                log.info("a tag outlived its rule", model=victim.name.short)

    async def victims(self) -> AsyncGenerator[Outlived, None]:
        """What `deleting` would delete now."""
        measure = await self._catalog.scan(_Measure.of)
        after = ""
        while measure.rules:
            names = await self._catalog.scan(lambda tx, after=after: tx.repositories(after, _PAGE))  # type: ignore[misc]
            for name in names:
                rule = rule_of(name, measure.rules)
                if rule is not None:
                    for victim in await self._outlived(name, rule, measure):
                        yield victim
            if len(names) < _PAGE:
                return
            after = names[-1].key

    async def _outlived(
        self, name: RepositoryName, rule: RetentionRule, measure: _Measure
    ) -> list[Outlived]:
        now = self._clock()

        def work(tx: Reader) -> list[KeptTag]:
            repository = tx.repository(name)
            return tx.kept_tags(repository.id, now) if repository else []

        tags = {tag.name: tag for tag in await self._catalog.scan(work)}
        ages = [TagAge(tag.name, tag.updated_at) for tag in tags.values()]
        return [
            Outlived(model, rule, tags[tag].updated_at)
            for tag in outlived(rule, ages, now)
            if not measure.holds(model := name.model_name(tag), tags[tag])
        ]

    async def deleting(self) -> AsyncGenerator[Outlived, None]:
        """Delete what no rule keeps, telling of each tag once it is gone."""
        async with aclosing(self.victims()) as victims:
            async for victim in victims:
                if await self._delete(victim):
                    yield victim

    async def _delete(self, victim: Outlived) -> bool:
        """Delete a tag unless it was moved, pinned or leased since it was looked at."""
        now = self._clock()

        def work(tx: Transaction) -> tuple[bool, list[Freed]]:
            repository = tx.repository(victim.name.repository)
            tag = tx.tag(repository.id, victim.name.tag) if repository else None
            if repository is None or tag is None or tag.updated_at != victim.updated_at:
                return False, []
            measure = _Measure.of(tx)
            kept = next(t for t in tx.kept_tags(repository.id, now) if t.name == tag.name)
            if victim.rule not in measure.rules or measure.holds(victim.name, kept):
                return False, []
            tx.delete_tag(repository.id, tag.name, WHO)
            return True, self._manifests.drop(tx, repository.id, tag.digest)

        gone, freed = await self._catalog.write(work)
        if gone:
            await self._manifests.housekeeping.settle(freed)
        return gone
