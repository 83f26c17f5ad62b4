"""Users and machines made, changed and removed; the first administrator."""

import asyncio

import pytest

from registry.core.errors import (
    AccountUnknown,
    Conflict,
    NameInvalid,
    NotFound,
    RequestInvalid,
    Unauthenticated,
)
from registry.ports.catalog import Catalog
from registry.services.access.accounts import Accounts
from registry.settings import Settings
from tests.support.accounts import PASSWORD, Clock, cheap_passwords, new_accounts

pytestmark = pytest.mark.anyio


async def test_a_user_comes_in_with_the_password_they_were_given(accounts: Accounts) -> None:
    alice = await accounts.create_user("Alice", PASSWORD)
    caller = await accounts.by_password("alice", PASSWORD)
    assert (caller.account, caller.name, caller.is_admin) == (alice.id, "Alice", False)
    assert caller.own == ("alice",)
    assert (await accounts.named("ALICE")).id == alice.id
    assert [one.name for one in await accounts.accounts()] == ["Alice"]


@pytest.mark.parametrize("kind", ["robot", "node"])
async def test_machines_have_no_password_and_no_namespace(accounts: Accounts, kind: str) -> None:
    made = await accounts.create_machine("ci", kind)
    assert made.kind == kind
    assert (await accounts.by_credential(f"user:{made.id}")).own == ()
    with pytest.raises(RequestInvalid):
        await accounts.set_password(made.id, PASSWORD)
    with pytest.raises(RequestInvalid):
        await accounts.set_admin(made.id)
    with pytest.raises(Unauthenticated):
        await accounts.by_password("ci", PASSWORD)


@pytest.mark.parametrize("kind", ["user", "admin", ""])
async def test_other_kinds_of_machine_are_refused(accounts: Accounts, kind: str) -> None:
    with pytest.raises(RequestInvalid):
        await accounts.create_machine("ci", kind)


async def test_what_cannot_be_a_user_is_refused(accounts: Accounts) -> None:
    await accounts.create_user("alice")
    for error, name, password in [
        (Conflict, "ALICE", None),
        (NameInvalid, "library", None),
        (NameInvalid, "a/b", None),
        (RequestInvalid, "bob", "short"),
    ]:
        with pytest.raises(error):
            await accounts.create_user(name, password)
    for name in ("bob", "9"):
        with pytest.raises(AccountUnknown):
            await accounts.named(name)
    with pytest.raises(AccountUnknown):
        await accounts.account(99)


async def test_a_new_password_ends_the_old_one_and_the_sessions(accounts: Accounts) -> None:
    alice = await accounts.create_user("alice", PASSWORD)
    signed_in = await accounts.sign_in("alice", PASSWORD)
    await accounts.set_password(alice.id, "another password")
    for attempt in (
        accounts.by_password("alice", PASSWORD),
        accounts.by_session(signed_in.session),
    ):
        with pytest.raises(Unauthenticated):
            await attempt
    assert (await accounts.by_password("alice", "another password")).account == alice.id
    with pytest.raises(AccountUnknown):
        await accounts.set_password(99, PASSWORD)


async def test_a_disabled_account_is_out_until_it_is_enabled(accounts: Accounts) -> None:
    alice = await accounts.create_user("alice", PASSWORD)
    await accounts.by_password("alice", PASSWORD)
    signed_in = await accounts.sign_in("alice", PASSWORD)
    await accounts.set_disabled(alice.id)
    for attempt in (
        accounts.by_password("alice", PASSWORD),
        accounts.by_session(signed_in.session),
        accounts.by_credential(f"user:{alice.id}"),
    ):
        with pytest.raises(Unauthenticated):
            await attempt
    await accounts.set_disabled(alice.id, False)
    assert (await accounts.by_password("alice", PASSWORD)).account == alice.id
    with pytest.raises(Unauthenticated):
        await accounts.by_session(signed_in.session)


