"""Upload sessions whose bytes clients send to the store themselves, by URLs signed for them.

A session is taken over from `services/uploading/uploads.py` with its first request about bytes,
and never given back:

    open -redirect-> redirect: parts of one size, in any order, by any replica's word
    open -offer----> direct: the whole blob in one request, its sha256 checked by the store
    either -finish-> done, or failed: see `services/uploading/direct_commit.py`

Nothing of that is kept in this process; the row says it all.

Source: spec registry-protocol 2.1, 2.3, 2.5, 2.6 "Redirect mode".
"""

from dataclasses import replace
from typing import Any

from registry.core.digest import Digest
from registry.core.errors import Conflict, SizeInvalid, UploadUnknown
from registry.core.names import RepositoryName
from registry.core.ranges import Span
from registry.ports.catalog import Transaction
from registry.ports.direct import Direct, DirectPut
from registry.ports.transfers import Upload
from registry.services.library.blobs import Blobs
from registry.services.library.quotas import set_aside
from registry.services.uploading.direct_commit import STATES, DirectCommits
from registry.services.uploading.upload_limits import NS, UploadLimits, unexpired

SMALLEST_PART = 8 << 20
"""What comes in one smaller piece is the whole blob, and taken here: it costs the store one request
in place of four."""
LARGEST_PUT = 5 << 30
_LARGEST_PART = 5 << 30
_MOST_PARTS = 10_000
_RENEWED_NS = 3_600 * NS


