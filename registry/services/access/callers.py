"""Credentials -> `Caller`: who asks, and what the credential may be used for.

What is found is kept until accounts change (`accounts_version`), so that a request costs no query
while nothing is written, one point query after any write, and the same at any number of
repositories. Every refusal is one sentence, `Unauthenticated`; it never holds the credential.
"""

import asyncio
import base64
import hmac
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar
from weakref import WeakValueDictionary

from registry.core.access import Caller, Group, Policy, Right, Rule, Scope
from registry.core.accounts import is_api_key, is_name
from registry.core.errors import RegistryError, Unauthenticated
from registry.core.ssh_key import fingerprint
from registry.ports.accounts import Account, AccountReader, ApiKey, PublicKey, Session
from registry.ports.catalog import Transaction
from registry.services.access.account_place import AccountPlace, sha256_of
from registry.services.access.attempts import Attempts, network
from registry.services.sharing.write_behind import WriteBehind

T = TypeVar("T")

_KEPT = 10_000
_SESSION_LENGTH = 43  # 32 random bytes
_WRONG = "unknown user or wrong password"
_DISABLED = "this account is disabled"


@dataclass(frozen=True, slots=True)
class SignIn:
    """A session that was just begun: `session` is for a cookie, `csrf` for the forms."""

    session: str
    csrf: str
    expires_at: int
    caller: Caller

    def __repr__(self) -> str:
        return f"SignIn({self.caller.name!r})"  # logs show values


@dataclass(frozen=True, slots=True)
class Found:
    """A caller as the catalog has it, and until when that holds by itself."""

    caller: Caller
    expires_at: int | None = None
    disabled: bool = False
    used: "Use | None" = None


@dataclass(frozen=True, slots=True)
class Use:
    """A key that was used: by its id or, a public one, by its text."""

    api_key: str = ""
    public_key: str = ""
    at: int = 0


