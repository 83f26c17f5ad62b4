"""Upload sessions: a blob that arrives in chunks, over several requests, perhaps several processes.

The row in the catalog is the only truth: a chunk counts once `offset` has moved past it, and its
bytes are on disk before that. What this process keeps besides is a shortcut: the open `Incoming`
with its running hash, so that a commit need not read everything again. It may be dropped at any
moment; `BlobStore.resume` takes the bytes up again at the row's offset, cutting off whatever an
unfinished chunk had left behind.

    begin -> open -append-> open -finish-> done (kept a while: a repeated commit gets its answer)
    open -cancel, expiry, wrong digest, full disk-> gone

Two requests for one session take turns: `services/uploading/upload_turns.py`.

Source: spec registry-protocol 2.6, serial mode; OCI distribution-spec 1.1, "Pushing blobs".
"""

import uuid
from contextlib import suppress
from dataclasses import replace
from functools import partial

from registry.core.digest import Digest
from registry.core.errors import (
    Conflict,
    DigestMismatch,
    QuotaExceeded,
    RegistryError,
    SizeInvalid,
    StorageFull,
    Unavailable,
    UploadOutOfOrder,
    UploadUnknown,
)
from registry.core.names import RepositoryName
from registry.ports.blobs import Body, Incoming
from registry.ports.catalog import Blob, Transaction
from registry.ports.transfers import Upload
from registry.services.library.blobs import Blobs, is_empty
from registry.services.library.quotas import set_aside
from registry.services.uploading.upload_bodies import Chunk, Counted
from registry.services.uploading.upload_limits import NS, OpenSessions, UploadLimits, unexpired
from registry.services.uploading.upload_turns import LiveSession, LiveSessions

__all__ = ["NS", "Chunk", "UploadLimits", "Uploads"]


