"""Retention: which tags of a repository may go, by the rule that covers it and a given `now`.

A rule says what is kept; a tag that nothing keeps goes. Of the rules that cover a repository the
one with the longest pattern holds, alone, as with policies.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from registry.core.access import check_pattern, matches
from registry.core.errors import RequestInvalid
from registry.core.names import RepositoryName

_NS = 10**9
_TAG_PATTERNS = 20
_MOST = 10**9


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """What is kept of the repositories that `pattern` covers; at least one of the three is said.

    `keep_last`: so many tags, those that were moved last. `keep_s`: tags that were moved in the
    last so many seconds. `keep_tags`: tags that match one of these patterns (`*` is a wildcard).
    """

    pattern: str
    keep_last: int = 0
    keep_s: int = 0
    keep_tags: tuple[str, ...] = ()

    def checked(self) -> Self:
        """The rule with its patterns in lower case.

        Raises:
            RequestInvalid: a pattern or number that cannot be; or it would keep nothing at all.
        """
        pattern = check_pattern(self.pattern)
        if not (self.keep_last or self.keep_s or self.keep_tags):
            raise RequestInvalid("a rule that keeps nothing would delete every tag")
        if not (0 <= self.keep_last <= _MOST and 0 <= self.keep_s <= _MOST):
            raise RequestInvalid("a number of tags or seconds is out of range")
        if len(self.keep_tags) > _TAG_PATTERNS:
            raise RequestInvalid(f"a rule can have up to {_TAG_PATTERNS} patterns of tags")
        for tag in self.keep_tags:
            if "/" in check_pattern(tag):
                raise RequestInvalid(f"invalid tag pattern: {tag[:100]!r}")
        return replace(self, pattern=pattern)


@dataclass(frozen=True, slots=True)
class TagAge:
    """A tag and when it was last moved, nanoseconds since the epoch."""

    name: str
    updated_at: int


def rule_of(name: RepositoryName, rules: Iterable[RetentionRule]) -> RetentionRule | None:
    """The rule that holds for a repository, if any covers it."""
    found = [rule for rule in rules if matches(rule.pattern, name)]
    return max(found, key=lambda rule: (len(rule.pattern), rule.pattern), default=None)


def outlived(rule: RetentionRule, tags: Sequence[TagAge], now: int) -> list[str]:
    """The tags that the rule does not keep, oldest first."""
    newest_first = sorted(tags, key=lambda tag: (-tag.updated_at, tag.name))
    rest = newest_first[rule.keep_last :]
    since = now - rule.keep_s * _NS
    wanted = [_wildcards(pattern) for pattern in rule.keep_tags]
    return [
        tag.name
        for tag in reversed(rest)
        if not (rule.keep_s and tag.updated_at > since)
        and not any(pattern.fullmatch(tag.name) for pattern in wanted)
    ]


def _wildcards(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.IGNORECASE)
