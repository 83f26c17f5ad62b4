"""Backup and restore: all rows as they were at one moment, and the bytes they speak of.

Rows first, then blobs, which never change; with the blobs held, so that what is deleted meanwhile
stays until it is copied. A restore goes the other way round: bytes first, hashed, then all rows in
one transaction, then the tags' files. The rows are those of no particular database, so that a
restore is also the way from one to another.
"""

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from anyio import CancelScope, to_thread

from registry.core.digest import Digest
from registry.core.dump import Counts, Item, Summary, decode, encode
from registry.core.errors import (
    BlobUnknown,
    DigestMismatch,
    OperationFailed,
    RegistryError,
    StorageFull,
)
from registry.core.events import Done, Events, Status, Transfer
from registry.ports.backups import BackupPlace, Rows
from registry.ports.blobs import BlobStore
from registry.ports.catalog import Blob
from registry.services.library.blobs import Blobs, let_go
from registry.services.library.strays import hash_blob
from registry.services.upkeep.adoption import SINCE

_PAGE = 1_000
_TOLD = 16 << 20  # smaller blobs are not told one by one
_HOLD_NS = 6 * 3_600 * 10**9
_NAMED = 3


class Backup:
    """One backup of a library, which may be in use meanwhile."""

    def __init__(self, blobs: Blobs, rows: Rows, place: BackupPlace, version: str) -> None:
        self._blobs = blobs
        self._catalog = blobs.catalog
        self._rows = rows
        self._place = place
        self._version = version
        self._holder = f"backup:{secrets.token_hex(8)}"
        self._held_until = 0
        self.summary: Summary | None = None

    async def run(self, *, with_blobs: bool = False, link: bool = False) -> Events:
        """Write the backup; with `link`, blobs as second names of the store's files if possible.

        Raises:
            OperationFailed: blobs could not be read or were deleted; the rest is saved.
            StorageFull: no room at the place.
        """
        self._place.begin()
        yield Status("saving the database")
        try:
            if with_blobs:
                await self._hold()
            summary = await to_thread.run_sync(self._save_rows)
            faults: list[str] = []
            if with_blobs:
                yield Status(f"saving {summary.blobs} blobs")
                async for event in self._save_blobs(link, faults):
                    yield event
            self.summary = replace(summary, with_blobs=with_blobs and not faults)
            self._place.finish(self.summary)
        finally:
            with CancelScope(shield=True):
                await let_go(self._catalog, self._holder)
        if faults:
            raise OperationFailed(
                f"{len(faults)} of {summary.blobs} blobs could not be saved: {_some(faults)}"
            )
        yield Done()

    def _save_rows(self) -> Summary:
        counts, size = Counts(), 0
        digests: list[bytes] = []

        def noted(items: Iterator[Item]) -> Iterator[Item]:
            nonlocal size
            for table, row in items:
                if table.name == "blob" and row is not None:
                    named = table.named(row)
                    size += named["size"]
                    digests.append(bytes.fromhex(Digest.parse(named["digest"]).hex))
                yield table, row

        with self._rows.snapshot() as (schema, items):
            name, sha256 = self._place.write_database(encode(noted(items), counts))
        self._place.write_list(Digest.sha256(digest.hex()) for digest in digests)
        return Summary(
            made_at=datetime.fromtimestamp(self._blobs.clock() // 10**9, UTC).isoformat(),
            version=self._version,
            schema=schema,
            database=name,
            sha256=sha256,
            rows=counts.rows,
            blobs=len(digests),
            blob_bytes=size,
            with_blobs=False,
        )

    async def _hold(self) -> None:
        """Keep every blob there is from being freed, until `release` or for some hours."""
        self._held_until = self._blobs.clock() + _HOLD_NS
        after = ""
        while page := await self._page(after):
            digests, until = [blob.digest for blob in page], self._held_until
            await self._catalog.write(
                lambda tx, some=digests, until=until: tx.lease(some, self._holder, until)  # type: ignore[misc]
            )
            after = str(page[-1].digest)

    async def _page(self, after: str) -> list[Blob]:
        return await self._catalog.scan(lambda tx: tx.blobs_after(after, _PAGE))

    async def _save_blobs(self, link: bool, faults: list[str]) -> Events:
        for digest in self._place.read_list():
            if self._held_until - self._blobs.clock() < _HOLD_NS // 2:
                await self._hold()
            blob = await self._catalog.read(lambda tx, d=digest: tx.blob(d))  # type: ignore[misc]
            try:
                if blob is None:
                    raise BlobUnknown(str(digest))
                if self._place.blob(digest) == blob.size or self._share(blob, link):
                    continue
                if blob.size >= _TOLD:
                    yield Transfer("saving", digest, blob.size, 0)
                await self._place.put(digest, self._read(blob))
                if blob.size >= _TOLD:
                    yield Transfer("saving", digest, blob.size, blob.size)
            except StorageFull:
                raise
            except RegistryError as error:  # one blob cannot be read: the others still can
                faults.append(str(error))

    def _share(self, blob: Blob, link: bool) -> bool:
        path = self._blobs.store.path(blob.storage_key)
        return path is not None and self._place.share(blob.digest, path, link=link)

    async def _read(self, blob: Blob) -> AsyncIterator[bytes]:
        async with await self._blobs.open(blob) as opened:
            async for chunk in opened.chunks(0, opened.size):
                yield chunk


class Restore:
    """One restore into a store and a database that nobody uses meanwhile."""

    def __init__(self, store: BlobStore, rows: Rows, place: BackupPlace) -> None:
        self._store = store
        self._rows = rows
        self._place = place
        self._keys: dict[str, str] = {}  # digest -> storage key, where it is another than it was
        self._unwritten: set[str] = set()
        self.copied = 0

    async def run(self, *, force: bool = False, verify: bool = False) -> Events:
        """Bring the bytes back, then the rows; with `verify`, bytes that are here are hashed too.

        Raises:
            Conflict: the database is in use, or holds a library and this is not forced.
            OperationFailed: the backup is damaged, or blobs of it are nowhere.
            DigestMismatch: a blob of the backup, or with `verify` of the store, is not itself.
        """
        summary = self._place.summary()
        self._rows.check(summary.schema, force=force)
        yield Status(f"looking for {summary.blobs} blobs")
        missing: list[str] = []
        for table, row in decode(self._place.lines(summary)):
            if table.name == "unwritten" and row is not None:
                self._unwritten.add(table.named(row)["digest"])
            elif table.name == "blob" and row is not None:
                async for event in self._bring(table.named(row), missing, verify):
                    yield event
        missing = [text for text in missing if text not in self._unwritten]
        if missing and not force:
            raise OperationFailed(
                f"{len(missing)} of {summary.blobs} blobs are neither in the backup nor in the "
                f"store: {_some(missing)}; with --force the rest is restored"
            )
        yield Status("restoring the database")
        items = self._moved(decode(self._place.lines(summary)))
        await to_thread.run_sync(lambda: self._rows.load(summary.schema, items, force=force))
        yield Done()

    async def _bring(self, row: dict[str, object], missing: list[str], verify: bool) -> Events:
        """Find a blob's bytes in the store, or copy them from the backup."""
        digest, size = Digest.parse(str(row["digest"])), int(str(row["size"]))
        key = await self._here(digest, size, str(row["storage_key"]))
        if key is not None and verify and await hash_blob(self._store, key) != digest:
            key = None
        if key is None and self._place.blob(digest) == size:
            if size >= _TOLD:
                yield Transfer("restoring", digest, size, 0)
            key = await self._copy(digest, size)
            if size >= _TOLD:
                yield Transfer("restoring", digest, size, size)
        if key is None:
            missing.append(str(digest))
            key = self._store.new_key(digest)
        if key != row["storage_key"]:
            self._keys[str(digest)] = key

    async def _here(self, digest: Digest, size: int, storage_key: str) -> str | None:
        for key in (storage_key, self._store.key_of(digest)):
            if key is not None and await self._store.exists(key) == size:
                return key
        return None

    async def _copy(self, digest: Digest, size: int) -> str:
        incoming = await self._store.create(size)
        try:
            async for chunk in self._place.get(digest):
                await incoming.write(chunk)
            sealed = await incoming.seal()
            if sealed != digest:
                raise DigestMismatch(str(digest), str(sealed))
            key = await incoming.publish(digest)
            self.copied += 1
        finally:
            await incoming.discard()
        return key

    def _moved(self, items: Iterator[Item]) -> Iterator[Item]:
        """The rows with the storage keys of this store; as of a catalog that begins now."""
        for table, row in items:
            if row is not None and table.name == "secret" and table.named(row)["name"] == SINCE:
                continue
            if row is not None and self._keys and table.name in {"blob", "unwritten"}:
                named = table.named(row)
                named["storage_key"] = self._keys.get(named["digest"], named["storage_key"])
                row = tuple(named.values())
            yield table, row


def _some(texts: list[str]) -> str:
    more = len(texts) - _NAMED
    return ", ".join(texts[:_NAMED]) + (f" and {more} more" if more > 0 else "")
