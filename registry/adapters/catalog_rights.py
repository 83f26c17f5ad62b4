"""Teams, rules, policies, nonces, the audit, proofs of upload: that part of the catalog's SQL."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import bindparam, delete, func, or_, select

from registry.adapters import tables_accounts as t
from registry.adapters.catalog_accounts import AccountChanges, AccountQueries, words
from registry.adapters.catalog_transfers import _put
from registry.adapters.statements import Statement
from registry.core.access import Policy, Rule, Visibility, parse_rights, right_words
from registry.core.accounts import parse_subject
from registry.core.errors import AccountUnknown, Conflict
from registry.ports.accounts import AuditEntry, Grant, Team

_P = bindparam
_R = t.access_rule.c

_TEAMS = Statement(select(t.team.c.id, t.team.c.name).order_by(t.team.c.name_key))
_TEAM = Statement(select(t.team.c.id, t.team.c.name).where(t.team.c.name_key == _P("key")))
_TEAM_BY_ID = Statement(select(t.team.c.id).where(t.team.c.id == _P("id")))
_MEMBERS = Statement(
    select(t.team_member.c.team_id, t.account.c.name)
    .join(t.account, t.account.c.id == t.team_member.c.account_id)
    .order_by(t.account.c.name_key)
)
_MEMBERS_OF = Statement(
    select(t.account.c.name)
    .join(t.team_member, t.account.c.id == t.team_member.c.account_id)
    .where(t.team_member.c.team_id == _P("id"))
    .order_by(t.account.c.name_key)
)
_GRANTS = Statement(
    select(_R.id, _R.kind, t.account.c.name, t.team.c.name, _R.pattern, _R.rights)
    .outerjoin(t.account, (_R.kind == _P("user")) & (t.account.c.id == _R.subject_id))
    .outerjoin(t.team, (_R.kind == _P("team")) & (t.team.c.id == _R.subject_id))
    .order_by(_R.id)
)
_RULES = Statement(
    select(_R.pattern, _R.rights)
    .where(
        or_(
            (_R.kind == _P("everybody")) & (_R.subject_id == _P("none")),
            (_R.kind == _P("users")) & (_R.subject_id == _P("none")),
            (_R.kind == _P("user")) & (_R.subject_id == _P("account_id")),
            (_R.kind == _P("team"))
            & _R.subject_id.in_(
                select(t.team_member.c.team_id).where(
                    t.team_member.c.account_id == _P("account_id")
                )
            ),
        )
    )
    .order_by(_R.id)
)
_RULES_FOR_ALL = Statement(
    select(_R.pattern, _R.rights).where(_R.kind == _P("everybody")).order_by(_R.id)
)
_RULE = Statement(
    select(_R.id).where(
        _R.kind == _P("kind"),
        _R.subject_id == _P("subject_id"),
        _R.pattern == _P("pattern"),
        _R.rights == _P("rights"),
    )
)
_POLICIES = Statement(select(t.access_policy).order_by(t.access_policy.c.pattern))
_AUDIT = Statement(
    select(*(t.audit.c[name] for name in AuditEntry.__dataclass_fields__))
    .where(t.audit.c.id < _P("before"))
    .order_by(t.audit.c.id.desc())
    .limit(_P("count"))
)
_AUDIT_NEWEST = Statement(select(func.max(t.audit.c.id)))
_AUDIT_SINCE = Statement(
    select(t.audit.c.id).where(t.audit.c.at >= _P("since")).order_by(t.audit.c.id).limit(1)
)
_BLOB = Statement(
    select(t.account_blob.c.until).where(
        t.account_blob.c.account_id == _P("account_id"), t.account_blob.c.digest == _P("digest")
    )
)

_ADD_TEAM = Statement(
    lambda insert: (
        insert(t.team).values(name_key=_P("key"), name=_P("name")).on_conflict_do_nothing()
    )
)
_DELETE_TEAM = Statement(delete(t.team).where(t.team.c.id == _P("id")))
_DROP_MEMBERS = Statement(delete(t.team_member).where(t.team_member.c.team_id == _P("id")))
_ADD_MEMBER = Statement(
    lambda insert: (
        insert(t.team_member)
        .values(account_id=_P("account_id"), team_id=_P("team_id"))
        .on_conflict_do_nothing()
    )
)
_ADD_RULE = Statement(
    lambda insert: (
        insert(t.access_rule)
        .values({name: _P(name) for name in ("kind", "subject_id", "pattern", "rights")})
        .on_conflict_do_nothing()
    )
)
_DELETE_RULE = Statement(delete(t.access_rule).where(_R.id == _P("id")))
_DELETE_RULES = Statement(
    delete(t.access_rule).where(_R.kind == _P("kind"), _R.subject_id == _P("id"))
)
_PUT_POLICY = Statement(_put(t.access_policy, "pattern"))
_DELETE_POLICY = Statement(
    delete(t.access_policy).where(t.access_policy.c.pattern == _P("pattern"))
)
_USE_NONCE = Statement(
    lambda insert: (
        insert(t.nonce)
        .values(key=_P("key"), nonce=_P("nonce"), until=_P("until"))
        .on_conflict_do_nothing()
    )
)
_ADD_AUDIT = Statement(
    lambda insert: insert(t.audit).values({c.name: _P(c.name) for c in t.audit.c if c.name != "id"})
)
_TRIM_AUDIT = Statement(
    delete(t.audit).where(
        t.audit.c.id.in_(
            select(t.audit.c.id)
            .where(t.audit.c.id < _P("start"))
            .order_by(t.audit.c.id)
            .limit(_P("count"))
        )
    )
)
_PUT_BLOB = Statement(_put(t.account_blob, "account_id", "digest"))
_EXPIRED = tuple(
    Statement(delete(table).where(column <= _P("now")))
    for table, column in (
        (t.nonce, t.nonce.c.until),
        (t.code, t.code.c.expires_at),
        (t.session, t.session.c.expires_at),
        (t.account_blob, t.account_blob.c.until),
        (t.api_key, t.api_key.c.expires_at),
    )
)
_NEWEST = (1 << 63) - 1


class RightsQueries(AccountQueries):
    """The reader's methods about rights, and the rest of `AccountReader`."""

    def teams(self) -> list[Team]:
        """See `AccountReader`."""
        members: dict[int, list[str]] = {}
        for team_id, name in self._sql.all(_MEMBERS):
            members.setdefault(team_id, []).append(name)
        rows = self._sql.all(_TEAMS)
        return [Team(id_, name, tuple(members.get(id_, ()))) for id_, name in rows]

    def _team(self, name: str) -> Team | None:
        row = self._sql.one(_TEAM, key=name.lower())
        if row is None:
            return None
        members = self._sql.all(_MEMBERS_OF, id=row[0])
        return Team(row[0], row[1], tuple(member for (member,) in members))

    def grants(self) -> list[Grant]:
        """See `AccountReader`."""
        return [
            Grant(id_, _subject(kind, user or team), Rule(pattern, parse_rights(rights)))
            for id_, kind, user, team, pattern, rights in self._sql.all(
                _GRANTS, user="user", team="team"
            )
        ]

    def rules_for(self, account_id: int | None) -> list[Rule]:
        """See `AccountReader`."""
        if account_id is None:
            rows = self._sql.all(_RULES_FOR_ALL, everybody="everybody")
        else:
            kinds = {kind: kind for kind in ("everybody", "users", "user", "team")}
            rows = self._sql.all(_RULES, none=0, account_id=account_id, **kinds)
        return [Rule(pattern, parse_rights(rights)) for pattern, rights in rows]

    def policies(self) -> list[Policy]:
        """See `AccountReader`."""
        return [
            Policy(pattern, Visibility(visibility), tuple(json.loads(immutable)))
            for pattern, visibility, immutable in self._sql.all(_POLICIES)
        ]

    def audit(self, before: int, limit: int) -> list[AuditEntry]:
        """See `AccountReader`."""
        rows = self._sql.all(_AUDIT, before=before or _NEWEST, count=limit)
        return [AuditEntry(*row) for row in rows]

    def audit_start(self, keep: int, since: int) -> int:
        """See `AccountReader`."""
        newest = (self._sql.one(_AUDIT_NEWEST) or (None,))[0] or 0
        young = self._sql.one(_AUDIT_SINCE, since=since)
        return max(newest - keep + 1, young[0] if young else newest + 1)

    def has_account_blob(self, account_id: int, digest: str) -> bool:
        """See `AccountReader`."""
        row = self._sql.one(_BLOB, account_id=account_id, digest=digest)
        return row is not None and bool(row[0] > self._clock())


