"""What the catalog has decided, made into files: small blobs, tags of the models folder, records.

Everything to be done is a row (`unwritten`, `folder_change`), so that nothing is lost with this
process. Files are written at once and without a sync, so that the folder shows a change before it
is answered; only records, which nobody looks for there, are written with the sync. The rows go when
the files were synced, many together, a moment later. Until then the catalog has the bytes, and
whatever a power cut left of the files is written anew at the start.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import anyio.to_thread
import structlog

from registry.core.errors import RegistryError, StorageFull
from registry.core.names import ModelName
from registry.core.records import RecordName
from registry.ports.blobs import BlobStore
from registry.ports.catalog import Catalog, FolderChange, Reader, Transaction, Unwritten
from registry.ports.folder import ModelsFolder

_CONTENTS = 64
_CHANGES = 256
_PAUSE_S = 2.0
"""Time in which changes gather for one round of syncs: at 1.0 eight clients that create one model
after the other were a tenth slower than at 5.0, which keeps more rows waiting."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Mark:
    """How far something has come: numbers of the last content and of the last change done."""

    content: int = 0
    change: int = 0


@dataclass(frozen=True, slots=True)
class _Due:
    """Some of what is to be done, in order: contents before the changes that refer to them."""

    contents: list[Unwritten]
    changes: list[FolderChange]

    @classmethod
    def after(cls, tx: Reader, mark: _Mark) -> Self:
        contents = tx.unwritten(_CONTENTS, mark.content)
        is_all = len(contents) < _CONTENTS  # else the tags wait: their blobs may be among the rest
        return cls(contents, tx.folder_changes(_CHANGES, mark.change) if is_all else [])

    def end(self, mark: _Mark) -> _Mark:
        """How far one is who was at `mark` and has done this."""
        return _Mark(
            self.contents[-1].id if self.contents else mark.content,
            self.changes[-1].id if self.changes else mark.change,
        )

    @property
    def models(self) -> list[FolderChange]:
        """The files of the models folder among the changes."""
        return [change for change in self.changes if isinstance(change.name, ModelName)]

    @property
    def is_full(self) -> bool:
        return len(self.contents) == _CONTENTS or len(self.changes) == _CHANGES


def _contents(tx: Reader, names: Sequence[ModelName | RecordName]) -> list[FolderChange]:
    """What their files have to hold now."""
    return [FolderChange(0, name, _content(tx, name)) for name in names]


def _content(tx: Reader, name: ModelName | RecordName) -> bytes | None:
    if isinstance(name, RecordName):
        record = tx.recorded(name)
        return record.encode() if record else None
    tag = tx.find_model(name)
    manifest = tx.manifest(tag.digest) if tag is not None and tag.model == name else None
    return manifest.body if manifest else None


class Filing:
    """Writes files for the catalog. One per process; safe beside those of other processes."""

    def __init__(self, catalog: Catalog, store: BlobStore, folder: ModelsFolder) -> None:
        self._catalog = catalog
        self._store = store
        self._folder = folder
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._written = _Mark()
        self._durable = _Mark()
        self._keys: list[str] = []  # written and not synced
        self._changes: list[FolderChange] = []
        self._syncing: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    async def write(self) -> None:
        """Write everything that is due when this is called.

        Callers that come while one is at work share the next round: one round does for all.

        Raises:
            StorageFull: no space; what was not written stays due.
        """
        self._waiting += 1
        async with self._lock:
            if self._waiting == 0:
                return  # the round that was begun after our call has done ours too
            self._waiting = 0
            while True:
                due = await self._catalog.read(partial(_Due.after, mark=self._written))
                if due.contents or due.changes:
                    await anyio.to_thread.run_sync(self._write, due)
                    await self._write_newer(due)
                    self._note(due)
                if not due.is_full:
                    break
        if self._written != self._durable and self._syncing is None:
            self._syncing = asyncio.create_task(self._sync_soon())

    async def recover(self) -> None:
        """Write what an earlier run left due, before anything is served.

        Where there is no room for that, files that may be torn go: the catalog has their bytes. No
        object is ever torn.
        """
        try:
            await self.write()
        except StorageFull as error:
            log.warning("files wait for room", error=str(error))
            if self._store.reuses_keys:
                async with self._lock:
                    await self._clear(self._written)

    async def _clear(self, mark: _Mark) -> None:
        while True:
            due = await self._catalog.read(partial(_Due.after, mark=mark))
            await anyio.to_thread.run_sync(self._remove, due)
            mark = due.end(mark)
            if not due.is_full:
                return

    def _remove(self, due: _Due) -> None:
        self._folder.apply([FolderChange(item.id, item.name, None) for item in due.models])
        for item in due.contents:
            self._store.remove(item.storage_key)

    def _write(self, due: _Due) -> None:
        self._store.put({item.storage_key: item.content for item in due.contents})
        self._folder.apply(due.models)

    async def _write_newer(self, due: _Due) -> None:
        """Write those tags anew that were changed while they were written.

        Another process may have written the newer file before this one wrote the older; and it may
        have forgotten the row since. A row that is still there was the newest when its file came.
        """
        if not due.models:
            return
        before = due.changes[0].id - 1
        rows = await self._catalog.read(lambda tx: tx.folder_changes(_CHANGES, before))
        standing = {row.id for row in rows}
        await self._write_until([item.name for item in due.models if item.id not in standing])

    async def _write_until(self, names: Sequence[ModelName | RecordName]) -> None:
        """Write files as the catalog has them, until it has them still when they are written."""
        written: list[FolderChange] = []
        while names:
            changes = await self._catalog.scan(partial(_contents, names=names))
            if changes == written:
                return
            await anyio.to_thread.run_sync(self._folder.apply, changes)
            written = changes

    def _note(self, due: _Due) -> None:
        self._keys += [item.storage_key for item in due.contents]
        # without their bytes: whoever takes in a whole folder has a hundred thousand of them
        self._changes += [FolderChange(change.id, change.name, None) for change in due.changes]
        self._written = due.end(self._written)

    async def finish(self) -> None:
        """Sync what was written; to be called before the catalog is closed."""
        self._hurry.set()
        if self._syncing is not None:
            await self._syncing
        self._hurry.clear()

    async def _sync_soon(self) -> None:
        """Rounds of syncs, a pause before each, until nothing is left to sync."""
        try:
            while self._written != self._durable:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), _PAUSE_S)
                await self._sync()
        except RegistryError as error:
            log.warning("files could not be synced", error=str(error))
            async with self._lock:
                # The kernel tells of bytes it could not write once, then drops them: write anew.
                self._written = self._durable
        finally:
            self._syncing = None

    async def _write_records(self, names: Sequence[ModelName | RecordName]) -> None:
        """Nobody but a rebuild reads them, so that no push waits for them."""
        records = list(dict.fromkeys(name for name in names if isinstance(name, RecordName)))
        for begin in range(0, len(records), _CHANGES):
            await self._write_until(records[begin : begin + _CHANGES])

    async def _sync(self) -> None:
        """Write the records that are due, sync what was written so far, then forget it."""
        mark, keys, changes = self._written, self._keys, self._changes
        self._keys, self._changes = [], []
        await self._write_records([item.name for item in changes])

        def sync() -> None:
            self._store.sync(keys)
            self._folder.sync(changes)

        def forget(tx: Transaction) -> None:
            tx.forget_contents(mark.content)
            tx.forget_folder_changes(mark.change)

        await anyio.to_thread.run_sync(sync)
        await self._catalog.write(forget)
        self._durable = mark
