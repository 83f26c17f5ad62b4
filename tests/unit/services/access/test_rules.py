"""Teams, rules and policies: what is written down holds from the next request on."""

import pytest

from registry.core.access import Caller, Policy, Right, Rule, Visibility, rights_of
from registry.core.errors import AccountUnknown, NameInvalid, NotFound, RequestInvalid
from registry.core.names import RepositoryName
from registry.services.access.accounts import Accounts

pytestmark = pytest.mark.anyio

LLAMA = RepositoryName("team/llama")


async def rights(accounts: Accounts, caller: Caller) -> Right:
    return rights_of(caller, LLAMA, await accounts.policies())


async def test_rules_of_person_team_users_and_everybody_add_up(accounts: Accounts) -> None:
    alice, bob = await accounts.create_user("alice"), await accounts.create_user("bob")

    async def held() -> list[Right]:
        callers = [await accounts.by_credential(f"user:{one.id}") for one in (alice, bob)]
        callers.append(await accounts.anonymous())
        return [await rights(accounts, caller) for caller in callers]

    none = Right.NONE
    assert await held() == [none, none, none]
    await accounts.set_team("core", ["ALICE"])
    await accounts.grant("team:Core", "team/*", Right.WRITE)
    assert await held() == [Right.WRITE, none, none]
    await accounts.grant("user:bob", "team/llama", Right.DELETE)
    users = await accounts.grant("users", "*", Right.READ)
    assert await held() == [Right.WRITE | Right.READ, Right.DELETE | Right.READ, none]
    everybody = await accounts.grant("everybody", "team/*", Right.READ)
    await accounts.revoke(users.id)
    assert await held() == [Right.WRITE | Right.READ, Right.DELETE | Right.READ, Right.READ]
    await accounts.revoke(everybody.id)
    await accounts.set_team("core", ["bob"])
    assert await held() == [none, Right.WRITE | Right.DELETE, none]
    await accounts.delete_team("core")
    assert await held() == [none, Right.DELETE, none]
    assert [one.rule for one in await accounts.grants()] == [Rule("team/llama", Right.DELETE)]


async def test_policies_hold_for_all(accounts: Accounts) -> None:
    anonymous = await accounts.anonymous()
    policy = await accounts.set_policy("Team/*", Visibility.PUBLIC, ["v*"])
    assert policy == Policy("team/*", Visibility.PUBLIC, ("v*",))
    assert await rights(accounts, anonymous) == Right.READ
    await accounts.set_policy("team/llama", Visibility.PRIVATE)
    assert await rights(accounts, anonymous) == Right.NONE
    await accounts.delete_policy("team/LLAMA")
    assert await accounts.policies() == (policy,)
    with pytest.raises(NotFound):
        await accounts.delete_policy("team/llama")


async def test_teams_are_of_accounts_that_are_there(accounts: Accounts) -> None:
    await accounts.create_user("alice")
    await accounts.set_team("core", ["alice", "Alice"])
    for error, name, members in [
        (AccountUnknown, "core", ["alice", "nobody"]),
        (NameInvalid, "core", ["a/b"]),
        (NameInvalid, "c/d", ["alice"]),
    ]:
        with pytest.raises(error):
            await accounts.set_team(name, members)
    assert [(team.name, team.members) for team in await accounts.teams()] == [("core", ("alice",))]
    with pytest.raises(AccountUnknown):
        await accounts.delete_team("other")


@pytest.mark.parametrize(
    ("subject", "pattern", "given"),
    [
        ("alice", "team/*", Right.READ),
        ("users", "te am", Right.READ),
        ("users", "", Right.READ),
        ("users", "*", Right.NONE),
        ("everybody", "*", Right.READ | Right.CREATE_TAG),
    ],
)
async def test_rules_that_cannot_be_are_refused(
    accounts: Accounts, subject: str, pattern: str, given: Right
) -> None:
    with pytest.raises(RequestInvalid):
        await accounts.grant(subject, pattern, given)
    assert await accounts.grants() == []


async def test_rules_are_for_somebody_who_is_there(accounts: Accounts) -> None:
    for subject in ("user:nobody", "team:nobody"):
        with pytest.raises(AccountUnknown):
            await accounts.grant(subject, "*", Right.READ)
    with pytest.raises(NotFound):
        await accounts.revoke(1)


@pytest.mark.parametrize("immutable", [["a b"], ["a/b"], ["v*"] * 21])
async def test_tag_patterns_are_checked(accounts: Accounts, immutable: list[str]) -> None:
    with pytest.raises(RequestInvalid):
        await accounts.set_policy("*", Visibility.PUBLIC, immutable)
