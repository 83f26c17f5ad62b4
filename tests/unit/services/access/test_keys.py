"""API keys and public keys: made, listed, narrowed, revoked."""

from dataclasses import replace

import pytest

from registry.core.access import Group, Right, Scope
from registry.core.accounts import is_api_key
from registry.core.errors import AccountUnknown, Conflict, NotFound, RequestInvalid, Unauthenticated
from registry.services.access import keys
from registry.services.access.accounts import Accounts
from registry.services.access.keys import ApiKeyWish
from tests.support.accounts import NS, Clock, key_blob

pytestmark = pytest.mark.anyio


async def test_an_api_key_is_shown_once_and_known_by_its_digest(
    accounts: Accounts, clock: Clock
) -> None:
    ci = await accounts.create_machine("ci")
    made = await accounts.create_api_key(ci.id, ApiKeyWish("build", lifetime_s=60))
    assert is_api_key(made.text)
    assert made.text.startswith(made.key.hint)
    assert made.text not in repr(made)
    assert made.key.expires_at == clock.now + 60 * NS
    assert await accounts.api_keys(ci.id) == [made.key]
    assert await accounts.all_api_keys() == [(ci, made.key)]
    assert (await accounts.by_api_key(made.text)).account == ci.id


async def test_two_keys_are_never_alike(accounts: Accounts) -> None:
    ci = await accounts.create_machine("ci")
    made = [await accounts.create_api_key(ci.id, ApiKeyWish()) for _ in range(20)]
    assert len({one.text for one in made}) == len({one.key.id for one in made}) == 20


@pytest.mark.parametrize(
    "wish",
    [
        ApiKeyWish(groups=Group.NONE),
        ApiKeyWish(scopes=()),
        ApiKeyWish(scopes=(Scope("*", Right.READ),) * 51),
        ApiKeyWish("two\nlines"),
        ApiKeyWish("x" * 101),
    ],
)
async def test_a_wish_that_cannot_be_is_refused(accounts: Accounts, wish: ApiKeyWish) -> None:
    ci = await accounts.create_machine("ci")
    with pytest.raises(RequestInvalid):
        await accounts.create_api_key(ci.id, wish)


async def test_a_key_is_revoked_by_id_or_text_by_its_owner_only(accounts: Accounts) -> None:
    ci, other = await accounts.create_machine("ci"), await accounts.create_machine("other")
    one = await accounts.create_api_key(ci.id, ApiKeyWish())
    two = await accounts.create_api_key(ci.id, ApiKeyWish())
    await accounts.by_api_key(one.text)
    with pytest.raises(NotFound) as foreign:
        await accounts.revoke_api_key(one.key.id, owner=other.id)
    await accounts.revoke_api_key(one.key.id, owner=ci.id)
    with pytest.raises(NotFound) as absent:
        await accounts.revoke_api_key(one.key.id, owner=ci.id)
    assert str(foreign.value) == str(absent.value)
    with pytest.raises(Unauthenticated):
        await accounts.by_api_key(one.text)
    await accounts.revoke_api_key(two.text)
    assert await accounts.api_keys(ci.id) == []
    for wrong in (two.text, "\ud800", ""):
        with pytest.raises(NotFound):
            await accounts.revoke_api_key(wrong)


async def test_an_account_has_so_many_keys_and_no_more(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_PER_ACCOUNT", 2)
    ci = await accounts.create_machine("ci")
    for number in range(2):
        await accounts.create_api_key(ci.id, ApiKeyWish())
        await accounts.add_public_key(ci.id, key_blob(number))
    with pytest.raises(Conflict):
        await accounts.create_api_key(ci.id, ApiKeyWish())
    with pytest.raises(Conflict):
        await accounts.add_public_key(ci.id, key_blob(9))
    await accounts.add_public_key(ci.id, key_blob(1), "again")


async def test_a_public_key_is_pasted_listed_and_removed(accounts: Accounts, clock: Clock) -> None:
    alice = await accounts.create_user("alice")
    line = f"ssh-ed25519 {key_blob(1)} alice@laptop\n"
    key = await accounts.add_public_key(alice.id, line)
    assert (key.title, key.rights, key.created_at) == ("alice@laptop", Right.ALL, clock.now)
    clock.pass_s(5)
    again = await accounts.add_public_key(alice.id, key_blob(1), "new title", Right.READ)
    assert again == replace(key, title="new title", rights=Right.READ)
    assert await accounts.public_keys(alice.id) == [again]
    assert await accounts.all_public_keys() == [(alice, again)]
    assert (await accounts.by_public_key(key_blob(1))).account == alice.id
    await accounts.remove_public_key(key.fingerprint)
    with pytest.raises(Unauthenticated) as caught:
        await accounts.by_public_key(key_blob(1))
    assert key.fingerprint in str(caught.value)


async def test_a_key_is_one_account_s(accounts: Accounts) -> None:
    alice, bob = await accounts.create_user("alice"), await accounts.create_user("bob")
    key = await accounts.add_public_key(alice.id, key_blob(1))
    with pytest.raises(Conflict):
        await accounts.add_public_key(bob.id, key_blob(1))
    for fingerprint, owner in ((key.fingerprint, bob.id), ("SHA256:none", None), ("\ud800", None)):
        with pytest.raises(NotFound):
            await accounts.remove_public_key(fingerprint, owner)
    assert (await accounts.by_public_key(key_blob(1))).account == alice.id


async def test_keys_are_for_accounts_that_are_there(accounts: Accounts) -> None:
    with pytest.raises(AccountUnknown):
        await accounts.create_api_key(9, ApiKeyWish())
    with pytest.raises(AccountUnknown):
        await accounts.add_public_key(9, key_blob(1))
    alice = await accounts.create_user("alice")
    for text, rights in (("nonsense", Right.ALL), (key_blob(1), Right.NONE)):
        with pytest.raises(RequestInvalid):
            await accounts.add_public_key(alice.id, text, rights=rights)