async def test_the_last_administrator_stays(accounts: Accounts) -> None:
    root = await accounts.create_user("root", PASSWORD, admin=True)
    other = await accounts.create_user("other", PASSWORD, admin=True)
    await accounts.set_disabled(other.id)
    for change in (
        accounts.set_disabled(root.id),
        accounts.set_admin(root.id, False),
        accounts.delete_account(root.id),
    ):
        with pytest.raises(Conflict):
            await change
    await accounts.set_disabled(other.id, False)
    await accounts.delete_account(root.id)
    assert [one.name for one in await accounts.accounts()] == ["other"]
    await accounts.create_user("third")
    third = await accounts.named("third")
    assert (await accounts.set_admin(third.id)).is_admin
    assert not (await accounts.set_admin(other.id, False)).is_admin


async def test_a_deleted_account_is_out_at_once(accounts: Accounts) -> None:
    alice = await accounts.create_user("alice", PASSWORD)
    await accounts.by_password("alice", PASSWORD)
    await accounts.delete_account(alice.id)
    for attempt in (
        accounts.by_password("alice", PASSWORD),
        accounts.by_credential(f"user:{alice.id}"),
    ):
        with pytest.raises(Unauthenticated):
            await attempt
    with pytest.raises(AccountUnknown):
        await accounts.delete_account(alice.id)


async def test_the_set_up_code_makes_one_administrator(accounts: Accounts) -> None:
    code, second = await accounts.ensure_setup_code(), await accounts.ensure_setup_code()
    assert code is not None and second is not None
    assert not await accounts.has_admin()
    root = await accounts.complete_setup(code.lower(), "root", PASSWORD)
    assert root.is_admin
    assert (await accounts.by_password("root", PASSWORD)).is_admin
    assert await accounts.ensure_setup_code() is None
    for used in (code, second, "nonsense", "0" * 24):
        with pytest.raises(NotFound):
            await accounts.complete_setup(used, "mallory", PASSWORD)


async def test_of_two_who_set_up_at_once_one_does(accounts: Accounts) -> None:
    codes = [await accounts.make_setup_code() for _ in range(2)]
    outcomes = await asyncio.gather(
        *(accounts.complete_setup(code, f"root{code[0]}x", PASSWORD) for code in codes),
        accounts.complete_setup(codes[0], "third", PASSWORD),
        return_exceptions=True,
    )
    assert [isinstance(one, NotFound) for one in outcomes].count(True) == 2
    assert len(await accounts.accounts()) == 1


async def test_a_mistake_at_set_up_leaves_the_code_good(accounts: Accounts) -> None:
    code = await accounts.make_setup_code()
    for name, password in (("root", "short"), ("library", PASSWORD)):
        with pytest.raises(RequestInvalid):
            await accounts.complete_setup(code, name, password)
    await accounts.create_user("root")
    with pytest.raises(Conflict):
        await accounts.complete_setup(code, "root", PASSWORD)
    assert (await accounts.complete_setup(code, "boss", PASSWORD)).is_admin


async def test_a_set_up_code_expires_and_no_other_code_will_do(
    accounts: Accounts, clock: Clock
) -> None:
    code = await accounts.make_setup_code()
    clock.pass_s(86_401)
    with pytest.raises(NotFound):
        await accounts.complete_setup(code, "root", PASSWORD)
    node = await accounts.create_machine("n", "node")
    with pytest.raises(NotFound):
        await accounts.complete_setup(await accounts.make_node_code(node.id), "root", PASSWORD)
    assert not await accounts.has_admin()


async def test_without_authentication_there_is_no_set_up_code(
    accounts_catalog: Catalog, clock: Clock
) -> None:
    free = Accounts(accounts_catalog, Settings.load({}), clock, cheap_passwords())
    assert await free.ensure_setup_code() is None


async def test_changes_of_another_process_are_seen(
    accounts: Accounts, accounts_catalog: Catalog, clock: Clock
) -> None:
    other = new_accounts(accounts_catalog, clock)
    alice = await other.create_user("alice", PASSWORD)
    await accounts.by_password("alice", PASSWORD)
    await other.set_admin(alice.id)
    assert (await accounts.by_password("alice", PASSWORD)).is_admin
    await other.close()
