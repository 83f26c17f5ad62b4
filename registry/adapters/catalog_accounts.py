"""Accounts, credentials, sessions and codes: that part of the catalog's SQL."""

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy import bindparam, delete, select, update

from registry.adapters import tables_accounts as t
from registry.adapters.catalog_transfers import _put
from registry.adapters.statements import Queries, Row, Statement
from registry.core.access import (
    Scope,
    group_words,
    parse_groups,
    parse_rights,
    right_words,
)
from registry.core.errors import Conflict
from registry.ports.accounts import Account, ApiKey, Code, PublicKey, Session

_P = bindparam
_ONE = 1  # ids of the rows of `account_change`: any change, one of policies
_POLICIES_CHANGE = 2

_ACCOUNT_COLUMNS = (
    t.account.c.id,
    t.account.c.kind,
    t.account.c.name,
    t.account.c.is_admin,
    t.account.c.created_at,
    t.account.c.disabled,
    t.account.c.password_hash,
)
_ACCOUNT = Statement(select(*_ACCOUNT_COLUMNS).where(t.account.c.id == _P("id")))
_ACCOUNT_NAMED = Statement(select(*_ACCOUNT_COLUMNS).where(t.account.c.name_key == _P("key")))
_ACCOUNTS = Statement(
    select(*_ACCOUNT_COLUMNS)
    .where(t.account.c.name_key > _P("after"))
    .order_by(t.account.c.name_key)
    .limit(_P("count"))
)
_ADMINS = Statement(
    select(*_ACCOUNT_COLUMNS).where(t.account.c.is_admin == _P("yes")).order_by(t.account.c.id)
)
_VERSION = Statement(select(t.account_change.c.version).where(t.account_change.c.id == _P("id")))
_KEY = Statement(select(t.public_key).where(t.public_key.c.blob == _P("blob")))
_KEY_FOUND = Statement(select(t.public_key).where(t.public_key.c.fingerprint == _P("fingerprint")))
_KEYS = Statement(
    select(t.public_key)
    .where(t.public_key.c.account_id == _P("account_id"))
    .order_by(t.public_key.c.created_at, t.public_key.c.blob)
)
_API_KEY = Statement(select(t.api_key).where(t.api_key.c.sha256 == _P("sha256")))
_API_KEY_FOUND = Statement(select(t.api_key).where(t.api_key.c.id == _P("id")))
_API_KEYS = Statement(
    select(t.api_key)
    .where(t.api_key.c.account_id == _P("account_id"))
    .order_by(t.api_key.c.created_at, t.api_key.c.id)
)
_SESSION = Statement(select(t.session).where(t.session.c.sha256 == _P("sha256")))
_CODE = Statement(select(t.code).where(t.code.c.sha256 == _P("sha256")))

_ADD_ACCOUNT = Statement(
    lambda insert: (
        insert(t.account)
        .values({c.name: _P(c.name) for c in t.account.c if c.name != "id"})
        .on_conflict_do_nothing()
    )
)
_CHANGE_ACCOUNT = Statement(
    update(t.account)
    .where(t.account.c.id == _P("b_id"))
    .values({c.name: _P(c.name) for c in t.account.c if c.name != "id"})
)
_DELETE_ACCOUNT = Statement(delete(t.account).where(t.account.c.id == _P("id")))
_DELETE_RULES = Statement(
    delete(t.access_rule).where(
        t.access_rule.c.kind == _P("kind"), t.access_rule.c.subject_id == _P("id")
    )
)
_PUT_KEY = Statement(_put(t.public_key, "blob"))
_USE_KEY = Statement(
    update(t.public_key).where(t.public_key.c.blob == _P("b_blob")).values(used_at=_P("at"))
)
_DELETE_KEY = Statement(delete(t.public_key).where(t.public_key.c.blob == _P("blob")))
_PUT_API_KEY = Statement(_put(t.api_key, "id"))
_USE_API_KEY = Statement(
    update(t.api_key).where(t.api_key.c.id == _P("b_id")).values(used_at=_P("at"))
)
_DELETE_API_KEY = Statement(delete(t.api_key).where(t.api_key.c.id == _P("id")))
_PUT_SESSION = Statement(_put(t.session, "sha256"))
_DELETE_SESSION = Statement(delete(t.session).where(t.session.c.sha256 == _P("sha256")))
_DELETE_SESSIONS = Statement(delete(t.session).where(t.session.c.account_id == _P("id")))
_PUT_CODE = Statement(_put(t.code, "sha256"))
_DELETE_CODE = Statement(
    delete(t.code).where(t.code.c.sha256 == _P("sha256"), t.code.c.expires_at > _P("now"))
)
_DELETE_CODES = Statement(delete(t.code).where(t.code.c.purpose == _P("purpose")))
_CHANGED = Statement(
    lambda insert: (
        insert(t.account_change)
        .values(id=_P("id"), version=_P("first"))
        .on_conflict_do_update(
            index_elements=["id"], set_={"version": t.account_change.c.version + 1}
        )
    )
)