class Uploads:
    """Use cases around upload sessions."""

    def __init__(self, blobs: Blobs, limits: UploadLimits | None = None) -> None:
        self._blobs = blobs
        self._catalog = blobs.catalog
        self._store = blobs.store
        self._clock = blobs.clock
        self._limits = limits or UploadLimits()
        self._live = LiveSessions(self._store.turn)
        self._open = OpenSessions(self._limits.sessions)

    async def begin(
        self,
        name: RepositoryName,
        declared: Digest | None = None,
        subject: str = "",
        size: int = 0,
    ) -> Upload:
        """Begin a session; `declared` is the digest its client means to send, `size` how much.

        It is for `subject` alone, whatever token a later request comes with: see `check_subject`.

        Raises:
            TooLarge: no blob may be so large.
            QuotaExceeded: so much does not fit into the namespace.
            Unavailable: too many sessions are open.
        """
        self._limits.check_size(size)
        now = self._clock()
        await self._open.check_room(self._catalog, now)
        session = str(uuid.uuid4())

        def work(tx: Transaction) -> Upload:
            upload = Upload(
                id=session,
                repository_id=tx.put_repository(name).id,
                storage_key="",  # no bytes yet: an abandoned session costs a row
                created_at=now,
                expires_at=now + self._limits.idle_s * NS,
                declared_digest=str(declared or ""),
                subject=subject,
            )
            tx.put_upload(upload)
            return tx.reserve(upload, size) if size else upload

        upload = await self._catalog.write(work)
        self._open.note(upload)
        return upload

    async def check_subject(self, session: str, subject: str) -> None:
        """Let pass only whom a session is for; an unknown one is found out later.

        Raises:
            UploadUnknown: it is for somebody else.
        """
        upload = await self._catalog.read(lambda tx: tx.upload(session))
        if upload is not None and upload.subject != subject:
            raise _unknown(session)

    async def status(self, name: RepositoryName, session: str) -> Upload:
        """An open session.

        Raises:
            UploadUnknown: none such in the repository, or it has expired or ended.
        """
        upload = await self._load(name, session)
        if upload.state != "open":
            raise _unknown(session)
        return upload

    async def append(self, name: RepositoryName, session: str, chunk: Chunk) -> Upload:
        """Add a chunk; sent once more, the last one is accepted again and changes nothing.

        Raises:
            UploadUnknown: no such session.
            UploadOutOfOrder: the chunk belongs elsewhere; the session goes on.
            SizeInvalid: the chunk broke off or has another length than it said; it is not kept.
            Conflict: a newer request took the session over.
            TooLarge: the blob would exceed its limit; the chunk is not kept.
            QuotaExceeded: nor does it fit into the namespace; the chunk is not kept.
            StorageFull: no room; the whole session is dropped.
        """
        async with self._live.turn(session) as live:
            upload = await self._loose(live, name, session)
            if chunk.is_replay(upload):
                await self._check_replay(live, upload, chunk)
                return upload
            chunk.check_order(upload)
            return await self._append(live, upload, chunk)

    async def finish(
        self, name: RepositoryName, session: str, digest: Digest, chunk: Chunk | None = None
    ) -> Digest:
        """Commit a session, after a last chunk if there is one; return the blob's digest.

        Asked again for a session that is finished, the answer is the same.

        Raises:
            UploadUnknown, UploadOutOfOrder, SizeInvalid, TooLarge: as `append`.
            DigestMismatch: the bytes are not those of `digest`; the session is dropped.
            Unavailable: hashing takes long; ask again, it goes on meanwhile.
            StorageFull: no room; the session is dropped.
        """
        async with self._live.turn(session) as live:
            if live.commit is None:
                upload = await self._load(name, session)
                if upload.state != "open":
                    if upload.result == str(digest):
                        return digest
                    raise _unknown(session)
                if chunk is not None:
                    upload = await self._append_last(live, upload, chunk)
                live.begin_commit(name, self._commit(live, name, upload, digest))
            if live.repository != name.key:
                raise _unknown(session)
            return await live.settled(digest, self._limits.commit_hold_s)

    async def put(
        self, name: RepositoryName, digest: Digest, body: Body, size: int | None
    ) -> Blob | None:
        """Store a blob sent in one request; None if the body is empty and the digest's bytes not.

        Raises:
            DigestMismatch, SizeInvalid, TooLarge, StorageFull: nothing is kept.
        """
        self._limits.check_size(size or 0)
        await self._catalog.read(lambda tx: tx.check_room(name, [(digest, size or 0)]))
        incoming = await self._store.create(size)
        try:
            length = await incoming.receive(body)
            self._limits.check_size(length)
            if length == 0 and not is_empty(digest):
                return None
            return await self._blobs.commit(
                incoming, digest, lambda tx, _: self._blobs.link(tx, name, digest)
            )
        finally:
            await incoming.discard()

    async def cancel(self, name: RepositoryName, session: str) -> None:
        """End a session and delete its bytes.

        Raises:
            UploadUnknown: none such.
        """
        async with self._live.turn(session) as live:
            await self._drop(live, await self._loose(live, name, session))

    async def sweep(self) -> int:
        """Delete expired sessions with their bytes; return how many. Closes idle ones."""
        await self._live.close_idle()
        count = 0
        while expired := await self._catalog.read(
            lambda tx: tx.expired_uploads(self._clock(), 100)
        ):
            dropped = 0
            for upload in expired:
                with suppress(Unavailable):  # another replica is just about it
                    dropped += not self._live.is_busy(upload.id) and await self._expire(upload)
            count += dropped
            if not dropped:
                break
        return count

    async def close(self) -> None:
        """Let go of all open sessions; their bytes stay, to be gone on with later."""
        await self._live.close()

    # chunks

    async def _check_replay(self, live: LiveSession, upload: Upload, chunk: Chunk) -> None:
        incoming = await self._incoming(live, upload)
        body = Counted(chunk.body)
        if not await live.run(incoming.repeats(upload.last_first, body), lambda: body.size):
            raise UploadOutOfOrder(upload.offset)

    async def _append(self, live: LiveSession, upload: Upload, chunk: Chunk) -> Upload:
        advanced = False
        try:
            after = await self._receive(live, upload, chunk)
            advanced = await self._catalog.write(lambda tx: tx.advance_upload(after, upload.offset))
        except StorageFull:
            await self._drop(live, upload)
            raise
        finally:
            if not advanced:  # the row did not move, so the bytes must go back to where it stands
                await live.let_go(intact=False)
        if not advanced:
            return await self._overtaken(upload, chunk)
        self._open.note(after)
        return after

    async def _receive(
        self, live: LiveSession, upload: Upload, chunk: Chunk, *, durable: bool = True
    ) -> Upload:
        """Write the chunk; the row as it is to be afterwards.

        Not `durable`: the row stays, what follows is a commit.
        """
        self._limits.check_size(upload.offset + (chunk.length or 0))
        upload = await set_aside(self._catalog, upload, upload.offset + (chunk.length or 0))
        incoming = await self._incoming(live, upload)
        length = await live.run(incoming.receive(chunk.body), lambda: incoming.size)
        if chunk.length is not None and length != chunk.length:
            raise SizeInvalid(f"the chunk has {length} bytes, not {chunk.length}")
        offset = upload.offset + length
        self._limits.check_size(offset)
        if not length:
            return replace(upload, expires_at=self._limits.expiry(upload, self._clock()))
        upload = await set_aside(self._catalog, upload, offset)  # its length was not announced
        if durable:
            await incoming.flush()
        return replace(
            upload,
            offset=offset,
            storage_key=incoming.key,
            expires_at=self._limits.expiry(upload, self._clock()),
            last_first=upload.offset,
            last_length=length,
        )

    async def _overtaken(self, upload: Upload, chunk: Chunk) -> Upload:
        """Another replica was first: fine if what it accepted was this very chunk."""
        now = await self._catalog.read(lambda tx: tx.upload(upload.id))
        if now is None or now.state != "open":
            raise _unknown(upload.id)
        if chunk.start is not None and chunk.is_replay(now):
            return now
        raise UploadOutOfOrder(now.offset)

    async def _incoming(self, live: LiveSession, upload: Upload) -> Incoming:
        """The session's bytes, open and exactly as long as its row says."""
        if live.incoming is not None and live.incoming.size != upload.offset:
            await live.let_go(intact=False)
        if live.incoming is None:
            if upload.storage_key:
                live.incoming = await self._store.resume(upload.storage_key, upload.offset)
            else:
                live.incoming = await self._store.create()
        return live.incoming

    # commit

    async def _append_last(self, live: LiveSession, upload: Upload, chunk: Chunk) -> Upload:
        """Receive the chunk of the commit itself. The row stays: a retry sends it once more."""
        if chunk.is_replay(upload):
            await self._check_replay(live, upload, chunk)
            return upload
        chunk.check_order(upload)
        received = False
        try:
            after = await self._receive(live, upload, chunk, durable=False)
            received = True
        except StorageFull:
            await self._drop(live, upload)
            raise
        finally:
            if not received:
                await live.let_go(intact=False)
        return after

    async def _commit(
        self, live: LiveSession, name: RepositoryName, upload: Upload, digest: Digest
    ) -> Digest:
        def done(tx: Transaction, blob: Blob) -> None:
            now = self._clock()
            tx.put_upload(
                replace(
                    upload,
                    state="done",
                    result=str(digest),
                    offset=blob.size,
                    expires_at=now + self._limits.result_s * NS,
                )
            )
            self._blobs.link(tx, name, digest)  # into the room that the session had set aside

        try:
            incoming = await self._incoming(live, upload)
            await self._blobs.commit(incoming, digest, done)
            live.incoming = None
            with suppress(RegistryError):  # it is a blob, and the sweep finds what is left
                await incoming.discard()
        except (DigestMismatch, QuotaExceeded, StorageFull):
            await self._drop(live, upload)
            raise
        finally:
            await live.let_go(intact=False)  # a failed one may have had a chunk that no row counts
        self._open.ended(upload)
        return digest

    # life and limits

    async def _load(self, name: RepositoryName, session: str) -> Upload:
        upload = await unexpired(self._catalog, name, session, self._clock())
        if upload is None:
            raise _unknown(session)
        return upload

    async def _loose(self, live: LiveSession, name: RepositoryName, session: str) -> Upload:
        """An open session that is not being committed just now."""
        upload = await self.status(name, session)
        if live.is_committing:
            raise Conflict("the upload is being verified")
        return upload

    async def _drop(self, live: LiveSession, upload: Upload) -> None:
        """End a session with its bytes.

        In a folder these go first: with the disk full, the row may need their room. Elsewhere last,
        unless another replica has just made them a blob.
        """
        incoming, live.incoming = live.incoming, None
        if self._store.reuses_keys or await self._catalog.write(partial(_end, session=upload.id)):
            if incoming is not None:
                await incoming.discard()
            elif upload.storage_key:
                await self._store.discard(upload.storage_key)
        elif incoming is not None:
            await incoming.close(intact=False)
        self._open.ended(upload)
        if self._store.reuses_keys:
            await self._catalog.write(lambda tx: tx.delete_upload(upload.id))

    async def _expire(self, upload: Upload) -> bool:
        def work(tx: Transaction) -> bool:
            row = tx.upload(upload.id)
            if row is None or row.expires_at > self._clock():  # renewed since it was read
                return False
            tx.delete_upload(upload.id)
            return True

        async with self._live.turn(upload.id) as live:
            expired = await self._catalog.write(work)
            if expired:
                self._open.ended(upload)
                await live.let_go()
                if upload.storage_key and upload.state not in ("done", "failed"):
                    await self._store.discard(upload.storage_key)
        return expired


def _end(tx: Transaction, session: str) -> bool:
    """Delete an open session's row; False if it is done."""
    row = tx.upload(session)
    if row is not None and row.state != "open":
        return False
    tx.delete_upload(session)
    return True


def _unknown(session: str) -> UploadUnknown:
    return UploadUnknown(f"upload unknown: {session}")
