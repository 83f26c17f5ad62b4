"""Blobs, who may read them and what keeps them: that part of the catalog's SQL.

A blob is held by a manifest that refers to it, by a link or lease that has not run out, or by its
grace, which is the caller's to judge from `used_at`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    bindparam,
    case,
    delete,
    literal,
    literal_column,
    select,
    tuple_,
    update,
)

from registry.adapters import tables as t
from registry.adapters.catalog_quotas import QuotaChanges
from registry.adapters.statements import Insert, Queries, Row, Statement, digest_of
from registry.core.digest import Digest
from registry.core.errors import BlobUnknown
from registry.core.names import RepositoryName
from registry.ports.catalog import Blob, FactsKind, Freed

_P = bindparam
# Not a parameter: the indexes of unused rows are found by this text.
_ZERO: ColumnElement[int] = literal_column("0")
_COLUMNS = (
    t.blob.c.digest,
    t.blob.c.size,
    t.blob.c.storage_key,
    t.blob.c.created_at,
    t.blob.c.used_at,
    t.blob.c.suspect_at,
)
_BLOB = Statement(select(*_COLUMNS).where(t.blob.c.digest == _P("digest")))
_BLOBS_AFTER = Statement(
    select(*_COLUMNS)
    .where(t.blob.c.digest > _P("after"))
    .order_by(t.blob.c.digest)
    .limit(_P("count"))
)
_ALIAS = Statement(select(t.blob_alias.c.digest).where(t.blob_alias.c.alias == _P("alias")))
_LINK = (
    t.repository_blob.c.repository_id == _P("repository"),
    t.repository_blob.c.digest == _P("digest"),
)
_USES = Statement(select(t.repository_blob.c.uses, t.repository_blob.c.until).where(*_LINK))
_REPOSITORIES = Statement(
    select(t.repository.c.path)
    .join(t.repository_blob, t.repository_blob.c.repository_id == t.repository.c.id)
    .where(t.repository_blob.c.digest == _P("digest"))
    .limit(_P("count"))
)
_OF_BLOB = (t.blob_facts.c.digest == _P("digest"), t.blob_facts.c.kind == _P("kind"))
_HAS_FACTS = Statement(select(t.blob_facts.c.digest).where(*_OF_BLOB))
_FACTS = Statement(select(t.blob_facts.c.facts).where(*_OF_BLOB))


def unheld(blobs: Select[Any]) -> Select[Any]:
    """Those of the blobs that nothing holds at the time `now`."""
    links, leases = t.repository_blob.c, t.lease.c
    return blobs.where(
        t.blob.c.uses == _ZERO,
        ~select(links.digest)
        .where(links.digest == t.blob.c.digest, links.uses == _ZERO, links.until > _P("now"))
        .exists(),
        ~select(leases.digest)
        .where(leases.digest == t.blob.c.digest, leases.until > _P("now"))
        .exists(),
    )


_UNREFERENCED = Statement(
    unheld(select(*_COLUMNS).where(t.blob.c.used_at < _P("used_before")))
    .order_by(t.blob.c.used_at)
    .limit(_P("count"))
)
_IF_UNHELD = Statement(unheld(select(*_COLUMNS).where(t.blob.c.digest == _P("digest"))))
_FREED = Statement(
    select(t.freed.c.digest, t.freed.c.storage_key)
    .order_by(t.freed.c.digest, t.freed.c.storage_key)
    .limit(_P("count"))
)

Inserter = Callable[[Any], Insert]


def _put_blob(insert: Inserter) -> Any:
    names = ("digest", "size", "created_at", "used_at", "storage_key")
    row = insert(t.blob).values({name: _P(name) for name in names} | {"uses": 0})
    return row.on_conflict_do_update(
        index_elements=[t.blob.c.digest],
        set_={"used_at": _later(t.blob.c.used_at, row.excluded.used_at)},
    ).returning(*_COLUMNS)


def _later(old: Any, new: Any) -> Any:
    """The greater of two; spelt out because max() and GREATEST are each one dialect's."""
    return case((old > new, old), else_=new)


def _link(insert: Inserter) -> Any:
    columns = t.repository_blob.c
    known = select(
        _P("repository", type_=columns.repository_id.type),
        t.blob.c.digest,
        _P("until", type_=columns.until.type),
        literal(0),
    ).where(t.blob.c.digest == _P("digest"))
    row = insert(t.repository_blob).from_select(["repository_id", "digest", "until", "uses"], known)
    return row.on_conflict_do_update(
        index_elements=[columns.repository_id, columns.digest],
        set_={"until": _later(columns.until, row.excluded.until)},
    )


def _lease(insert: Inserter) -> Any:
    row = insert(t.lease).from_select(
        ["digest", "holder", "until"],
        select(
            t.blob.c.digest,
            _P("holder", type_=t.lease.c.holder.type),
            _P("until", type_=t.lease.c.until.type),
        ).where(t.blob.c.digest == _P("digest"), t.blob.c.suspect_at == 0),
    )
    return row.on_conflict_do_update(
        index_elements=[t.lease.c.digest, t.lease.c.holder],
        set_={"until": _later(t.lease.c.until, row.excluded.until)},
    )


