"""API keys, and the public keys of Ollama clients: attached to accounts, listed, revoked."""

import secrets
from dataclasses import dataclass

from registry.core.access import Group, Right, Scope
from registry.core.accounts import HINT_LENGTH, check_title, is_api_key
from registry.core.errors import Conflict, NotFound, RequestInvalid
from registry.core.ssh_key import SshKey
from registry.ports.accounts import Account, ApiKey, PublicKey
from registry.ports.catalog import Transaction
from registry.services.access.account_place import (
    AccountPlace,
    expect_account,
    new_api_key,
    sha256_of,
)

_PER_ACCOUNT = 200
_SCOPES = 50


@dataclass(frozen=True, slots=True)
class ApiKeyWish:
    """What an API key is to be. Without `scopes` it can do on repositories what its owner can."""

    title: str = ""
    groups: Group = Group.INFER | Group.READ | Group.WRITE
    scopes: tuple[Scope, ...] | None = None
    lifetime_s: int | None = None  # None: until it is revoked


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key that was just made: the only time its text is to be had."""

    key: ApiKey
    text: str

    def __repr__(self) -> str:
        return f"NewApiKey({self.key.id})"  # logs show values


class Keys(AccountPlace):
    """The keys of accounts. With `owner` a key is found only among that account's."""

    async def create_api_key(self, account_id: int, wish: ApiKeyWish) -> NewApiKey:
        """Make a key.

        Raises:
            AccountUnknown: there is no such account.
            RequestInvalid: the wish cannot be fulfilled: no group, an empty list of scopes.
            Conflict: the account has very many keys already.
        """
        scopes = wish.scopes
        if not wish.groups or (scopes is not None and not 0 < len(scopes) <= _SCOPES):
            raise RequestInvalid("an API key needs an endpoint group, and 1 to 50 scopes if any")
        text, now = new_api_key(), self._clock()
        key = ApiKey(
            id=secrets.token_hex(8),
            account_id=account_id,
            title=check_title(wish.title),
            hint=text[:HINT_LENGTH],
            sha256=sha256_of(text),
            groups=wish.groups,
            scopes=scopes,
            created_at=now,
            expires_at=None if wish.lifetime_s is None else self._after(wish.lifetime_s),
        )

        def work(tx: Transaction) -> None:
            expect_account(tx, account_id)
            if len(tx.api_keys(account_id)) >= _PER_ACCOUNT:
                raise Conflict("the account has too many API keys; revoke some first")
            tx.put_api_key(key)

        await self._catalog.write(work)
        return NewApiKey(key, text)

    async def api_keys(self, account_id: int) -> list[ApiKey]:
        """The API keys of an account, oldest first."""
        return await self._catalog.read(lambda tx: tx.api_keys(account_id))

    async def revoke_api_key(self, key_id: str, owner: int | None = None) -> ApiKey:
        """Take a key out of use, at once and for good. Its text will do in place of its id.

        Raises:
            NotFound: there is none with that id.
        """

        def work(tx: Transaction) -> ApiKey:
            key = tx.api_key(sha256_of(key_id)) if is_api_key(key_id) else None
            key = key or (tx.find_api_key(key_id) if key_id.isascii() else None)
            if key is None or owner not in {None, key.account_id}:
                raise NotFound("there is no API key with that id")
            tx.delete_api_key(key.id)
            return key

        return await self._catalog.write(work)

    async def add_public_key(
        self, account_id: int, text: str, title: str = "", rights: Right = Right.ALL
    ) -> PublicKey:
        """Attach a key to an account: a line of `id_ed25519.pub`, or its 68 characters alone.

        Raises:
            RequestInvalid: the text is no key, or the key would have no rights.
            AccountUnknown: there is no such account.
            Conflict: the key belongs to another account, or this one has very many.
        """
        parsed = SshKey.parse(text)
        if not rights:
            raise RequestInvalid("a key needs at least one right")
        title = check_title(title or parsed.comment)
        return await self._catalog.write(
            lambda tx: attach(tx, account_id, parsed, PublicKeyWish(title, rights, self._clock()))
        )

    async def public_keys(self, account_id: int) -> list[PublicKey]:
        """The public keys of an account, oldest first."""
        return await self._catalog.read(lambda tx: tx.public_keys(account_id))

    async def all_public_keys(self) -> list[tuple[Account, PublicKey]]:
        """All public keys with whose they are, by name."""
        return await self._catalog.scan(
            lambda tx: [
                (account, key)
                for account in tx.accounts("", 1_000_000)
                for key in tx.public_keys(account.id)
            ]
        )

    async def all_api_keys(self) -> list[tuple[Account, ApiKey]]:
        """All API keys with whose they are, by name."""
        return await self._catalog.scan(
            lambda tx: [
                (account, key)
                for account in tx.accounts("", 1_000_000)
                for key in tx.api_keys(account.id)
            ]
        )

    async def remove_public_key(self, fingerprint: str, owner: int | None = None) -> PublicKey:
        """Detach a key: whoever has it is nobody to us from now on.

        Raises:
            NotFound: there is none with that fingerprint.
        """

        def work(tx: Transaction) -> PublicKey:
            key = tx.find_public_key(fingerprint) if fingerprint.isascii() else None
            if key is None or owner not in {None, key.account_id}:
                raise NotFound(f"there is no public key {fingerprint[:60]!r}")
            tx.delete_public_key(key.blob)
            return key

        return await self._catalog.write(work)


@dataclass(frozen=True, slots=True)
class PublicKeyWish:
    """How a key is to be attached."""

    title: str
    rights: Right
    now: int


def attach(tx: Transaction, account_id: int, key: SshKey, wish: PublicKeyWish) -> PublicKey:
    """Attach a key to an account; one that it has already gets the new title and rights.

    Raises:
        AccountUnknown: there is no such account.
        Conflict: the key belongs to another account, or this one has very many.
    """
    expect_account(tx, account_id)
    known = {old.blob: old for old in tx.public_keys(account_id)}
    if key.blob not in known and len(known) >= _PER_ACCOUNT:
        raise Conflict("the account has too many keys; remove some first")
    old = known.get(key.blob)
    made = PublicKey(
        key.blob,
        key.fingerprint,
        account_id,
        wish.title,
        old.created_at if old else wish.now,
        old.used_at if old else None,
        wish.rights,
    )
    tx.put_public_key(made)
    return made
