"""Rights over many policies, and what may happen to tags."""

import pytest

from registry.core.access import Caller, Policy, Right, Rule, Scope, Visibility
from registry.core.digest import Digest
from registry.core.errors import Denied, TagImmutable
from registry.core.names import RepositoryName
from registry.services.access.rights import ANY, FREE, Permit, Policies, TagGuard

pytestmark = pytest.mark.anyio

NAME = RepositoryName.parse("Team/llama")
OTHER = RepositoryName.parse("other/llama")
OLD, NEW = Digest.of(b"old"), Digest.of(b"new")
ALICE = Caller(1, "alice", rules=(Rule("team/*", Right.READ),))
POLICIES = Policies.of(
    [
        Policy("*", Visibility.INTERNAL),
        Policy("team/*", Visibility.PRIVATE, ("v*",)),
        Policy("team/llama", Visibility.PUBLIC),
        *(Policy(f"team/m{number}", Visibility.PUBLIC) for number in range(1000)),
    ]
)


@pytest.mark.parametrize(
    ("caller", "name", "rights"),
    [
        (Caller(), "team/llama", Right.READ),
        (Caller(), "team/m999", Right.READ),
        (Caller(), "team/x", Right.NONE),
        (Caller(), "other/x", Right.NONE),
        (Caller(2, "bob"), "other/x", Right.READ),
        (Caller(2, "bob"), "team/x", Right.NONE),
        (ALICE, "team/x", Right.READ),
        (Caller(3, "root", is_admin=True), "team/x", Right.ALL),
    ],
)
def test_the_policy_of_a_repository_is_found_among_many(
    caller: Caller, name: str, rights: Right
) -> None:
    for _ in range(2):
        assert POLICIES.rights(caller, RepositoryName.parse(name)) == rights
    assert len(POLICIES.about(RepositoryName.parse(name))) <= 3


def test_two_callers_that_are_equal_are_each_asked_for() -> None:
    policies = Policies.of([])
    for number in range(1100):  # more than are remembered
        caller = Caller(number, "x", rules=(Rule("team/*", Right.READ),))
        assert policies.rights(caller, NAME) == Right.READ
        assert policies.rights(caller, OTHER) == Right.NONE


@pytest.mark.parametrize(
    ("caller", "everything"),
    [
        (Caller(1, is_admin=True), True),
        (Caller(1, rules=(Rule("*", Right.READ),)), True),
        (Caller(1, rules=(Rule("*", Right.DELETE),)), False),
        (ALICE, False),
        (Caller(1, is_admin=True, scopes=(Scope("team/*", Right.ALL),)), False),
        (Caller(1, is_admin=True, scopes=(Scope("*", Right.READ),)), True),
    ],
)
def test_who_reads_everything_needs_no_filter(caller: Caller, everything: bool) -> None:
    readable = Policies.of([]).reader(caller)
    assert (readable is None) is everything
    if readable is not None:
        assert readable(NAME) is (caller.scopes is not None or caller is ALICE)
        assert not readable(OTHER)


@pytest.mark.parametrize(
    ("rights", "tag", "old", "error"),
    [
        (Right.CREATE_TAG, "x", None, None),
        (Right.MOVE_TAG, "x", None, Denied),
        (Right.CREATE_TAG, "x", OLD, Denied),
        (Right.MOVE_TAG, "x", OLD, None),
        (Right.READ, "x", NEW, None),  # a repeated put moves nothing
        (Right.ALL, "v1", OLD, TagImmutable),
        (Right.ALL, "V1", OLD, TagImmutable),
        (Right.ALL, "v1", NEW, None),
        (Right.ALL, "v1", None, None),
    ],
)
def test_putting_a_tag(
    rights: Right, tag: str, old: Digest | None, error: type[Exception] | None
) -> None:
    guard = Policies.of([Policy("team/*", immutable=("v*",))]).guard(rights, NAME)
    if error is None:
        guard.put(tag, old, NEW)
    else:
        with pytest.raises(error):
            guard.put(tag, old, NEW)


def test_deleting_a_tag() -> None:
    policy = Policy("*", immutable=("v*",))
    with pytest.raises(Denied):
        TagGuard(Right.READ, policy).delete("x")
    TagGuard(Right.DELETE, policy).delete("x")
    with pytest.raises(TagImmutable):
        TagGuard(Right.DELETE, policy).delete("v1")
    TagGuard(Right.DELETE | Right.MANAGE, policy).delete("v1")
    FREE.delete("v1")
    FREE.put("v1", OLD, NEW)


async def test_a_permit_without_a_limit_allows_every_blob() -> None:
    async def never(_: Digest) -> bool:
        return False

    assert await ANY.allows(OLD)
    assert not await Permit(FREE, never).allows(OLD)
