"""Credentials become callers: what each carries, when it ends, what its failure says and costs."""

import asyncio
import time
from dataclasses import replace

import pytest

from registry.core.access import Caller, Group, Right, Scope, Visibility, rights_of
from registry.core.errors import TooOften, Unauthenticated
from registry.core.names import RepositoryName
from registry.ports.catalog import Catalog
from registry.services.access import callers
from registry.services.access.accounts import Accounts
from registry.services.access.callers import credential_of, csrf_of
from registry.services.access.keys import ApiKeyWish
from tests.support.accounts import PASSWORD, Clock, key_blob, new_accounts
from tests.support.catalog_rows import put_blob

pytestmark = pytest.mark.anyio

OWN = RepositoryName("alice/m")


async def test_somebody_who_did_not_sign_in_is_nobody(accounts: Accounts) -> None:
    assert await accounts.anonymous() == Caller()
    assert credential_of(Caller()) == ""


async def test_an_api_key_carries_what_it_was_made_for(accounts: Accounts) -> None:
    alice = await accounts.create_user("alice", PASSWORD)
    scope = Scope("alice/*", Right.READ | Right.DELETE)
    cases = [
        (ApiKeyWish(), Group.INFER | Group.READ | Group.WRITE, Right.ALL),
        (ApiKeyWish(groups=Group.ALL, scopes=(scope,)), Group.ALL, Right.READ | Right.DELETE),
        (ApiKeyWish(groups=Group.READ, scopes=(scope,)), Group.READ, Right.READ),
        (ApiKeyWish(groups=Group.INFER), Group.INFER, Right.READ),
        (ApiKeyWish(scopes=(Scope("b/*", Right.ALL),)), ApiKeyWish().groups, Right.NONE),
    ]
    for wish, groups, rights in cases:
        made = await accounts.create_api_key(alice.id, wish)
        caller = await accounts.by_api_key(made.text)
        assert (caller.account, caller.groups, rights_of(caller, OWN)) == (
            alice.id, groups, rights,
        )  # fmt: skip
        assert await accounts.by_password("Alice", made.text) == caller
        assert credential_of(caller) == f"api:{made.key.id}"
        assert await accounts.by_credential(credential_of(caller)) == caller


@pytest.mark.parametrize(
    ("rights", "groups"),
    [
        (Right.ALL, Group.ALL),
        (Right.READ, Group.INFER | Group.READ),
        (Right.READ | Right.WRITE, Group.INFER | Group.READ | Group.WRITE),
    ],
)
async def test_a_public_key_carries_its_rights(
    accounts: Accounts, rights: Right, groups: Group
) -> None:
    alice = await accounts.create_user("alice", admin=True)
    key = await accounts.add_public_key(alice.id, key_blob(1), rights=rights)
    caller = await accounts.by_public_key(key_blob(1))
    assert (caller.groups, rights_of(caller, OWN)) == (groups, rights)
    assert credential_of(caller) == f"key:{key.fingerprint}"
    assert await accounts.by_credential(credential_of(caller)) == caller


async def test_a_session_lasts_its_time_or_until_it_is_ended(
    accounts: Accounts, clock: Clock
) -> None:
    alice = await accounts.create_user("alice", PASSWORD)
    one, two = [await accounts.sign_in("alice", PASSWORD) for _ in range(2)]
    assert one.session != two.session
    assert one.csrf == csrf_of(one.session) != two.csrf
    assert one.session not in repr(one)
    caller = await accounts.by_session(one.session)
    assert (caller, caller.account) == (one.caller, alice.id)
    assert credential_of(caller) == f"user:{alice.id}"
    await accounts.sign_out(one.session)
    clock.pass_s(43_199)
    assert await accounts.by_session(two.session)
    clock.pass_s(2)
    for over in (one.session, two.session):
        with pytest.raises(Unauthenticated):
            await accounts.by_session(over)


async def test_an_expired_key_says_so(accounts: Accounts, clock: Clock) -> None:
    ci = await accounts.create_machine("ci")
    made = await accounts.create_api_key(ci.id, ApiKeyWish(lifetime_s=60))
    clock.pass_s(59)
    caller = await accounts.by_api_key(made.text)
    clock.pass_s(1)
    for attempt in (
        accounts.by_api_key(made.text),
        accounts.by_credential(credential_of(caller)),
        accounts.by_password("ci", made.text),
    ):
        with pytest.raises(Unauthenticated) as caught:
            await attempt
        assert "expired" in str(caught.value)


