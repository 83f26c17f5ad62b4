"""History of tags, manifests that wait to go, soundness of blobs, retention rules: their SQL."""

import json
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    delete,
    false,
    func,
    literal_column,
    or_,
    select,
    update,
)

from registry.adapters import tables as t
from registry.adapters import tables_upkeep as u
from registry.adapters.statements import Insert, Queries, Row, Statement, digest_of
from registry.core.digest import Digest
from registry.core.names import RepositoryName
from registry.core.retention import RetentionRule
from registry.ports.upkeep import Condemned, KeptTag, Suspect, TagEvent

_P = bindparam
# Not a parameter: the index of suspect rows is found by this text.
IS_SUSPECT: ColumnElement[bool] = t.blob.c.suspect_at > literal_column("0")
_SHOWN_REPOSITORIES = 10

_event = t.tag_event.c
_HISTORY = Statement(
    select(
        _event.id,
        _event.name,
        _event.at,
        _event.old_digest,
        _event.new_digest,
        _event.subject,
        select(t.repository_manifest.c.digest)
        .where(
            t.repository_manifest.c.repository_id == _event.repository_id,
            t.repository_manifest.c.digest == func.coalesce(_event.new_digest, _event.old_digest),
        )
        .exists(),
    )
    .where(
        _event.repository_id == _P("repository"),
        _event.id < _P("before"),
        or_(_P("every", type_=_event.id.type) == 1, func.lower(_event.name) == _P("tag")),
        # a tag that was put again where it was is not moved
        func.coalesce(_event.old_digest, "") != func.coalesce(_event.new_digest, ""),
    )
    .order_by(_event.id.desc())
    .limit(_P("count"))
)
_CONDEMNED = Statement(
    select(u.condemned.c.repository_id, u.condemned.c.digest, u.condemned.c.at)
    .where(u.condemned.c.at < _P("before"))
    .order_by(u.condemned.c.at)
    .limit(_P("count"))
)
_here = t.repository_manifest.c


def untagged() -> Select[Any]:
    """Manifests of repositories that nothing has needed since `before`."""
    child, parent = t.manifest_reference.c, t.repository_manifest.alias("parent").c
    subject = t.repository_manifest.alias("subject").c
    tagged = select(t.tag.c.name).where(
        t.tag.c.repository_id == _here.repository_id, t.tag.c.manifest_digest == _here.digest
    )
    listed = (
        select(child.position)
        .where(child.target == _here.digest, child.is_blob == false())
        .where(parent.digest == child.manifest_digest)
        .where(parent.repository_id == _here.repository_id)
    )
    attached = select(subject.digest).where(
        subject.digest == t.manifest.c.subject, subject.repository_id == _here.repository_id
    )
    was_tagged = select(_event.id).where(
        _event.repository_id == _here.repository_id,
        _event.old_digest == _here.digest,
        _event.at >= _P("before"),
    )
    return (
        select(_here.repository_id, _here.digest)
        .join_from(t.repository_manifest, t.manifest, t.manifest.c.digest == _here.digest)
        .where(_here.created_at < _P("before"))
        .where(~tagged.exists(), ~listed.exists(), ~attached.exists(), ~was_tagged.exists())
    )


_UNTAGGED = Statement(untagged().limit(_P("count")))
_SUSPECTS = Statement(
    select(t.blob.c.digest, t.blob.c.size, t.blob.c.suspect_at)
    .where(IS_SUSPECT, t.blob.c.digest > _P("after"))
    .order_by(t.blob.c.digest)
    .limit(_P("count"))
)
_HOLDERS = Statement(
    select(t.repository.c.path)
    .join(t.repository_blob, t.repository_blob.c.repository_id == t.repository.c.id)
    .where(t.repository_blob.c.digest == _P("digest"))
    .limit(_P("count"))
)
_RULES = Statement(select(u.retention_rule).order_by(u.retention_rule.c.pattern))
_leased = (
    select(t.lease.c.digest)
    .join(t.manifest_reference, t.manifest_reference.c.target == t.lease.c.digest)
    .where(
        t.manifest_reference.c.manifest_digest == t.tag.c.manifest_digest,
        t.lease.c.until > _P("now"),
    )
    .exists()
)
_KEPT_TAGS = Statement(
    select(
        t.tag.c.name, t.tag.c.manifest_digest, t.tag.c.updated_at, case((_leased, 1), else_=0)
    ).where(t.tag.c.repository_id == _P("repository"))
)


def _condemn(insert: Any) -> Any:
    row: Insert = insert(u.condemned).values(
        repository_id=_P("repository"), digest=_P("digest"), at=_P("at")
    )
    return row.on_conflict_do_update(
        index_elements=[u.condemned.c.repository_id, u.condemned.c.digest],
        set_={"at": row.excluded["at"]},
    )