def _account(row: Row) -> Account:
    id_, kind, name, is_admin, created_at, disabled, password_hash = row
    return Account(id_, kind, name, bool(is_admin), created_at, bool(disabled), password_hash)


def _public_key(row: Row) -> PublicKey:
    blob, fingerprint, account_id, title, created_at, used_at, rights = row
    return PublicKey(
        blob, fingerprint, account_id, title, created_at, used_at, parse_rights(rights)
    )


def _api_key(row: Row) -> ApiKey:
    id_, account_id, title, hint, sha256, groups, scopes, *times = row
    narrowed = None if scopes is None else tuple(map(_scope, json.loads(scopes)))
    return ApiKey(id_, account_id, title, hint, sha256, parse_groups(groups), narrowed, *times)


def _scope(pair: Any) -> Scope:
    pattern, rights = pair
    return Scope(pattern, parse_rights(rights))


def words(names: list[str]) -> str:
    """A set of rights or groups as it is kept."""
    return ",".join(names)


class AccountQueries(Queries):
    """The reader's methods about accounts and what they prove themselves with."""

    def account(self, account_id: int) -> Account | None:
        """See `AccountReader`."""
        row = self._sql.one(_ACCOUNT, id=account_id)
        return _account(row) if row else None

    def account_named(self, name: str) -> Account | None:
        """See `AccountReader`."""
        row = self._sql.one(_ACCOUNT_NAMED, key=name.lower())
        return _account(row) if row else None

    def accounts(self, after: str, limit: int) -> list[Account]:
        """See `AccountReader`."""
        return [_account(row) for row in self._sql.all(_ACCOUNTS, after=after.lower(), count=limit)]

    def admins(self) -> list[Account]:
        """See `AccountReader`."""
        return [_account(row) for row in self._sql.all(_ADMINS, yes=True)]

    def policies_version(self) -> int:
        """See `AccountReader`."""
        row = self._sql.one(_VERSION, id=_POLICIES_CHANGE)
        return row[0] if row else 0

    def accounts_version(self) -> int:
        """See `AccountReader`."""
        row = self._sql.one(_VERSION, id=_ONE)
        return row[0] if row else 0

    def public_key(self, blob: str) -> PublicKey | None:
        """See `AccountReader`."""
        row = self._sql.one(_KEY, blob=blob)
        return _public_key(row) if row else None

    def find_public_key(self, fingerprint: str) -> PublicKey | None:
        """See `AccountReader`."""
        row = self._sql.one(_KEY_FOUND, fingerprint=fingerprint)
        return _public_key(row) if row else None

    def public_keys(self, account_id: int) -> list[PublicKey]:
        """See `AccountReader`."""
        return [_public_key(row) for row in self._sql.all(_KEYS, account_id=account_id)]

    def api_key(self, sha256: str) -> ApiKey | None:
        """See `AccountReader`."""
        row = self._sql.one(_API_KEY, sha256=sha256)
        return _api_key(row) if row else None

    def find_api_key(self, key_id: str) -> ApiKey | None:
        """See `AccountReader`."""
        row = self._sql.one(_API_KEY_FOUND, id=key_id)
        return _api_key(row) if row else None

    def api_keys(self, account_id: int) -> list[ApiKey]:
        """See `AccountReader`."""
        return [_api_key(row) for row in self._sql.all(_API_KEYS, account_id=account_id)]

    def session(self, sha256: str) -> Session | None:
        """See `AccountReader`."""
        row = self._sql.one(_SESSION, sha256=sha256)
        return Session(*row) if row else None

    def code(self, sha256: str) -> Code | None:
        """See `AccountReader`."""
        row = self._sql.one(_CODE, sha256=sha256)
        return _code(row) if row else None


