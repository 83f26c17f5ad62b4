"""Upload sessions, fetches from other registries, secrets: that part of the catalog's SQL."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sqlalchemy import bindparam, delete, or_, select, update

from registry.adapters import tables as t
from registry.adapters.statements import Insert, Queries, Row, Statement, digest_of
from registry.core.digest import Digest
from registry.ports.transfers import Fetch, Part, Upload

_P = bindparam
Inserter = Callable[[Any], Insert]

UNDER_WAY = or_(*(t.upload.c.state == state for state in ("open", "redirect", "direct")))
"""Of upload sessions: they have not ended."""

_UPLOAD_COLUMNS = tuple(column.name for column in t.upload.c)
_UPLOAD = Statement(select(t.upload).where(t.upload.c.id == _P("id")))
_EXPIRED_UPLOADS = Statement(
    select(t.upload)
    .where(t.upload.c.expires_at <= _P("now"))
    .order_by(t.upload.c.expires_at)
    .limit(_P("count"))
)
_FETCH = Statement(select(t.fetch).where(t.fetch.c.digest == _P("digest")))
_INCOMING_KEYS = Statement(
    select(t.upload.c.storage_key).where(UNDER_WAY).union_all(select(t.fetch.c.storage_key))
)
_STALE_FETCHES = Statement(
    select(t.fetch)
    .where(t.fetch.c.updated_at < _P("updated_before"))
    .order_by(t.fetch.c.updated_at)
    .limit(_P("count"))
)
_PARTS = Statement(
    select(t.fetch_part.c.start, t.fetch_part.c.stop, t.fetch_part.c.done, t.fetch_part.c.sha256)
    .where(t.fetch_part.c.digest == _P("digest"))
    .order_by(t.fetch_part.c.start)
)
_SECRET = Statement(select(t.secret.c.value).where(t.secret.c.name == _P("name")))


def _put(table: Any, *keys: str) -> Callable[[Inserter], Any]:
    """Insert a row or overwrite the one with the same keys."""

    def build(insert: Inserter) -> Any:
        row = insert(table).values({column.name: _P(column.name) for column in table.c})
        rest = {column.name: row.excluded[column.name] for column in table.c}
        return row.on_conflict_do_update(
            index_elements=list(keys),
            set_={name: value for name, value in rest.items() if name not in keys},
        )

    return build


_PUT_UPLOAD = Statement(_put(t.upload, "id"))
_ADVANCE_UPLOAD = Statement(
    update(t.upload)
    .where(
        t.upload.c.id == _P("b_id"),
        t.upload.c.state == "open",
        t.upload.c.offset == _P("b_from_offset"),
    )
    .values({name: _P(name) for name in _UPLOAD_COLUMNS if name != "id"})
)
_DELETE_UPLOAD = Statement(delete(t.upload).where(t.upload.c.id == _P("id")))
_PUT_FETCH = Statement(_put(t.fetch, "digest"))
_PUT_PART = Statement(_put(t.fetch_part, "digest", "start"))
_DELETE_PART = Statement(
    delete(t.fetch_part).where(
        t.fetch_part.c.digest == _P("digest"), t.fetch_part.c.start == _P("start")
    )
)
_DELETE_FETCH = Statement(delete(t.fetch).where(t.fetch.c.digest == _P("digest")))
_PUT_SECRET = Statement(
    lambda insert: (
        insert(t.secret).values(name=_P("name"), value=_P("value")).on_conflict_do_nothing()
    )
)


class TransferReader(Queries):
    """The reader's methods about transfers, and secrets."""

    def upload(self, upload_id: str) -> Upload | None:
        """See `Reader`."""
        row = self._sql.one(_UPLOAD, id=upload_id)
        return Upload(*row) if row else None

    def expired_uploads(self, now: int, limit: int) -> list[Upload]:
        """See `Reader`."""
        return [Upload(*row) for row in self._sql.all(_EXPIRED_UPLOADS, now=now, count=limit)]

    def incoming_keys(self) -> frozenset[str]:
        """See `Reader`."""
        return frozenset(key for (key,) in self._sql.all(_INCOMING_KEYS))

    def fetch(self, digest: Digest) -> Fetch | None:
        """See `Reader`."""
        row = self._sql.one(_FETCH, digest=str(digest))
        return self._fetch(row) if row else None

    def stale_fetches(self, updated_before: int, limit: int) -> list[Fetch]:
        """See `Reader`."""
        rows = self._sql.all(_STALE_FETCHES, updated_before=updated_before, count=limit)
        return [self._fetch(row) for row in rows]

    def _fetch(self, row: Row) -> Fetch:
        digest, size, storage_key, updated_at = row
        return Fetch(digest_of(digest), size, storage_key, updated_at, self._parts(digest))

    def _parts(self, digest: str) -> tuple[Part, ...]:
        return tuple(Part(*row) for row in self._sql.all(_PARTS, digest=digest))

    def secret(self, name: str) -> bytes | None:
        """See `Reader`."""
        row = self._sql.one(_SECRET, name=name)
        return row[0] if row else None


class TransferWriter(TransferReader):
    """The transaction's methods about transfers, and secrets."""

    def put_upload(self, upload: Upload) -> None:
        """See `Transaction`."""
        self._sql.run(_PUT_UPLOAD, **asdict(upload))

    def advance_upload(self, upload: Upload, from_offset: int) -> bool:
        """See `Transaction`."""
        values = asdict(upload)
        key = {"b_id": values.pop("id"), "b_from_offset": from_offset}
        return self._sql.run(_ADVANCE_UPLOAD, **key, **values) > 0

    def delete_upload(self, upload_id: str) -> None:
        """See `Transaction`."""
        self._sql.run(_DELETE_UPLOAD, id=upload_id)

    def put_fetch(self, fetch: Fetch) -> None:
        """See `Transaction`."""
        digest = str(fetch.digest)
        self._sql.run(
            _PUT_FETCH,
            digest=digest,
            size=fetch.size,
            storage_key=fetch.storage_key,
            updated_at=fetch.updated_at,
        )
        # only what changed: a big blob has hundreds of parts, and progress is put often
        known = {part.start: part for part in self._parts(digest)}
        for part in fetch.parts:
            if known.pop(part.start, None) != part:
                self._sql.run(_PUT_PART, digest=digest, **asdict(part))
        for start in known:
            self._sql.run(_DELETE_PART, digest=digest, start=start)

    def delete_fetch(self, digest: Digest) -> None:
        """See `Transaction`."""
        self._sql.run(_DELETE_FETCH, digest=str(digest))

    def put_secret(self, name: str, value: bytes) -> bytes:
        """See `Transaction`."""
        self._sql.run(_PUT_SECRET, name=name, value=value)
        kept = self.secret(name)
        assert kept is not None
        return kept