async def test_an_api_key_is_no_password_of_another_name_and_no_sign_in(accounts: Accounts) -> None:
    alice = await accounts.create_user("alice", PASSWORD)
    await accounts.create_user("bob", PASSWORD)
    made = await accounts.create_api_key(alice.id, ApiKeyWish())
    for attempt in (accounts.by_password("bob", made.text), accounts.sign_in("alice", made.text)):
        with pytest.raises(Unauthenticated):
            await attempt


HOSTILE = ["", "hf_", "hf_" + "a" * 40, "\ud800" * 43, "a" * 43, "x" * 9999]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_credentials_are_refused_in_a_sentence(accounts: Accounts, text: str) -> None:
    await accounts.create_user("alice", PASSWORD)
    for attempt in (
        accounts.by_api_key(text),
        accounts.by_session(text),
        accounts.by_credential(text),
        accounts.by_credential(f"api:{text}"),
        accounts.by_credential(f"key:{text}"),
        accounts.by_credential(f"user:{text}"),
        accounts.by_password(text, PASSWORD),
        accounts.by_password("alice", text),
    ):
        with pytest.raises(Unauthenticated) as caught:
            await attempt
        said = str(caught.value)
        assert "\n" not in said
        assert not text or text not in said
        assert "unauthorized" not in said.lower()  # the ollama client swallows such texts
        assert "access denied" not in said.lower()


async def test_wrong_and_unknown_look_alike(accounts: Accounts) -> None:
    await accounts.create_user("alice", PASSWORD)
    await accounts.create_user("keys-only")
    disabled = await accounts.create_user("gone", PASSWORD)
    await accounts.set_disabled(disabled.id)
    said = set()
    for name, password in [("alice", "wrong"), ("nobody", PASSWORD), ("keys-only", PASSWORD)] + [
        ("gone", PASSWORD), ("gone", "wrong"), ("no/name", PASSWORD), ("", ""),
    ]:  # fmt: skip
        with pytest.raises(Unauthenticated) as caught:
            await accounts.by_password(name, password)
        said.add(str(caught.value))
    assert len(said) == 1


async def test_wrong_and_unknown_take_as_long(accounts_catalog: Catalog, clock: Clock) -> None:
    accounts = new_accounts(accounts_catalog, clock, time_cost=1500)  # some milliseconds
    await accounts.create_user("alice", PASSWORD)
    clock_s = {}
    for name in ("alice", "nobody", "no/name") * 4:  # the first round warms up
        clock.pass_s(60)
        began = time.perf_counter()
        with pytest.raises(Unauthenticated):
            await accounts.by_password(name, "wrong password")
        clock_s[name] = time.perf_counter() - began
    assert max(clock_s.values()) < 5 * min(clock_s.values())


async def test_failures_are_counted_by_name_and_address(accounts: Accounts, clock: Clock) -> None:
    for name in ("alice", "bob"):
        await accounts.create_user(name, PASSWORD)
    await accounts.by_password("alice", PASSWORD, "192.0.2.9")  # known to fit from now on
    for number in range(10):
        with pytest.raises(Unauthenticated):
            await accounts.by_password("alice", "wrong", f"192.0.2.{number}")
    with pytest.raises(TooOften) as caught:
        await accounts.by_password("alice", "wrong again", "198.51.100.1")
    assert 0 < caught.value.retry_after_s <= 61
    assert await accounts.by_password("alice", PASSWORD, "198.51.100.1")
    for number in range(10):
        with pytest.raises(Unauthenticated):
            await accounts.by_password(f"n{number}", "wrong", "203.0.113.1")
    with pytest.raises(TooOften):
        await accounts.by_password("bob", PASSWORD, "203.0.113.1")
    assert await accounts.by_password("bob", PASSWORD, "203.0.113.2")
    clock.pass_s(61)
    with pytest.raises(Unauthenticated):
        await accounts.by_password("alice", "wrong", "203.0.113.1")


async def test_many_guesses_at_once_do_not_slip_through(accounts: Accounts) -> None:
    await accounts.create_user("alice", PASSWORD)
    outcomes = await asyncio.gather(
        *(accounts.by_password("alice", f"guess {n}", "192.0.2.1") for n in range(30)),
        return_exceptions=True,
    )
    assert [type(one) for one in outcomes].count(Unauthenticated) == 10