def _code(row: Row) -> Code:
    sha256, purpose, expires_at, account_id, subject, note = row
    return Code(sha256, purpose, expires_at, account_id, subject, note)


class AccountChanges(AccountQueries):
    """The transaction's methods about accounts and what they prove themselves with."""

    def _changed(self) -> None:
        """Something changed that decides what callers may do or prove."""
        self._sql.run(_CHANGED, id=_ONE, first=1)

    def _policies_changed(self) -> None:
        self._changed()
        self._sql.run(_CHANGED, id=_POLICIES_CHANGE, first=1)

    def put_account(self, account: Account) -> Account:
        """See `AccountWriter`."""
        values = asdict(account) | {"name_key": account.name.lower()}
        del values["id"]
        taken = self.account_named(account.name)
        if taken is not None and taken.id != account.id:
            raise Conflict(f"there is a {taken.kind} {taken.name!r} already")
        if account.id:
            self._sql.run(_CHANGE_ACCOUNT, b_id=account.id, **values)
        else:
            self._sql.run(_ADD_ACCOUNT, **values)
        self._changed()
        kept = self.account_named(account.name)
        if kept is None:
            raise Conflict("the account is not there any more")
        return kept

    def delete_account(self, account_id: int) -> None:
        """See `AccountWriter`."""
        self._sql.run(_DELETE_RULES, kind="user", id=account_id)
        self._sql.run(_DELETE_ACCOUNT, id=account_id)
        self._changed()

    def put_public_key(self, key: PublicKey) -> None:
        """See `AccountWriter`."""
        known = self.public_key(key.blob)
        if known is not None and known.account_id != key.account_id:
            raise Conflict(f"the key {key.fingerprint} belongs to another account")
        self._expect_account(key.account_id)
        values = {column.name: getattr(key, column.name) for column in t.public_key.c}
        self._sql.run(_PUT_KEY, **values | {"rights": words(right_words(key.rights))})
        self._changed()

    def use_public_key(self, blob: str, at: int) -> None:
        """See `AccountWriter`."""
        self._sql.run(_USE_KEY, b_blob=blob, at=at)

    def delete_public_key(self, blob: str) -> bool:
        """See `AccountWriter`."""
        self._changed()
        return self._sql.run(_DELETE_KEY, blob=blob) > 0

    def put_api_key(self, key: ApiKey) -> None:
        """See `AccountWriter`."""
        self._expect_account(key.account_id)
        values = {column.name: getattr(key, column.name) for column in t.api_key.c}
        values["groups"] = words(group_words(key.groups))
        if key.scopes is not None:
            pairs = [(scope.pattern, words(right_words(scope.rights))) for scope in key.scopes]
            values["scopes"] = json.dumps(pairs)
        self._sql.run(_PUT_API_KEY, **values)
        self._changed()

    def use_api_key(self, key_id: str, at: int) -> None:
        """See `AccountWriter`."""
        self._sql.run(_USE_API_KEY, b_id=key_id, at=at)

    def delete_api_key(self, key_id: str) -> bool:
        """See `AccountWriter`."""
        self._changed()
        return self._sql.run(_DELETE_API_KEY, id=key_id) > 0

    def put_session(self, session: Session) -> None:
        """See `AccountWriter`."""
        self._expect_account(session.account_id)
        self._sql.run(_PUT_SESSION, **asdict(session))

    def delete_session(self, sha256: str) -> None:
        """See `AccountWriter`."""
        self._sql.run(_DELETE_SESSION, sha256=sha256)
        self._changed()

    def delete_sessions(self, account_id: int) -> None:
        """See `AccountWriter`."""
        self._sql.run(_DELETE_SESSIONS, id=account_id)
        self._changed()

    def put_code(self, code: Code) -> None:
        """See `AccountWriter`."""
        if code.account_id is not None:
            self._expect_account(code.account_id)
        self._sql.run(_PUT_CODE, **asdict(code))

    def take_code(self, sha256: str, now: int) -> Code | None:
        """See `AccountWriter`."""
        found = self.code(sha256)
        # the count decides: of two that take it at once only one has deleted it
        if found is None or not self._sql.run(_DELETE_CODE, sha256=sha256, now=now):
            return None
        return found

    def delete_codes(self, purpose: str) -> None:
        """See `AccountWriter`."""
        self._sql.run(_DELETE_CODES, purpose=purpose)

    def _expect_account(self, account_id: int) -> None:
        if self.account(account_id) is None:
            raise Conflict("the account is not there any more")