def _put_facts(insert: Inserter) -> Any:
    row = insert(t.blob_facts).values({name: _P(name) for name in ("digest", "kind", "facts")})
    return row.on_conflict_do_update(
        index_elements=[t.blob_facts.c.digest, t.blob_facts.c.kind],
        set_={"facts": row.excluded.facts},
    )


_PUT_BLOB = Statement(_put_blob)
_REPLACE_BYTES = Statement(
    update(t.blob)
    .where(t.blob.c.digest == _P("b_digest"))
    .values(storage_key=_P("storage_key"), verified_at=_P("now"), suspect_at=0)
)
_TOUCH = Statement(
    update(t.blob)
    .where(t.blob.c.digest == _P("b_digest"))
    .values(used_at=_later(t.blob.c.used_at, _P("used", type_=t.blob.c.used_at.type)))
)
_TAKE_BACK = Statement(
    delete(t.freed).where(
        t.freed.c.digest == _P("digest"), t.freed.c.storage_key == _P("storage_key")
    )
)
_PUT_ALIAS = Statement(
    lambda insert: (
        insert(t.blob_alias).values(alias=_P("alias"), digest=_P("digest")).on_conflict_do_nothing()
    )
)
_PUT_LINK = Statement(_link)
_UNLINK = Statement(delete(t.repository_blob).where(*_LINK, t.repository_blob.c.uses == _ZERO))
_SPEND = Statement(
    update(t.repository_blob)
    .where(t.repository_blob.c.repository_id == _P("b_repository"))
    .where(t.repository_blob.c.digest == _P("b_digest"))
    .values(until=0)
)
_EXPIRED_LINKS = (
    select(t.repository_blob.c.repository_id, t.repository_blob.c.digest)
    .where(t.repository_blob.c.uses == _ZERO, t.repository_blob.c.until <= _P("now"))
    .limit(_P("count"))
)
_EXPIRE_LINKS = Statement(
    delete(t.repository_blob).where(
        tuple_(t.repository_blob.c.repository_id, t.repository_blob.c.digest).in_(_EXPIRED_LINKS)
    )
)
_EXPIRED_LEASES = (
    select(t.lease.c.digest, t.lease.c.holder)
    .where(t.lease.c.until <= _P("now"))
    .limit(_P("count"))
)
_EXPIRE_LEASES = Statement(
    delete(t.lease).where(tuple_(t.lease.c.digest, t.lease.c.holder).in_(_EXPIRED_LEASES))
)
_LEASE = Statement(_lease)
_RELEASE = Statement(delete(t.lease).where(t.lease.c.holder == _P("holder")))
_PUT_FACTS = Statement(_put_facts)
_DROP_LINKS = Statement(
    delete(t.repository_blob).where(
        t.repository_blob.c.digest == _P("digest"), t.repository_blob.c.uses == _ZERO
    )
)
_FREE = Statement(delete(t.blob).where(t.blob.c.digest == _P("digest")))
_ADD_FREED = Statement(
    lambda insert: (
        insert(t.freed)
        .values(digest=_P("digest"), storage_key=_P("storage_key"))
        .on_conflict_do_nothing()
    )
)


def _blob(row: Row) -> Blob:
    digest, size, storage_key, created_at, used_at, suspect_at = row
    return Blob(digest_of(digest), size, storage_key, created_at, used_at, suspect_at > 0)


class BlobReader(Queries):
    """The reader's methods about blobs."""

    def _own(self, digest: Digest) -> str:
        """The sha256 of the blob that a digest names; the digest itself if no alias is known."""
        if digest.algorithm != "sha256":
            row = self._sql.one(_ALIAS, alias=str(digest))
            if row:
                return str(row[0])
        return str(digest)

    def blob(self, digest: Digest) -> Blob | None:
        """See `Reader`."""
        row = self._sql.one(_BLOB, digest=self._own(digest))
        return _blob(row) if row else None

    def has_blob(self, repository_id: int, digest: Digest) -> bool:
        """See `Reader`."""
        return self._uses(repository_id, digest) is not None

    def kept_until(self, repository_id: int, digest: Digest) -> int | None:
        """See `Reader`."""
        row = self._uses(repository_id, digest)
        return row[1] if row else None

    def blob_repositories(self, digest: Digest, limit: int) -> list[RepositoryName]:
        """See `Reader`."""
        rows = self._sql.all(_REPOSITORIES, digest=self._own(digest), count=limit)
        return [RepositoryName(path) for (path,) in rows]

    def blob_in_use(self, repository_id: int, digest: Digest) -> bool:
        """See `Reader`."""
        row = self._uses(repository_id, digest)
        return bool(row and row[0])

    def _uses(self, repository_id: int, digest: Digest) -> Row | None:
        """How often manifests refer to a blob of a repository, and until when its link keeps it."""
        return self._sql.one(_USES, repository=repository_id, digest=self._own(digest))

    def has_facts(self, digest: Digest, kind: FactsKind) -> bool:
        """See `Reader`."""
        return self._sql.one(_HAS_FACTS, digest=self._own(digest), kind=kind) is not None

    def facts(self, digest: Digest, kind: FactsKind) -> bytes | None:
        """See `Reader`."""
        row = self._sql.one(_FACTS, digest=self._own(digest), kind=kind)
        return row[0] if row else None

    def unreferenced(self, used_before: int, now: int, limit: int) -> list[Blob]:
        """See `Reader`."""
        rows = self._sql.all(_UNREFERENCED, used_before=used_before, now=now, count=limit)
        return [_blob(row) for row in rows]

    def freed(self, limit: int) -> list[Freed]:
        """See `Reader`."""
        rows = self._sql.all(_FREED, count=limit)
        return [Freed(digest_of(digest), key) for digest, key in rows]

    def blobs_after(self, digest: str, limit: int) -> list[Blob]:
        """See `Reader`."""
        return [_blob(row) for row in self._sql.all(_BLOBS_AFTER, after=digest, count=limit)]