class DirectUploads:
    """Use cases around sessions of that kind. `url_s` is the life of a URL in seconds."""

    def __init__(self, blobs: Blobs, store: Direct, limits: UploadLimits, url_s: int) -> None:
        self.store = store
        self._catalog = blobs.catalog
        self._clock = blobs.clock
        self._limits = limits
        self._url_s = url_s
        self._commits = DirectCommits(blobs, store, limits)

    async def find(self, name: RepositoryName, session: str) -> Upload | None:
        """A session of the repository that has not expired; see `is_ours`."""
        return await unexpired(self._catalog, name, session, self._clock())

    async def redirect(self, upload: Upload, span: Span) -> str | None:
        """Where a part of an upload is to be sent; None if its bytes are to come here.

        The first request of a session decides: how long its part is, all but the last must be.
        Asked again for the same part, the answer is as good.

        Raises:
            UploadUnknown: the session has ended.
            Conflict: its bytes go another way, or are being verified.
            SizeInvalid: no part begins or ends there.
            TooLarge: the blob would exceed its limit.
            QuotaExceeded: it does not fit into the namespace.
        """
        if upload.state == "open":
            if upload.offset or upload.storage_key or not _is_first(span):
                return None
            upload = await self._claim(upload, len(span))
        if upload.state != "redirect":
            raise UploadUnknown(f"upload unknown: {upload.id}")
        if upload.verifier:
            raise Conflict("the upload is being verified")
        number = _number(span, upload.part_size)
        self._limits.check_size(span.stop)
        await set_aside(self._catalog, upload, span.stop)
        await self._renew(upload)
        return await self.store.part_url(upload.storage_key, number, len(span), self._url_s)

    async def offer(self, upload: Upload, size: int) -> DirectPut | None:
        """Where a blob of declared digest may be sent whole; None if it is to come another way.

        That needs a store that checks what it gets: whoever has the URL could otherwise put other
        bytes in the place of verified ones for as long as it lives.
        """
        digest = Digest.parse(upload.declared_digest)
        if not 0 < size <= LARGEST_PUT or digest.algorithm != "sha256":
            return None
        if not await self.store.checks_sums():
            return None
        key = self.store.new_key()
        put = await self.store.put_url(key, digest, size, self._url_s)
        taken = await self._take_over(upload, {"state": "direct", "storage_key": key})
        return put if taken.storage_key == key else None

    async def offset(self, upload: Upload) -> int:
        """How many bytes from the beginning the store has.

        Raises:
            UploadUnknown: the session has ended.
        """
        if upload.state not in STATES:
            raise UploadUnknown(f"upload unknown: {upload.id}")
        landed = await self.store.landed(upload.storage_key)
        if landed is not None or upload.state == "direct":
            return landed.size if landed else 0
        size = 0
        for number, part in enumerate(await self.store.parts(upload.storage_key), 1):
            if part.number != number:
                break
            size += part.size
        return size

    async def finish(
        self, name: RepositoryName, upload: Upload, digest: Digest, count: int | None = None
    ) -> Digest:
        """Verify what the store has and make it a blob; `count` is the number of parts, if known.

        Asked again for a session that is finished, the answer is the same.

        Raises:
            DigestMismatch: the bytes are others, or were when it was asked before; they are gone.
            SizeInvalid: a part is missing, or has a wrong size; the session goes on.
            Conflict: a part came anew meanwhile; the session goes on.
            UploadUnknown: the session has ended otherwise.
            Unavailable: it takes long, ask again; or the store does not answer.
            TooLarge: the blob exceeds its limit.
        """
        return await self._commits.finish(name, upload, digest, count)

    async def cancel(self, upload: Upload) -> None:
        """End a session and delete its bytes.

        Raises:
            UploadUnknown: it has ended.
            Conflict: it is being verified.
        """
        if upload.state not in STATES:
            raise UploadUnknown(f"upload unknown: {upload.id}")
        if not await self._delete(upload):
            raise Conflict("the upload is being verified")

    async def settle(self) -> None:
        """Wait until nothing is being verified here."""
        await self._commits.settle()

    async def close(self) -> None:
        """Stop verifying: another replica, or the next start, begins anew."""
        await self._commits.close()

    async def _claim(self, upload: Upload, part_size: int) -> Upload:
        """Make it a session of parts, unless another request was first; the row as it is then."""
        key = await self.store.begin()
        taken: Upload | None = None
        try:
            parts = {"state": "redirect", "storage_key": key, "part_size": part_size}
            taken = await self._take_over(upload, parts)
        finally:
            if taken is None or taken.storage_key != key:
                await self.store.drop(key)
        return taken

    async def _take_over(self, upload: Upload, change: dict[str, Any]) -> Upload:
        def work(tx: Transaction) -> Upload | None:
            row = tx.upload(upload.id)
            if row is None or row.state != "open" or row.offset or row.storage_key:
                return row
            row = replace(row, **change)
            tx.put_upload(row)
            return row

        row = await self._catalog.write(work)
        if row is None:
            raise UploadUnknown(f"upload unknown: {upload.id}")
        return row

    async def _renew(self, upload: Upload) -> None:
        """Let the session live on; written now and then only."""
        until = self._limits.expiry(upload, self._clock())
        if until - upload.expires_at < min(_RENEWED_NS, self._limits.idle_s * NS // 4):
            return

        def work(tx: Transaction) -> None:
            row = tx.upload(upload.id)
            if row is not None and row.state in STATES and row.expires_at < until:
                tx.put_upload(replace(row, expires_at=until))

        await self._catalog.write(work)

    async def _delete(self, upload: Upload) -> bool:
        """Delete the row, then the bytes; False if somebody goes on with it."""

        def work(tx: Transaction) -> bool:
            row = tx.upload(upload.id)
            if row != upload or (row.verifier and row.expires_at > self._clock()):
                return False
            tx.delete_upload(upload.id)
            return True

        deleted = await self._catalog.write(work)
        if deleted:
            await self.store.drop(upload.storage_key)
        return deleted


def is_ours(upload: Upload) -> bool:
    """Whether the rest of a session is up to `DirectUploads`."""
    return upload.state in STATES or upload.state == "failed"


def _is_first(span: Span) -> bool:
    return span.start == 0 and SMALLEST_PART <= len(span) <= _LARGEST_PART


def _number(span: Span, part_size: int) -> int:
    """The number of the part, from 1.

    Raises:
        SizeInvalid: parts of that size do not lie so.
    """
    index, rest = divmod(span.start, part_size)
    if rest or len(span) > part_size or index >= _MOST_PARTS:
        raise SizeInvalid(f"a part must begin at a multiple of {part_size} and be no longer")
    return index + 1