def _put_rule(insert: Any) -> Any:
    columns = u.retention_rule.c
    row: Insert = insert(u.retention_rule).values({item.name: _P(item.name) for item in columns})
    return row.on_conflict_do_update(
        index_elements=[columns.pattern],
        set_={name: row.excluded[name] for name in ("keep_last", "keep_s", "keep_tags")},
    )


_CONDEMN = Statement(_condemn)
SPARE = Statement(
    delete(u.condemned).where(
        u.condemned.c.repository_id == _P("repository"), u.condemned.c.digest == _P("digest")
    )
)
_SAME_BYTES = and_(t.blob.c.digest == _P("b_digest"), t.blob.c.storage_key == _P("b_storage_key"))
_VERIFIED = Statement(update(t.blob).where(_SAME_BYTES).values(verified_at=_P("now"), suspect_at=0))
_SUSPECT = Statement(update(t.blob).where(_SAME_BYTES).values(suspect_at=_P("now")))
_PUT_RULE = Statement(_put_rule)
_DELETE_RULE = Statement(
    delete(u.retention_rule).where(u.retention_rule.c.pattern == _P("pattern"))
)


def _event_of(row: Row) -> TagEvent:
    id_, name, at, old, new, who, kept = row
    old_digest = digest_of(old) if old else None
    return TagEvent(id_, name, at, old_digest, digest_of(new) if new else None, who, bool(kept))


def _rule(row: Row) -> RetentionRule:
    pattern, keep_last, keep_s, keep_tags = row
    return RetentionRule(pattern, keep_last, keep_s, tuple(json.loads(keep_tags)))


class UpkeepQueries(Queries):
    """The reader's methods about history, soundness and retention."""

    def history(self, repository_id: int, tag: str, before: int, limit: int) -> list[TagEvent]:
        """See `UpkeepReader`."""
        rows = self._sql.all(
            _HISTORY,
            repository=repository_id,
            tag=tag.lower(),
            every=0 if tag else 1,
            before=before,
            count=limit,
        )
        return [_event_of(row) for row in rows]

    def condemned(self, before: int, limit: int) -> list[Condemned]:
        """See `UpkeepReader`."""
        rows = self._sql.all(_CONDEMNED, before=before, count=limit)
        return [Condemned(id_, digest_of(digest), at) for id_, digest, at in rows]

    def untagged(self, before: int, limit: int) -> list[tuple[int, Digest]]:
        """See `UpkeepReader`."""
        rows = self._sql.all(_UNTAGGED, before=before, count=limit)
        return [(id_, digest_of(digest)) for id_, digest in rows]

    def suspects(self, after: str, limit: int) -> list[Suspect]:
        """See `UpkeepReader`."""
        found = []
        for digest, size, at in self._sql.all(_SUSPECTS, after=after, count=limit):
            paths = self._sql.all(_HOLDERS, digest=digest, count=_SHOWN_REPOSITORIES)
            names = tuple(RepositoryName(path) for (path,) in paths)
            found.append(Suspect(digest_of(digest), size, at, names))
        return found

    def retention_rules(self) -> list[RetentionRule]:
        """See `UpkeepReader`."""
        return [_rule(row) for row in self._sql.all(_RULES)]

    def kept_tags(self, repository_id: int, now: int) -> list[KeptTag]:
        """See `UpkeepReader`."""
        rows = self._sql.all(_KEPT_TAGS, repository=repository_id, now=now)
        return [KeptTag(name, digest_of(text), at, bool(held)) for name, text, at, held in rows]


class UpkeepChanges(UpkeepQueries):
    """The transaction's methods about them."""

    def condemn(self, repository_id: int, digest: Digest, now: int) -> None:
        """See `UpkeepWriter`."""
        self._sql.run(_CONDEMN, repository=repository_id, digest=str(digest), at=now)

    def spare(self, repository_id: int, digest: Digest) -> None:
        """See `UpkeepWriter`."""
        self._sql.run(SPARE, repository=repository_id, digest=str(digest))

    def verified(self, digest: Digest, storage_key: str, now: int) -> bool:
        """See `UpkeepWriter`."""
        same = {"b_digest": str(digest), "b_storage_key": storage_key}
        return self._sql.run(_VERIFIED, **same, now=now) > 0

    def suspect(self, digest: Digest, storage_key: str, now: int) -> bool:
        """See `UpkeepWriter`."""
        same = {"b_digest": str(digest), "b_storage_key": storage_key}
        return self._sql.run(_SUSPECT, **same, now=now) > 0

    def put_retention_rule(self, rule: RetentionRule) -> None:
        """See `UpkeepWriter`."""
        self._sql.run(
            _PUT_RULE,
            pattern=rule.pattern,
            keep_last=rule.keep_last,
            keep_s=rule.keep_s,
            keep_tags=json.dumps(rule.keep_tags),
        )

    def delete_retention_rule(self, pattern: str) -> bool:
        """See `UpkeepWriter`."""
        return self._sql.run(_DELETE_RULE, pattern=pattern) > 0