class Callers(AccountPlace):
    """The part of the service that every request asks."""

    _attempts: Attempts
    _uses: WriteBehind[Use]
    _kept: dict[tuple[str, object], object]
    _checks: WeakValueDictionary[bytes, asyncio.Lock]
    _marked: dict[tuple[str, str], int]
    _policies: tuple[int, int, tuple[Policy, ...]]  # as of which changes, their version, they
    _policies_turn: asyncio.Lock
    _seen: int | None
    _changes: int

    async def changes(self) -> int:
        """A number that is another after any change of accounts, keys, rules, by any process."""
        version = self._catalog.version()
        if version != self._seen:
            changes = await self._catalog.read(lambda tx: tx.accounts_version())
            if changes != self._changes:
                self._kept.clear()
                self._changes = changes
            self._seen = version
        return self._changes

    async def anonymous(self) -> Caller:
        """Somebody who did not sign in."""
        return await self._keep(("anonymous", ""), lambda tx: Caller(rules=_rules(tx, None)))

    async def policies(self) -> tuple[Policy, ...]:
        """All policies, by pattern; the same object until one of them changes.

        There may be one for each repository, so they are not read again for other changes, and not
        on the event loop.
        """
        changes = await self.changes()
        if changes == self._policies[0]:
            return self._policies[2]
        async with self._policies_turn:
            changes = await self.changes()
            version = await self._catalog.read(lambda tx: tx.policies_version())
            found = self._policies[2]
            if version != self._policies[1]:
                version, found = await self._catalog.scan(
                    lambda tx: (tx.policies_version(), tuple(tx.policies()))
                )
            self._policies = changes, version, found
            return found

    async def by_password(self, name: str, password: str, address: str = "") -> Caller:
        """The caller of a user's name and password; an API key in place of the password will do.

        An unknown name takes as long as a wrong password.

        Raises:
            Unauthenticated: they do not fit, or the account is disabled.
            TooOften: too many failures for this name or address.
            Unavailable: too many are at it.
        """
        if is_api_key(password):
            found = await self._api_key(password)
            if found is not None and found.caller.name.lower() == name.lower():
                return self._admit(found, "this API key")
        account = await self._account_named(name)
        kept = account.password_hash if account else ""
        if not self._passwords.is_proven(name, password, kept):
            await self._check_password(name, password, kept, address)
        if account is None or account.disabled:
            raise Unauthenticated(_WRONG)
        if self._passwords.is_outdated(kept):
            with suppress(RegistryError):  # the next sign-in tries again
                await self._rehash(account, password)
        return await self._by_account(account.id, "password")

    async def _check_password(self, name: str, password: str, kept: str, address: str) -> None:
        """Compare once for all who come with the same words at once, as clients' connections do."""
        words = self._passwords.proof(name, password)
        async with self._checks.setdefault(words, asyncio.Lock()):
            if self._passwords.is_proven(name, password, kept):
                return
            keys = (f"address {network(address)}", f"name {name.lower()[:80]}")
            self._attempts.begin(*keys)
            if not await self._passwords.fits(name, password, kept):
                raise Unauthenticated(_WRONG)
            self._attempts.forgive(*keys)

    async def by_api_key(self, text: str) -> Caller:
        """The caller of an API key, narrowed to what the key is for.

        Raises:
            Unauthenticated: it is unknown, revoked or expired, or its account is disabled.
        """
        found = await self._api_key(text) if is_api_key(text) else None
        if found is None:
            raise Unauthenticated("this API key is unknown or was revoked")
        return self._admit(found, "this API key")

    async def by_public_key(self, blob: str) -> Caller:
        """The caller whose key it is, by its base64 text; the signature was verified before.

        Raises:
            Unauthenticated: no account has the key, or the account is disabled.
        """
        found = await self._keep(("key", blob), lambda tx: _key_found(tx, tx.public_key(blob)))
        if found is None:
            raise Unauthenticated(f"the key {fingerprint(blob)} is not registered here")
        return self._admit(found, "this key")

    async def by_session(self, text: str) -> Caller:
        """The caller of a session's cookie.

        Raises:
            Unauthenticated: the session is over.
        """
        found = None
        if len(text) == _SESSION_LENGTH and text.isascii():
            key = sha256_of(text)
            found = await self._keep(
                ("session", key), lambda tx: _session_found(tx, tx.session(key))
            )
        if found is None:
            raise Unauthenticated("please sign in")
        return self._admit(found, "this session")

    async def by_credential(self, credential: str) -> Caller:
        """The caller that `credential_of` was asked about, as of now.

        Raises:
            Unauthenticated: the account, or its key, is no longer good.
        """
        kind, _, value = credential.partition(":")
        if not value.isascii():
            found = None
        elif kind == "api":
            found = await self._keep(
                ("api id", value), lambda tx: _api_found(tx, tx.find_api_key(value))
            )
        elif kind == "key":
            found = await self._keep(
                ("print", value), lambda tx: _key_found(tx, tx.find_public_key(value))
            )
        elif kind == "user" and value.isdecimal() and len(value) < 19:
            return await self._by_account(int(value), "password")
        else:
            found = None
        if found is None:
            raise Unauthenticated("the credential is no longer good; sign in again")
        return self._admit(found, "the key")

    async def sign_in(self, name: str, password: str, address: str = "") -> SignIn:
        """Begin a session on the page.

        Raises:
            Unauthenticated, TooOften, Unavailable: see `by_password`.
        """
        if is_api_key(password):
            raise Unauthenticated("sign in with your password: API keys are for programs")
        caller = await self.by_password(name, password, address)
        text = secrets.token_urlsafe(32)
        until = self._after(self._settings.credentials.session_s)
        session = Session(sha256_of(text), caller.account or 0, self._clock(), until)
        await self._catalog.write(lambda tx: tx.put_session(session))
        return SignIn(text, csrf_of(text), until, replace(caller, via="session"))

    async def sign_out(self, text: str) -> None:
        """End a session; one that is over already is fine."""
        await self._catalog.write(lambda tx: tx.delete_session(sha256_of(text)))

    # what the above share

    async def _api_key(self, text: str) -> Found | None:
        key = sha256_of(text)
        return await self._keep(("api", key), lambda tx: _api_found(tx, tx.api_key(key)))

    async def _account_named(self, name: str) -> Account | None:
        if not is_name(name):
            return None
        return await self._keep(("name", name.lower()), lambda tx: tx.account_named(name))

    async def _by_account(self, account_id: int, via: str) -> Caller:
        found = await self._keep(
            ("account", account_id), lambda tx: _account_found(tx, tx.account(account_id), via)
        )
        if found is None:
            raise Unauthenticated("this account is no longer there")
        return self._admit(found, "this account")

    def _admit(self, found: Found, what: str) -> Caller:
        now = self._clock()
        if found.expires_at is not None and found.expires_at <= now:
            raise Unauthenticated(f"{what} has expired")
        if found.disabled:
            raise Unauthenticated(_DISABLED)
        if found.used is not None:
            self._mark(found.used, now)
        return found.caller

    def _mark(self, use: Use, now: int) -> None:
        """Note the use, unless one was noted within the last minute."""
        key = (use.api_key, use.public_key)
        if now - self._marked.get(key, 0) < 60_000_000_000:
            return
        if len(self._marked) > _KEPT:
            self._marked.clear()
        self._marked[key] = now
        self._uses.add(replace(use, at=now))

    async def _rehash(self, account: Account, password: str) -> None:
        fresh = await self._passwords.hash(password)

        def work(tx: Transaction) -> None:
            now = tx.account(account.id)
            if now is not None and now.password_hash == account.password_hash:
                tx.put_account(replace(now, password_hash=fresh))

        await self._catalog.write(work)

    async def _keep(self, key: tuple[str, object], load: Callable[[AccountReader], T]) -> T:
        """What `load` finds, kept under `key` until accounts change; what is None is not kept."""
        await self.changes()
        kept = self._kept.get(key)
        if kept is not None:
            return kept  # type: ignore[return-value]  # each key has one kind of value
        changes, found = await self._catalog.read(lambda tx: (tx.accounts_version(), load(tx)))
        if found is not None and changes == self._changes:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[key] = found
        return found


