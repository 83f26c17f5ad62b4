"""Links for people and codes for machines: once, in time, bounded."""

import asyncio

import pytest

from registry.core.errors import AccountUnknown, Conflict, NotFound, RequestInvalid, TooOften
from registry.core.ssh_key import fingerprint
from registry.ports.catalog import Catalog
from registry.services.access import enrolment
from registry.services.access.accounts import Accounts
from tests.support.accounts import NS, Clock, key_blob, new_accounts

pytestmark = pytest.mark.anyio


async def test_a_link_shows_key_and_host_and_attaches_once(
    accounts: Accounts, clock: Clock
) -> None:
    alice = await accounts.create_user("alice")
    code = await accounts.begin_enrolment(key_blob(1), "laptop\x1b[0m")
    pending = await accounts.pending(code.lower())
    assert pending.fingerprint == fingerprint(key_blob(1))
    assert (pending.host, pending.expires_at) == ("laptop[0m", clock.now + 900 * NS)
    key = await accounts.confirm_enrolment(code, alice.id)
    assert key.title == "laptop[0m"
    assert (await accounts.by_public_key(key_blob(1))).account == alice.id
    for again in (accounts.pending(code), accounts.confirm_enrolment(code, alice.id)):
        with pytest.raises(NotFound):
            await again


async def test_of_two_who_confirm_one_gets_the_key(accounts: Accounts) -> None:
    people = [await accounts.create_user(name) for name in ("alice", "bob")]
    code = await accounts.begin_enrolment(key_blob(1), "h")
    outcomes = await asyncio.gather(
        *(accounts.confirm_enrolment(code, person.id) for person in people), return_exceptions=True
    )
    assert [isinstance(one, NotFound) for one in outcomes].count(True) == 1


async def test_asking_again_gives_the_same_link_while_it_is_good(
    accounts: Accounts, clock: Clock
) -> None:
    first = await accounts.begin_enrolment(key_blob(1), "h")
    clock.pass_s(440)
    assert await accounts.begin_enrolment(key_blob(1), "h") == first
    assert await accounts.begin_enrolment(key_blob(1), "other") != first
    clock.pass_s(20)
    second = await accounts.begin_enrolment(key_blob(1), "h")
    assert second != first
    clock.pass_s(441)
    with pytest.raises(NotFound):
        await accounts.pending(first)
    assert await accounts.pending(second)


async def test_a_used_or_refused_link_is_not_given_again(
    accounts: Accounts, accounts_catalog: Catalog, clock: Clock
) -> None:
    alice = await accounts.create_user("alice")
    other = new_accounts(accounts_catalog, clock)
    first = await accounts.begin_enrolment(key_blob(1), "h")
    await other.confirm_enrolment(first, alice.id)
    await accounts.remove_public_key(fingerprint(key_blob(1)))
    second = await accounts.begin_enrolment(key_blob(1), "h")
    assert second != first
    await accounts.refuse_enrolment(second)
    for gone in (accounts.pending(second), accounts.refuse_enrolment(second)):
        with pytest.raises(NotFound):
            await gone
    assert await accounts.begin_enrolment(key_blob(1), "h") not in {first, second}
    await other.close()


async def test_links_are_bounded_and_free_again_when_they_run_out(
    accounts: Accounts, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "_OPEN_LINKS", 3)
    for number in range(3):
        await accounts.begin_enrolment(key_blob(number), "h")
    with pytest.raises(TooOften):
        await accounts.begin_enrolment(key_blob(9), "h")
    await accounts.begin_enrolment(key_blob(0), "h")
    clock.pass_s(901)
    await accounts.begin_enrolment(key_blob(9), "h")


async def test_a_machine_brings_a_code(accounts: Accounts, clock: Clock) -> None:
    node = await accounts.create_machine("gpu1", "node")
    code = await accounts.make_node_code(node.id)
    with pytest.raises(RequestInvalid):
        await accounts.enrol_node(code, "no key")
    key = await accounts.enrol_node(code, key_blob(2), "10.0.0.7")
    assert (key.account_id, key.title) == (node.id, "10.0.0.7")
    assert (await accounts.by_public_key(key_blob(2))).name == "gpu1"
    with pytest.raises(NotFound):
        await accounts.enrol_node(code, key_blob(3))
    late = await accounts.make_node_code(node.id)
    clock.pass_s(901)
    with pytest.raises(NotFound):
        await accounts.enrol_node(late, key_blob(3))


async def test_codes_are_for_their_purpose(accounts: Accounts) -> None:
    node = await accounts.create_machine("gpu1", "node")
    link = await accounts.begin_enrolment(key_blob(1), "h")
    code = await accounts.make_node_code(node.id)
    for wrong in (
        accounts.pending(code),
        accounts.confirm_enrolment(code, node.id),
        accounts.enrol_node(link, key_blob(1)),
        accounts.pending("nonsense"),
    ):
        with pytest.raises(NotFound):
            await wrong
    assert await accounts.confirm_enrolment(link, node.id)
    assert await accounts.enrol_node(code, key_blob(2))


async def test_a_failure_leaves_the_code_good(accounts: Accounts) -> None:
    alice, bob = await accounts.create_user("alice"), await accounts.create_user("bob")
    link = await accounts.begin_enrolment(key_blob(1), "h")
    with pytest.raises(AccountUnknown):
        await accounts.confirm_enrolment(link, 99)
    await accounts.add_public_key(bob.id, key_blob(1))
    with pytest.raises(Conflict):
        await accounts.confirm_enrolment(link, alice.id)
    await accounts.remove_public_key(fingerprint(key_blob(1)))
    assert await accounts.confirm_enrolment(link, alice.id)
    with pytest.raises(AccountUnknown):
        await accounts.make_node_code(99)
