"""The audit: who did what, from where, with which result. Written behind the requests."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from registry.ports.accounts import AuditEntry
from registry.ports.catalog import Catalog, Transaction
from registry.services.sharing.write_behind import WriteBehind
from registry.settings import Retention

_PAUSE_S = 0.25
_WAITING = 20_000
_TRIMMED = 5_000  # in one transaction
_NS = 10**9
_FIELD_MAX = 512
_SECRET = re.compile(r"hf_[A-Za-z0-9]{10,}")


class Audit:
    """The writer of entries, and their reader."""

    def __init__(self, catalog: Catalog, retention: Retention, clock: Callable[[], int]) -> None:
        self._catalog = catalog
        self._retention = retention
        self._clock = clock
        self._behind: WriteBehind[AuditEntry] = WriteBehind(
            self._write, "audit", _PAUSE_S, _WAITING
        )

    def record(self, entry: AuditEntry) -> None:
        """Take an entry; it is in the database a quarter of a second later."""
        self._behind.add(entry)

    async def entries(self, before: int = 0, limit: int = 50) -> list[AuditEntry]:
        """Up to `limit` entries with an id below `before` (0: the newest), newest first."""
        await self._behind.flush()
        return await self._catalog.scan(lambda tx: tx.audit(before, limit))

    async def trim(self) -> None:
        """Drop what is older, or more, than the settings keep."""
        keep = self._retention.audit_entries
        since = self._clock() - self._retention.audit_s * _NS
        start = await self._catalog.scan(lambda tx: tx.audit_start(keep, since))
        while await self._catalog.write(lambda tx: tx.trim_audit(start, _TRIMMED)) == _TRIMMED:
            pass

    async def close(self) -> None:
        """Write what is left."""
        await self._behind.close()

    async def _write(self, entries: Sequence[AuditEntry]) -> None:
        def work(tx: Transaction) -> None:
            for entry in entries:
                tx.put_audit(_bounded(entry))

        await self._catalog.write(work)


def _bounded(entry: AuditEntry) -> AuditEntry:
    """The entry with texts that a database takes: clients choose some of them."""
    return replace(
        entry,
        who=_text(entry.who),
        via=_text(entry.via),
        address=_text(entry.address),
        action=_text(entry.action),
        target=_text(entry.target),
        result=_text(entry.result),
        request_id=_text(entry.request_id),
    )


def _text(value: str) -> str:
    """The text without what a database does not take, nor a key that stood in a wrong place."""
    text = value[:_FIELD_MAX].encode("utf-8", "replace").decode().replace("\0", "")
    return _SECRET.sub("hf_…", text)