def csrf_of(session: str) -> str:
    """What a session's forms carry, so that no other site can send them."""
    digest = hmac.digest(session.encode("utf-8", "replace"), b"csrf", "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def credential_of(caller: Caller) -> str:
    """What a token says of the credential it was given for: no secret, but names it for good."""
    if caller.via.startswith(("api:", "key:")):
        return caller.via
    return "" if caller.account is None else f"user:{caller.account}"


def _rules(tx: AccountReader, account_id: int | None) -> tuple[Rule, ...]:
    return tuple(tx.rules_for(account_id))


def _account_found(tx: AccountReader, account: Account | None, via: str) -> Found | None:
    if account is None:
        return None
    caller = Caller(
        account.id,
        account.name,
        account.is_admin,
        _rules(tx, account.id),
        via=via,
        own=(account.name.lower(),) if account.kind == "user" else (),
    )
    return Found(caller, disabled=account.disabled)


def _api_found(tx: AccountReader, key: ApiKey | None) -> Found | None:
    found = key and _account_found(tx, tx.account(key.account_id), f"api:{key.id}")
    if not key or not found:
        return None
    scopes = key.scopes
    if Group.WRITE not in key.groups:  # no endpoint that forgets to ask may write with it
        scopes = tuple(
            Scope(scope.pattern, scope.rights & Right.READ)
            for scope in scopes or (Scope("*", Right.READ),)
        )
    caller = replace(found.caller, groups=key.groups, scopes=scopes)
    return replace(found, caller=caller, expires_at=key.expires_at, used=Use(api_key=key.id))


def _key_found(tx: AccountReader, key: PublicKey | None) -> Found | None:
    found = key and _account_found(tx, tx.account(key.account_id), f"key:{key.fingerprint}")
    if not key or not found:
        return None
    caller = found.caller
    if key.rights != Right.ALL:
        groups = Group.INFER | Group.READ
        if key.rights & ~Right.READ:
            groups |= Group.WRITE
        caller = replace(caller, groups=groups, scopes=(Scope("*", key.rights),))
    return replace(found, caller=caller, used=Use(public_key=key.blob))


def _session_found(tx: AccountReader, session: Session | None) -> Found | None:
    found = session and _account_found(tx, tx.account(session.account_id), "session")
    return replace(found, expires_at=session.expires_at) if session and found else None
