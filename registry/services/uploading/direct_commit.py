"""The end of an upload that went to the store by itself: verify the bytes, make them a blob.

Parts of an unfinished object cannot be read, so the object is completed first, under a key that no
blob has, and then read back to hash it (ADR 0014). One process does that: it writes its name into
the row and counts on there while it lives. Others wait for the result in the row; if the count
stands still, one of them begins anew. What a commit does to the catalog is one transaction, which
only the process whose name stands in the row can make.

Source: spec registry-protocol 2.6 "Commit", 6.2 rules 8 and 9, 6.3.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from registry.core.digest import Digest
from registry.core.errors import (
    Conflict,
    DigestMismatch,
    QuotaExceeded,
    RegistryError,
    SizeInvalid,
    Unavailable,
    UploadUnknown,
)
from registry.core.names import RepositoryName
from registry.ports.catalog import Blob, Transaction
from registry.ports.direct import Direct, Landed, SentPart
from registry.ports.transfers import Upload
from registry.services.library.blobs import Blobs
from registry.services.uploading.upload_limits import NS, UploadLimits

STATES = ("redirect", "direct")
"""Of a session that goes on."""

_BEAT_S = 4.0
_DEAD_S = 20.0  # that long without a beat
_POLL_S = 0.5
_MARGIN_NS = 3_600 * NS  # a session that is being verified does not expire meanwhile
_SHOWS_AFTER_S = (0.1, 0.4, 1.0)
_READERS = 2
"""Objects that are read back at once: one fills a core with hashing."""


@dataclass(frozen=True, slots=True)
class _Order:
    """What a commit was asked for; `count`: how many parts there must be."""

    name: RepositoryName
    digest: Digest
    count: int | None


class DirectCommits:
    """Runs commits, each once at a time among all processes."""

    def __init__(self, blobs: Blobs, store: Direct, limits: UploadLimits) -> None:
        self._blobs = blobs
        self._catalog = blobs.catalog
        self._clock = blobs.clock
        self._store = store
        self._limits = limits
        self._me = uuid.uuid4().hex
        self._jobs: dict[str, asyncio.Task[Digest]] = {}
        self._reading = asyncio.Semaphore(_READERS)

    async def finish(
        self, name: RepositoryName, upload: Upload, digest: Digest, count: int | None
    ) -> Digest:
        """See `DirectUploads.finish`. The work outlives the request that asked for it."""
        until_s = time.monotonic() + self._limits.commit_hold_s
        order = _Order(name, digest, count)
        beats, since_s = upload.verifier_beats, time.monotonic()
        while upload.state in STATES:
            if upload.verifier_beats != beats:
                beats, since_s = upload.verifier_beats, time.monotonic()
            job = self._jobs.get(upload.id)
            is_free = upload.verifier in ("", self._me) or time.monotonic() - since_s > _DEAD_S
            if job is None and is_free:
                job = await self._begin(upload, order)
            if job is not None:
                return await self._settle(job, digest, until_s)
            if time.monotonic() >= until_s:
                raise Unavailable("the upload is still being verified")
            await asyncio.sleep(_POLL_S)
            upload = await self._again(upload)
        return _result(upload, digest)

    async def close(self) -> None:
        """Give up what runs, so that others need not wait for it."""
        for job in self._jobs.values():
            job.cancel()
        await self.settle()

    async def settle(self) -> None:
        """Wait until nothing runs."""
        if self._jobs:
            await asyncio.wait(list(self._jobs.values()))

    async def _again(self, upload: Upload) -> Upload:
        row = await self._catalog.read(lambda tx: tx.upload(upload.id))
        if row is None:
            raise _unknown(upload)
        return row

    async def _settle(self, job: asyncio.Task[Digest], digest: Digest, until_s: float) -> Digest:
        done, _ = await asyncio.wait({job}, timeout=max(0.0, until_s - time.monotonic()))
        if not done:
            raise Unavailable("the upload is still being verified")
        if job.cancelled():
            raise Unavailable("the server is shutting down")
        if job.result() != digest:
            raise DigestMismatch(str(digest), str(job.result()))
        return digest

    # one at a time

    async def _begin(self, upload: Upload, order: _Order) -> asyncio.Task[Digest] | None:
        """Start the work, unless another process has begun it since the row was read."""

        def take(tx: Transaction) -> Upload | None:
            row = tx.upload(upload.id)
            if row is None or row.state not in STATES:
                return None
            if row.verifier != self._me and row.verifier_beats != upload.verifier_beats:
                return None
            return self._beat(tx, replace(row, verifier=self._me))

        mine = await self._catalog.write(take)
        if mine is None:
            return None
        job = self._jobs.get(upload.id)  # of another request that came meanwhile
        if job is None:
            job = self._jobs[upload.id] = asyncio.create_task(self._run(mine, order))
            job.add_done_callback(lambda ended: self._forget(upload.id, ended))
        return job

    def _forget(self, session: str, job: asyncio.Task[Digest]) -> None:
        self._jobs.pop(session, None)
        if not job.cancelled():
            job.exception()  # nobody may come back to ask for it

    def _beat(self, tx: Transaction, row: Upload) -> Upload:
        beats, until = row.verifier_beats + 1, self._clock() + _MARGIN_NS
        row = replace(row, verifier_beats=beats, expires_at=max(row.expires_at, until))
        tx.put_upload(row)
        return row

    async def _live(self, session: str) -> None:
        """Show that this process is at work, while it is."""

        def work(tx: Transaction) -> None:
            row = tx.upload(session)
            if row is not None and row.verifier == self._me and row.state in STATES:
                self._beat(tx, row)

        while True:
            await asyncio.sleep(_BEAT_S)
            with contextlib.suppress(RegistryError):  # the next one may go through
                await self._catalog.write(work)

    async def _run(self, upload: Upload, order: _Order) -> Digest:
        living = asyncio.create_task(self._live(upload.id))
        ended = False
        try:
            await self._verify(upload, order)
            ended = True
        except (DigestMismatch, QuotaExceeded) as error:
            if await self._end(upload.id, partial(self._over, order, error)):
                with contextlib.suppress(RegistryError):  # it is an orphan then
                    await self._store.drop(upload.storage_key)
            ended = True
            raise
        finally:
            living.cancel()
            if not ended:
                with contextlib.suppress(RegistryError):  # the row's count stands still then
                    await self._end(upload.id, lambda row: row)
        return order.digest

    async def _end(self, session: str, after: Callable[[Upload], Upload | None]) -> bool:
        """Take our name out of the row, or delete it; False if it does not stand there any more."""

        def work(tx: Transaction) -> bool:
            row = tx.upload(session)
            if row is None or row.verifier != self._me or row.state not in STATES:
                return False
            changed = after(row)
            if changed is None:
                tx.delete_upload(session)
            else:
                tx.put_upload(replace(changed, verifier=""))
            return True

        return await self._catalog.write(work)

    def _over(self, order: _Order, error: RegistryError, row: Upload) -> Upload | None:
        """The row of a session whose bytes are not wanted; wrong ones are remembered."""
        if not isinstance(error, DigestMismatch):
            return None
        return replace(
            row,
            state="failed",
            result=str(order.digest),
            last_sha256=error.got,
            expires_at=self._remembered(),
        )

    def _remembered(self) -> int:
        return self._clock() + self._limits.result_s * NS

    # the work

    async def _verify(self, upload: Upload, order: _Order) -> None:
        if upload.state == "redirect":
            await self._complete(upload, order)
        landed = await self._landed(upload)
        self._limits.check_size(landed.size)
        if landed.sha256 == order.digest:
            await self._commit(upload, landed, order)
        else:
            async with self._reading:
                await self._commit(upload, landed, order)

    async def _landed(self, upload: Upload) -> Landed:
        """The object; one just completed may show a moment later."""
        for pause_s in _SHOWS_AFTER_S if upload.state == "redirect" else ():
            landed = await self._store.landed(upload.storage_key)
            if landed is not None:
                return landed
            await asyncio.sleep(pause_s)
        landed = await self._store.landed(upload.storage_key)
        if landed is not None:
            return landed
        if upload.state == "redirect":
            raise _unknown(upload)
        raise SizeInvalid("the bytes have not been sent")

    async def _complete(self, upload: Upload, order: _Order) -> None:
        key = upload.storage_key
        try:
            parts = await self._store.parts(key)
            check_parts(parts, upload.part_size, order.count)
            await self._store.complete(key, parts)
        except UploadUnknown:
            return  # an earlier try completed it; the object will show

    async def _commit(self, upload: Upload, landed: Landed, order: _Order) -> None:
        def done(tx: Transaction, blob: Blob) -> None:
            row = tx.upload(upload.id)
            if row is None or row.verifier != self._me or row.state not in STATES:
                raise Conflict("another server goes on with this upload")
            tx.put_upload(
                replace(
                    row,
                    state="done",
                    result=str(order.digest),
                    offset=blob.size,
                    expires_at=self._remembered(),
                    verifier="",
                )
            )
            self._blobs.link(tx, order.name, order.digest)  # into the room that was set aside

        arrived = self._store.arrived(upload.storage_key, landed)
        await self._blobs.commit(arrived, order.digest, done)


def check_parts(parts: Sequence[SentPart], part_size: int, count: int | None) -> None:
    """Let pass what can be a whole blob.

    The client's MD5 of the parts is not compared: where a store encrypts, its ETags look like MD5
    and are not, and the sha256 of everything is looked at anyway.

    Raises:
        SizeInvalid: a part is missing, or has another size than it must.
    """
    if count is None:
        count = max(1, len(parts))
    numbers = {part.number for part in parts}
    missing = next((number for number in range(1, count + 1) if number not in numbers), None)
    if missing is not None:
        raise SizeInvalid(f"part {missing} is missing")
    if len(parts) != count:
        raise SizeInvalid(f"{len(parts)} parts were sent, not {count}")
    for part in parts:
        is_whole = part.size == part_size
        if not is_whole and not (part.number == count and part.size < part_size):
            raise SizeInvalid(f"part {part.number} has {part.size} bytes, not {part_size}")


def _result(upload: Upload, digest: Digest) -> Digest:
    """What the row says of a commit that has ended."""
    if upload.result != str(digest):
        raise _unknown(upload)
    if upload.state == "failed":
        raise DigestMismatch(str(digest), upload.last_sha256)
    return digest


def _unknown(upload: Upload) -> UploadUnknown:
    return UploadUnknown(f"upload unknown: {upload.id}")
