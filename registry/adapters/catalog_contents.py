"""Contents that the store may not have yet: that part of the catalog's SQL."""

from sqlalchemy import bindparam, delete, select

from registry.adapters import tables as t
from registry.adapters.statements import Queries, Statement
from registry.core.digest import Digest
from registry.ports.catalog import Blob, Unwritten

_P = bindparam
_UNWRITTEN = Statement(
    select(t.unwritten.c.id, t.unwritten.c.storage_key, t.unwritten.c.content)
    .where(t.unwritten.c.id > _P("after"))
    .order_by(t.unwritten.c.id)
    .limit(_P("count"))
)
_CONTENT = Statement(
    select(t.unwritten.c.content).where(t.unwritten.c.digest == _P("digest")).limit(1)
)
_ADD = Statement(
    lambda insert: insert(t.unwritten).values(
        {name: _P(name) for name in ("digest", "storage_key", "content")}
    )
)
_FORGET = Statement(delete(t.unwritten).where(t.unwritten.c.id <= _P("up_to")))


class ContentReader(Queries):
    """The reader's methods about contents."""

    def unwritten(self, limit: int, after: int = 0) -> list[Unwritten]:
        """See `Reader`."""
        rows = self._sql.all(_UNWRITTEN, after=after, count=limit)
        return [Unwritten(*row) for row in rows]

    def content(self, digest: Digest) -> bytes | None:
        """See `Reader`."""
        row = self._sql.one(_CONTENT, digest=str(digest))
        return row[0] if row else None


class ContentWriter(ContentReader):
    """The transaction's methods about contents."""

    def put_content(self, blob: Blob, content: bytes) -> None:
        """See `Transaction`."""
        self._sql.run(_ADD, digest=str(blob.digest), storage_key=blob.storage_key, content=content)

    def forget_contents(self, up_to_id: int) -> None:
        """See `Transaction`."""
        self._sql.run(_FORGET, up_to=up_to_id)