def _subject(kind: str, name: str | None) -> str:
    return f"{kind}:{name}" if kind in {"user", "team"} else kind


class RightsChanges(AccountChanges, RightsQueries):
    """The transaction's methods about rights, and the rest of `AccountWriter`."""

    def put_team(self, name: str) -> Team:
        """See `AccountWriter`."""
        self._sql.run(_ADD_TEAM, key=name.lower(), name=name)
        team = self._team(name)
        assert team is not None
        return team

    def set_members(self, team_id: int, account_ids: Sequence[int]) -> None:
        """See `AccountWriter`."""
        if self._sql.one(_TEAM_BY_ID, id=team_id) is None:
            raise Conflict("the team is not there any more")
        self._sql.run(_DROP_MEMBERS, id=team_id)
        for account_id in account_ids:
            self._expect_account(account_id)
            self._sql.run(_ADD_MEMBER, account_id=account_id, team_id=team_id)
        self._changed()

    def delete_team(self, name: str) -> bool:
        """See `AccountWriter`."""
        team = self._team(name)
        if team is None:
            return False
        self._sql.run(_DELETE_RULES, kind="team", id=team.id)
        self._sql.run(_DELETE_TEAM, id=team.id)
        self._changed()
        return True

    def put_grant(self, subject: str, rule: Rule) -> Grant:
        """See `AccountWriter`."""
        kind, name = parse_subject(subject)
        found = self._named(kind, name)
        values = {
            "kind": kind,
            "subject_id": found[0],
            "pattern": rule.pattern,
            "rights": words(right_words(rule.rights)),
        }
        self._sql.run(_ADD_RULE, **values)
        row = self._sql.one(_RULE, **values)
        assert row is not None
        self._changed()
        return Grant(row[0], _subject(kind, found[1]), rule)

    def _named(self, kind: str, name: str) -> tuple[int, str]:
        """The id and the spelling of whom a rule is for."""
        if kind not in {"user", "team"}:
            return 0, ""
        found = self.account_named(name) if kind == "user" else self._team(name)
        if found is None:
            raise AccountUnknown(name, kind)
        return found.id, found.name

    def delete_grant(self, grant_id: int) -> bool:
        """See `AccountWriter`."""
        self._changed()
        return self._sql.run(_DELETE_RULE, id=grant_id) > 0

    def put_policy(self, policy: Policy) -> None:
        """See `AccountWriter`."""
        self._sql.run(
            _PUT_POLICY,
            pattern=policy.pattern,
            visibility=policy.visibility.value,
            immutable=json.dumps(policy.immutable),
        )
        self._policies_changed()

    def delete_policy(self, pattern: str) -> bool:
        """See `AccountWriter`."""
        self._policies_changed()
        return self._sql.run(_DELETE_POLICY, pattern=pattern) > 0

    def use_nonce(self, key: str, nonce: str, until: int) -> bool:
        """See `AccountWriter`."""
        return self._sql.run(_USE_NONCE, key=key, nonce=nonce, until=until) > 0

    def put_audit(self, entry: AuditEntry) -> None:
        """See `AccountWriter`."""
        values = asdict(entry)
        del values["id"]
        self._sql.run(_ADD_AUDIT, **values)

    def trim_audit(self, start: int, limit: int) -> int:
        """See `AccountWriter`."""
        return self._sql.run(_TRIM_AUDIT, start=start, count=limit)

    def put_account_blob(self, account_id: int, digest: str, until: int) -> None:
        """See `AccountWriter`."""
        self._expect_account(account_id)
        self._sql.run(_PUT_BLOB, account_id=account_id, digest=digest, until=until)

    def forget_expired(self, now: int) -> None:
        """See `AccountWriter`."""
        for statement in _EXPIRED:
            self._sql.run(statement, now=now)
