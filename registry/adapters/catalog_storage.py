"""How many bytes there are, of what, and whose they are alone: sums made by the database.

None of them loads a row per blob, and each is for what was asked: a namespace's costs what the
namespace has. Reached through an index: what no manifest refers to, sessions, fetches.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Select,
    bindparam,
    case,
    distinct,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
)

from registry.adapters import tables as t
from registry.adapters import tables_upkeep as u
from registry.adapters.catalog_blobs import unheld
from registry.adapters.catalog_names import HAS_MANIFESTS
from registry.adapters.catalog_quotas import bounds
from registry.adapters.catalog_transfers import UNDER_WAY
from registry.adapters.catalog_upkeep import untagged
from registry.adapters.statements import Queries, Statement
from registry.core.digest import Digest
from registry.core.names import RepositoryName
from registry.ports.upkeep import Shares, Tally

_P = bindparam
# Not a parameter: the indexes of unused rows are found by this text.
_ZERO: ColumnElement[int] = literal_column("0")
_NO_SIZE = literal(0)
_NEVER = 1 << 62


def _tally(size: Any, since: Any, *conditions: ColumnElement[bool]) -> Statement:
    return Statement(
        select(func.count(), func.sum(size), func.min(since)).where(true(), *conditions)
    )


_blob, _upload, _fetch, _part = t.blob.c, t.upload.c, t.fetch.c, t.fetch_part.c
_BLOBS = _tally(_blob.size, _blob.created_at)
_UNUSED = _tally(_blob.size, _blob.used_at, _blob.uses == _ZERO)
_OLD: Any = select(func.count(), func.sum(_blob.size), func.min(_blob.used_at))
_UNREFERENCED = Statement(unheld(_OLD.where(_blob.used_at < _P("used_before"))))
_UPLOADS = _tally(_upload.offset, _upload.created_at, UNDER_WAY)
_EXPIRED = _tally(_upload.offset, _upload.created_at, UNDER_WAY, _upload.expires_at <= _P("by"))
_FETCHED = (
    select(func.sum(_part.done)).where(_part.digest == _fetch.digest).correlate(t.fetch)
).scalar_subquery()
_FETCHES = _tally(_FETCHED, _fetch.updated_at)
_STALE = _tally(_FETCHED, _fetch.updated_at, _fetch.updated_at < _P("before"))
_PAST = _tally(_NO_SIZE, u.condemned.c.at, u.condemned.c.at < _P("before"))
_IS_BLOB = Statement(select(_blob.size).where(_blob.digest == _P("digest")))
_FREED = Statement(select(func.count(), _NO_SIZE, _NO_SIZE).select_from(t.freed))

_FIRST_PATH = Statement(
    select(t.repository.c.path_key, t.repository.c.path)
    .where(t.repository.c.path_key >= _P("start"))
    .where(HAS_MANIFESTS)
    .order_by(t.repository.c.path_key)
    .limit(1)
)
_WITHIN = (t.repository.c.path_key >= _P("start"), t.repository.c.path_key < _P("stop"))
_IN_NAMESPACE = Statement(
    select(t.repository.c.id, t.repository.c.path)
    .where(*_WITHIN, t.repository.c.path_key > _P("after"))
    .where(HAS_MANIFESTS)
    .order_by(t.repository.c.path_key)
    .limit(_P("count"))
)

_links = t.repository_manifest.c


def _shares(scope: CTE, outside: ColumnElement[bool]) -> Statement:
    """Sums over the blobs of a scope's manifests.

    `outside` tells of `scope.c.digest` whether something beyond the scope keeps that manifest too.
    A blob is the scope's alone if as many manifests refer to it as do within.
    """
    reference = t.manifest_reference.c
    inside = case((~outside, reference.manifest_digest))
    each = (
        select(_blob.size, _blob.uses, func.count(distinct(inside)).label("own"))
        .join_from(scope, t.manifest_reference, reference.manifest_digest == scope.c.digest)
        .join(t.blob, _blob.digest == reference.target)
        .where(reference.is_blob == true())
        .group_by(_blob.digest, _blob.size, _blob.uses)
        .subquery()
    )
    alone = case((each.c.own == each.c.uses, each.c.size), else_=0)
    return Statement(select(func.count(), func.sum(each.c.size), func.sum(alone)))


def _elsewhere(scope: CTE, here: Select[Any]) -> ColumnElement[bool]:
    """Whether a repository that is not one of `here` has the manifest."""
    other = t.repository_manifest.alias("other")
    return (
        select(other.c.digest)
        .where(other.c.digest == scope.c.digest, other.c.repository_id.not_in(here))
        .correlate(scope)
        .exists()
    )


def _namespace_shares() -> Statement:
    here = select(t.repository.c.id).where(*_WITHIN)
    scope = select(_links.digest).distinct().where(_links.repository_id.in_(here))
    cte = scope.cte("scope")
    return _shares(cte, _elsewhere(cte, here))


def _repository_shares() -> Statement:
    here = select(_P("repository", type_=_links.repository_id.type))
    scope = select(_links.digest.label("digest")).where(_links.repository_id == _P("repository"))
    cte = scope.cte("scope")
    return _shares(cte, _elsewhere(cte, here))


def _tag_shares() -> Statement:
    reference = t.manifest_reference.c
    first = select(t.tag.c.manifest_digest.label("digest")).where(
        t.tag.c.repository_id == _P("repository"), t.tag.c.name_key == _P("tag")
    )
    scope = first.cte("scope", recursive=True)
    scope = scope.union(  # an index, and the manifests that it lists
        select(reference.target)
        .join_from(scope, t.manifest_reference, reference.manifest_digest == scope.c.digest)
        .where(reference.is_blob == false())
    )
    here = select(_P("repository", type_=_links.repository_id.type))
    other_tag = t.tag.alias("other_tag").c
    tagged = (
        select(other_tag.name_key)
        .where(
            other_tag.manifest_digest == scope.c.digest,
            other_tag.repository_id == _P("repository"),
            other_tag.name_key != _P("tag"),
        )
        .correlate(scope)
        .exists()
    )
    return _shares(scope, or_(_elsewhere(scope, here), tagged))


def _condemned_shares() -> Statement:
    waits, other = u.condemned.c, t.repository_manifest.alias("other").c
    scope = select(waits.digest).distinct().where(waits.at < _P("before"))
    cte = scope.cte("scope")
    goes = select(waits.digest).where(
        waits.digest == other.digest,
        waits.repository_id == other.repository_id,
        waits.at < _P("before"),
    )
    tagged = select(t.tag.c.name).where(
        t.tag.c.manifest_digest == other.digest, t.tag.c.repository_id == other.repository_id
    )
    stays = select(other.digest).where(
        other.digest == cte.c.digest, or_(~goes.exists(), tagged.exists())
    )
    return _shares(cte, stays.correlate(cte).exists())


def _untagged_shares() -> Statement:
    goes, other = untagged().cte("goes"), t.repository_manifest.alias("other").c
    scope = select(goes.c.digest).distinct().cte("scope")
    stays = (
        select(other.digest)
        .where(other.digest == scope.c.digest)
        .where(
            ~select(goes.c.digest)
            .where(goes.c.digest == other.digest, goes.c.repository_id == other.repository_id)
            .exists()
        )
    )
    return _shares(scope, stays.correlate(scope).exists())


_UNTAGGED_SHARES = _untagged_shares()
_UNTAGGED = Statement(select(func.count(), _NO_SIZE, _NO_SIZE).select_from(untagged().subquery()))
_CONDEMNED_SHARES = _condemned_shares()
_NAMESPACE_SHARES = _namespace_shares()
_REPOSITORY_SHARES = _repository_shares()
_TAG_SHARES = _tag_shares()


class StorageQueries(Queries):
    """The reader's methods about bytes."""

    def blob_tally(self) -> Tally:
        """See `UpkeepReader`."""
        return self._tally(_BLOBS)

    def unused_tally(self) -> Tally:
        """See `UpkeepReader`."""
        return self._tally(_UNUSED)

    def unreferenced_tally(self, used_before: int, now: int) -> Tally:
        """See `UpkeepReader`."""
        return self._tally(_UNREFERENCED, used_before=used_before, now=now)

    def upload_tally(self, expired_by: int | None = None) -> Tally:
        """See `UpkeepReader`."""
        if expired_by is None:
            return self._tally(_UPLOADS)
        return self._tally(_EXPIRED, by=expired_by)

    def fetch_tally(self, updated_before: int | None = None) -> Tally:
        """See `UpkeepReader`."""
        if updated_before is None:
            return self._tally(_FETCHES)
        return self._tally(_STALE, before=updated_before)

    def condemned_tally(self, before: int | None = None) -> Tally:
        """See `UpkeepReader`."""
        before = _NEVER if before is None else before
        tally = self._tally(_PAST, before=before)
        return replace(tally, size=self._shares(_CONDEMNED_SHARES, before=before).unique)

    def unknown(self, digests: Sequence[Digest]) -> list[Digest]:
        """See `UpkeepReader`."""
        return [one for one in digests if self._sql.one(_IS_BLOB, digest=str(one)) is None]

    def untagged_tally(self, before: int) -> Tally:
        """See `UpkeepReader`."""
        tally = self._tally(_UNTAGGED, before=before)
        return replace(tally, size=self._shares(_UNTAGGED_SHARES, before=before).unique)

    def freed_tally(self) -> Tally:
        """See `UpkeepReader`."""
        return self._tally(_FREED)

    def _tally(self, statement: Statement, **values: Any) -> Tally:
        row = self._sql.one(statement, **values)
        assert row is not None
        return Tally(*(int(value or 0) for value in row))

    def namespaces(self, after: str, limit: int) -> list[str]:
        """See `UpkeepReader`."""
        found: list[str] = []
        start = bounds(after)["stop"] if after else ""
        while len(found) < limit and (row := self._sql.one(_FIRST_PATH, start=start)):
            key, path = row
            found.append(path.rpartition("/")[0])
            start = bounds(key.rpartition("/")[0])["stop"]
        return found

    def namespace_shares(self, namespace: str) -> Shares:
        """See `UpkeepReader`."""
        return self._shares(_NAMESPACE_SHARES, **bounds(namespace))

    def repository_shares(self, repository_id: int) -> Shares:
        """See `UpkeepReader`."""
        return self._shares(_REPOSITORY_SHARES, repository=repository_id)

    def tag_shares(self, repository_id: int, tag: str) -> Shares:
        """See `UpkeepReader`."""
        return self._shares(_TAG_SHARES, repository=repository_id, tag=tag.lower())

    def _shares(self, statement: Statement, **values: Any) -> Shares:
        row = self._sql.one(statement, **values)
        assert row is not None
        return Shares(*(int(value or 0) for value in row))

    def repositories_in(
        self, namespace: str, after: str, limit: int
    ) -> list[tuple[int, RepositoryName]]:
        """See `UpkeepReader`."""
        rows = self._sql.all(_IN_NAMESPACE, **bounds(namespace), after=after.lower(), count=limit)
        return [(id_, RepositoryName(path)) for id_, path in rows]