async def test_many_connections_with_the_same_password_are_one_check(accounts: Accounts) -> None:
    alice = await accounts.create_user("alice", PASSWORD)
    found = await asyncio.gather(
        *(accounts.by_password("alice", PASSWORD, "192.0.2.1") for _ in range(30))
    )
    assert {caller.account for caller in found} == {alice.id}
    outcomes = await asyncio.gather(
        *(accounts.by_password("alice", "wrong", "192.0.2.1") for _ in range(30)),
        return_exceptions=True,
    )
    assert [type(one) for one in outcomes] == [Unauthenticated] * 10 + [TooOften] * 20


async def test_successes_do_not_count(accounts: Accounts) -> None:
    for number in range(30):
        await accounts.create_user(f"user{number}", PASSWORD)
        assert await accounts.by_password(f"user{number}", PASSWORD, "192.0.2.1")


async def test_a_password_is_hashed_again_when_the_parameters_change(
    accounts: Accounts, accounts_catalog: Catalog, clock: Clock
) -> None:
    alice = await accounts.create_user("alice", PASSWORD)
    stricter = new_accounts(accounts_catalog, clock, time_cost=2)
    await stricter.by_password("alice", PASSWORD)
    now = await accounts.account(alice.id)
    assert now.password_hash != alice.password_hash
    assert ",t=2," in now.password_hash
    await stricter.by_password("alice", PASSWORD)
    assert (await accounts.account(alice.id)).password_hash == now.password_hash
    await stricter.close()


async def test_what_is_kept_is_bounded(
    accounts: Accounts, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "_KEPT", 3)
    ci = await accounts.create_machine("ci")
    made = [await accounts.create_api_key(ci.id, ApiKeyWish()) for _ in range(9)]
    for one in made * 2:
        assert (await accounts.by_api_key(one.text)).account == ci.id
    assert len(accounts._kept) <= 3
    assert len(accounts._marked) <= 4


async def test_last_use_is_written_once_a_minute_and_at_the_end(
    accounts: Accounts, accounts_catalog: Catalog, clock: Clock
) -> None:
    ci = await accounts.create_machine("ci")
    made = await accounts.create_api_key(ci.id, ApiKeyWish())
    key = await accounts.add_public_key(ci.id, key_blob(1))
    first = clock.now
    for _ in range(100):
        await accounts.by_api_key(made.text)
        await accounts.by_public_key(key_blob(1))
    for _ in range(100):
        (found,) = await accounts.api_keys(ci.id)
        if found.used_at:
            break
        await asyncio.sleep(0.01)
    assert found.used_at == first
    clock.pass_s(30)
    before = accounts_catalog.version()
    for _ in range(100):
        await accounts.by_api_key(made.text)
    assert accounts_catalog.version() == before
    clock.pass_s(31)
    await accounts.by_api_key(made.text)
    await accounts.close()
    (found,) = await accounts.api_keys(ci.id)
    assert found.used_at == clock.now
    assert await accounts.public_keys(ci.id) == [replace(key, used_at=first)]


async def test_what_is_known_costs_no_query_and_other_writes_do_not_undo_it(
    accounts: Accounts, accounts_catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    ci = await accounts.create_machine("ci")
    made = await accounts.create_api_key(ci.id, ApiKeyWish())
    caller = await accounts.by_api_key(made.text)
    await accounts._uses.flush()
    await accounts.by_api_key(made.text)
    reads = 0
    read = accounts_catalog.read

    async def counted(work):  # type: ignore[no-untyped-def]
        nonlocal reads
        reads += 1
        return await read(work)

    monkeypatch.setattr(accounts_catalog, "read", counted)
    for _ in range(50):
        assert await accounts.by_api_key(made.text) is caller
    assert reads == 0
    await accounts_catalog.write(lambda tx: put_blob(tx, "w"))
    for _ in range(50):
        assert await accounts.by_api_key(made.text) is caller
    assert reads == 1


async def test_policies_are_read_again_only_when_one_changed(
    accounts: Accounts, accounts_catalog: Catalog, clock: Clock
) -> None:
    await accounts.set_policy("a/*", Visibility.PUBLIC, ())
    first = await accounts.policies()
    await accounts.create_user("alice", PASSWORD)
    assert await accounts.policies() is first
    other = new_accounts(accounts_catalog, clock)
    await other.set_policy("b/*", Visibility.INTERNAL, ())
    found = await asyncio.gather(*(accounts.policies() for _ in range(5)))
    assert {id(one) for one in found} == {id(found[0])}
    assert [policy.pattern for policy in found[0]] == ["a/*", "b/*"]
    await accounts.delete_policy("a/*")
    assert [policy.pattern for policy in await accounts.policies()] == ["b/*"]
    await other.close()
