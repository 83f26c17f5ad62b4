"""Which tags a rule keeps, which rule covers a repository, which rules can be."""

import pytest

from registry.core.errors import RequestInvalid
from registry.core.names import RepositoryName
from registry.core.retention import RetentionRule, TagAge, outlived, rule_of

NOW = 1000 * 10**9
AGES_S = {"v1": 500, "v2": 400, "latest": 450, "v3": 300, "Nightly-1": 5, "v4": 5}
TAGS = [TagAge(name, (1000 - age_s) * 10**9) for name, age_s in AGES_S.items()]


@pytest.mark.parametrize(
    ("rule", "gone"),
    [
        (RetentionRule("*", keep_last=6), []),
        (RetentionRule("*", keep_last=100), []),
        (RetentionRule("*", keep_last=3), ["v1", "latest", "v2"]),
        (RetentionRule("*", keep_last=1), ["v1", "latest", "v2", "v3", "v4"]),
        (RetentionRule("*", keep_s=350), ["v1", "latest", "v2"]),
        (RetentionRule("*", keep_s=300), ["v1", "latest", "v2", "v3"]),
        (RetentionRule("*", keep_tags=("v*",)), ["latest", "Nightly-1"]),
        (RetentionRule("*", keep_tags=("LATEST", "nightly-*")), ["v1", "v2", "v3", "v4"]),
        (RetentionRule("*", keep_tags=("*3", "v?")), ["v1", "latest", "v2", "v4", "Nightly-1"]),
        (RetentionRule("*", 2, 350, ("latest",)), ["v1", "v2"]),
    ],
)
def test_what_nothing_keeps_goes_oldest_first(rule: RetentionRule, gone: list[str]) -> None:
    assert outlived(rule, TAGS, NOW) == gone


def test_the_longest_pattern_holds_alone() -> None:
    rules = [RetentionRule("*", 1), RetentionRule("team/*", 2), RetentionRule("team/llama", 3)]
    for path, keep in (("team/Llama", 3), ("team/other", 2), ("a/b", 1)):
        rule = rule_of(RepositoryName(path), rules)
        assert rule is not None
        assert rule.keep_last == keep
    assert rule_of(RepositoryName("a/b"), rules[1:]) is None


@pytest.mark.parametrize(
    "rule",
    [
        RetentionRule("*"),
        RetentionRule("", 1),
        RetentionRule("a b", 1),
        RetentionRule("*", -1),
        RetentionRule("*", keep_s=10**10),
        RetentionRule("*", keep_tags=("a/b",)),
        RetentionRule("*", keep_tags=("",)),
        RetentionRule("*", keep_tags=("v*",) * 21),
    ],
)
def test_rules_that_cannot_be_are_refused(rule: RetentionRule) -> None:
    with pytest.raises(RequestInvalid):
        rule.checked()


def test_patterns_are_compared_in_lower_case() -> None:
    assert RetentionRule("Team/*", 1).checked() == RetentionRule("team/*", 1)