class BlobWriter(BlobReader, QuotaChanges):
    """The transaction's methods about blobs."""

    def put_blob(self, digest: Digest, size: int, storage_key: str, now: int) -> Blob:
        """See `Transaction`."""
        row = self._sql.one(
            _PUT_BLOB,
            digest=str(digest),
            size=size,
            storage_key=storage_key,
            created_at=now,
            used_at=now,
        )
        assert row is not None
        blob = _blob(row)
        if blob.suspect:
            blob = self._replace_bytes(blob, storage_key, now)
        elif blob.storage_key != storage_key:
            self._sql.run(_ADD_FREED, digest=str(digest), storage_key=storage_key)
        # bytes freed under another key stay freed: keys are never used again
        self._sql.run(_TAKE_BACK, digest=str(digest), storage_key=blob.storage_key)
        return blob

    def _replace_bytes(self, blob: Blob, storage_key: str, now: int) -> Blob:
        """Let a suspect blob have sound bytes."""
        own = str(blob.digest)
        self._sql.run(_REPLACE_BYTES, b_digest=own, storage_key=storage_key, now=now)
        if blob.storage_key != storage_key:
            self._sql.run(_ADD_FREED, digest=own, storage_key=blob.storage_key)
        return replace(blob, storage_key=storage_key, suspect=False)

    def touch_blob(self, digest: Digest, now: int) -> bool:
        """See `Transaction`."""
        return self._sql.run(_TOUCH, b_digest=self._own(digest), used=now) > 0

    def alias_blob(self, alias: Digest, digest: Digest) -> None:
        """See `Transaction`."""
        if self.blob(digest) is None:
            raise BlobUnknown(str(digest))
        self._sql.run(_PUT_ALIAS, alias=str(alias), digest=self._own(digest))

    def link_blob(self, repository_id: int, digest: Digest, until: int) -> None:
        """See `Transaction`."""
        own = self._own(digest)
        self.charge(repository_id, [own])
        if not self._sql.run(_PUT_LINK, repository=repository_id, digest=own, until=until):
            raise BlobUnknown(str(digest))

    def unlink_blob(self, repository_id: int, digest: Digest) -> bool:
        """See `Transaction`."""
        own = self._own(digest)
        if self._sql.run(_UNLINK, repository=repository_id, digest=own):
            return True
        return self._sql.run(_SPEND, b_repository=repository_id, b_digest=own) > 0

    def lease(self, digests: Sequence[Digest], holder: str, until: int) -> list[Digest]:
        """See `Transaction`."""
        return [
            digest
            for digest in digests
            if not self._sql.run(_LEASE, digest=self._own(digest), holder=holder, until=until)
        ]

    def release(self, holder: str) -> None:
        """See `Transaction`."""
        self._sql.run(_RELEASE, holder=holder)

    def expire(self, now: int, limit: int) -> int:
        """See `Transaction`."""
        links = self._sql.run(_EXPIRE_LINKS, now=now, count=limit)
        return links + self._sql.run(_EXPIRE_LEASES, now=now, count=limit)

    def put_facts(self, digest: Digest, kind: FactsKind, facts: bytes) -> None:
        """See `Transaction`."""
        if self.blob(digest) is None:
            raise BlobUnknown(str(digest))
        self._sql.run(_PUT_FACTS, digest=self._own(digest), kind=kind, facts=facts)

    def free(self, digests: Sequence[Digest], now: int) -> list[Freed]:
        """See `Transaction`."""
        gone = []
        for digest in digests:
            row = self._sql.one(_IF_UNHELD, digest=self._own(digest), now=now)
            if row:
                blob = _blob(row)
                self._sql.run(_ADD_FREED, digest=row[0], storage_key=blob.storage_key)
                self._sql.run(_DROP_LINKS, digest=row[0])
                self._sql.run(_FREE, digest=row[0])
                gone.append(Freed(blob.digest, blob.storage_key))
        return gone

    def forget_freed(self, freed: Sequence[Freed]) -> None:
        """See `Transaction`."""
        for item in freed:
            self._sql.run(_TAKE_BACK, digest=str(item.digest), storage_key=item.storage_key)
