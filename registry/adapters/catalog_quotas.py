"""Quotas: that part of the catalog's SQL.

A quota is for all repositories below `<namespace>/`. Its row counts up with each blob that becomes
new there and never down: what went is found when the sum is made anew, which is done before
anything is refused. So a check costs one row, and a refusal is always right. Writes follow one
another, those of replicas too, so that no two can use the same room.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import and_, bindparam, delete, func, or_, select, update

from registry.adapters import tables as t
from registry.adapters import tables_upkeep as u
from registry.adapters.catalog_transfers import UNDER_WAY
from registry.adapters.statements import Insert, Queries, Statement
from registry.core.digest import Digest
from registry.core.errors import QuotaExceeded, RepositoryUnknown
from registry.core.names import RepositoryName
from registry.ports.transfers import Upload
from registry.ports.upkeep import Quota

_P = bindparam
_columns = (u.quota.c.namespace, u.quota.c.bytes, u.quota.c.used)
_ALL = Statement(select(*_columns).order_by(u.quota.c.namespace_key))
_ANY = Statement(select(u.quota.c.namespace_key).limit(1))
_OVER = Statement(
    select(*_columns).where(
        or_(u.quota.c.namespace_key == _P("near"), u.quota.c.namespace_key == _P("far"))
    )
)
_PATH = Statement(select(t.repository.c.path_key).where(t.repository.c.id == _P("repository")))
_SIZE = Statement(select(t.blob.c.digest, t.blob.c.size).where(t.blob.c.digest == _P("digest")))
_within = and_(t.repository.c.path_key >= _P("start"), t.repository.c.path_key < _P("stop"))
_lives = or_(t.repository_blob.c.uses > 0, t.repository_blob.c.until > _P("now"))
_links = (
    select(t.repository_blob.c.digest)
    .join(t.repository, t.repository.c.id == t.repository_blob.c.repository_id)
    .where(_within, _lives)
)
_HAS = Statement(_links.where(t.repository_blob.c.digest == _P("digest")).limit(1))
_SUM = Statement(select(func.sum(t.blob.c.size)).where(t.blob.c.digest.in_(_links)))
_RESERVED = Statement(
    select(func.sum(t.upload.c.reserved))
    .join(t.repository, t.repository.c.id == t.upload.c.repository_id)
    .where(
        _within,
        UNDER_WAY,
        t.upload.c.expires_at > _P("now"),
        t.upload.c.id != _P("but"),
    )
)


def _put_quota(insert: Any) -> Any:
    row: Insert = insert(u.quota).values({item.name: _P(item.name) for item in u.quota.c})
    return row.on_conflict_do_update(
        index_elements=[u.quota.c.namespace_key],
        set_={name: row.excluded[name] for name in ("namespace", "bytes", "used")},
    )


_PUT = Statement(_put_quota)
_DELETE = Statement(delete(u.quota).where(u.quota.c.namespace_key == _P("key")))
_SET_USED = Statement(
    update(u.quota).where(u.quota.c.namespace_key == _P("b_key")).values(used=_P("used"))
)
_SET_RESERVED = Statement(
    update(t.upload).where(t.upload.c.id == _P("b_id")).values(reserved=_P("size"))
)


def bounds(namespace: str) -> dict[str, str]:
    """The keys of a namespace's repositories: from `team/` to `team0`, which follows all of it."""
    key = namespace.lower()
    return {"start": f"{key}/", "stop": f"{key}0"}


def _ancestors(path_key: str) -> dict[str, str]:
    """The namespaces that a repository is in: one, or two where a host is named."""
    near = path_key.rpartition("/")[0]
    return {"near": near, "far": near.partition("/")[0]}


class QuotaQueries(Queries):
    """The reader's methods about quotas."""

    def has_quotas(self) -> bool:
        """See `UpkeepReader`."""
        return self._sql.one(_ANY) is not None

    def quotas(self) -> list[Quota]:
        """See `UpkeepReader`."""
        return [Quota(*row) for row in self._sql.all(_ALL)]

    def check_room(self, name: RepositoryName, blobs: Sequence[tuple[Digest, int]]) -> None:
        """See `UpkeepReader`."""
        for quota in self._over(name.key):
            wanted = sum(
                size for digest, size in dict(blobs).items() if not self._has(quota, str(digest))
            )
            self._fit(quota, wanted)

    def _over(self, path_key: str) -> list[Quota]:
        return [Quota(*row) for row in self._sql.all(_OVER, **_ancestors(path_key))]

    def _has(self, quota: Quota, digest: str) -> bool:
        """Whether a repository of the namespace has the blob, and something keeps it there."""
        now = self._clock()
        return self._sql.one(_HAS, **bounds(quota.namespace), digest=digest, now=now) is not None

    def _sum(self, quota: Quota) -> int:
        row = self._sql.one(_SUM, **bounds(quota.namespace), now=self._clock())
        return int((row and row[0]) or 0)

    def _fit(self, quota: Quota, wanted: int, but: str = "") -> int:
        """Let pass what fits beside what is there and reserved, but for that session's own part.

        Returns:
            What is used without it; less than the row says if the sum had to be made anew.

        Raises:
            QuotaExceeded: it does not fit.
        """
        if not wanted:
            return quota.used
        row = self._sql.one(_RESERVED, **bounds(quota.namespace), now=self._clock(), but=but)
        reserved = int((row and row[0]) or 0)
        used = quota.used
        if used + reserved + wanted > quota.size:
            used = self._sum(quota)
        if used + reserved + wanted > quota.size:
            raise QuotaExceeded(quota.namespace, quota.size, used + reserved, wanted)
        return used


class QuotaChanges(QuotaQueries):
    """The transaction's methods about quotas."""

    def put_quota(self, namespace: str, size: int) -> Quota:
        """See `UpkeepWriter`."""
        quota = Quota(namespace, size, 0)
        quota = replace(quota, used=self._sum(quota))
        self._sql.run(
            _PUT,
            namespace_key=namespace.lower(),
            namespace=namespace,
            bytes=size,
            used=quota.used,
        )
        return quota

    def delete_quota(self, namespace: str) -> bool:
        """See `UpkeepWriter`."""
        return self._sql.run(_DELETE, key=namespace.lower()) > 0

    def reserve(self, upload: Upload, size: int) -> Upload:
        """See `UpkeepWriter`."""
        if not self.has_quotas():
            return upload
        row = self._sql.one(_PATH, repository=upload.repository_id)
        if row is None:
            raise RepositoryUnknown("repository name not known to registry")
        quotas = self._over(row[0])
        for quota in quotas:
            self._set_used(quota, self._fit(quota, size, upload.id))
        if quotas:
            self._sql.run(_SET_RESERVED, b_id=upload.id, size=size)
            return replace(upload, reserved=size)
        return upload

    def charge(self, repository_id: int, digests: Sequence[str]) -> None:
        """Count blobs that are about to become a repository's.

        Raises:
            QuotaExceeded: they do not fit.
        """
        if not self.has_quotas():
            return
        row = self._sql.one(_PATH, repository=repository_id)
        for quota in self._over(row[0]) if row else ():
            sizes = [self._sql.one(_SIZE, digest=item) for item in digests]
            new = sum(found[1] for found in sizes if found and not self._has(quota, found[0]))
            if new:
                self._set_used(quota, self._fit(quota, new) + new)

    def _set_used(self, quota: Quota, used: int) -> None:
        if used != quota.used:
            self._sql.run(_SET_USED, b_key=quota.namespace.lower(), used=used)
