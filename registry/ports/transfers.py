"""Bytes on their way in, as the catalog knows them: upload sessions, and fetches from elsewhere.

Part of the catalog's port: see `ports/catalog.py` for transactions, times and sizes.
"""

from dataclasses import dataclass, field
from typing import Protocol

from registry.core.digest import Digest


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload session. Source: spec registry-protocol 2.6.

    `offset` is the number of bytes accepted; `last_first` and `last_length` tell the last chunk, so
    that its exact replay is known. `state` goes `open` → `done`; `result` is the digest it became.

    Where clients send the bytes to the store themselves (`services/uploading/direct.py`) it goes
    from `open` to `redirect` with the first part, or is `direct` from the beginning, then `done`,
    or `failed` if the bytes were others than those of `result`.
    """

    id: str
    repository_id: int
    storage_key: str
    created_at: int
    expires_at: int
    offset: int = 0
    last_first: int = 0
    last_length: int = 0
    last_sha256: str = ""  # hex digest of the last chunk's bytes
    declared_digest: str = ""
    state: str = "open"
    result: str = ""
    subject: str = ""  # who began it, and alone may go on; empty without authentication
    part_size: int = 0  # of those parts, but for the last
    verifier: str = ""  # the process that checks the bytes
    verifier_beats: int = 0  # counted on while it lives, so that no clocks need be compared
    reserved: int = 0  # bytes set aside for it of its namespace's quota


@dataclass(frozen=True, slots=True)
class Part:
    """A byte range `[start, stop)` of a blob being fetched; its first `done` bytes are on disk.

    `sha256` is the hex digest of the whole part as it was received, once it is complete.
    """

    start: int
    stop: int
    done: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Fetch:
    """A blob being fetched from another registry: survives restarts, so that a pull resumes."""

    digest: Digest
    size: int
    storage_key: str
    updated_at: int
    parts: tuple[Part, ...] = field(default=())


class TransferReader(Protocol):
    """What a read function may ask about transfers."""

    def upload(self, upload_id: str) -> Upload | None:
        """A session by id, expired or not."""

    def fetch(self, digest: Digest) -> Fetch | None:
        """The unfinished fetch of a blob."""

    def expired_uploads(self, now: int, limit: int) -> list[Upload]:
        """Sessions whose `expires_at` has passed."""

    def stale_fetches(self, updated_before: int, limit: int) -> list[Fetch]:
        """Fetches that nobody has gone on with since then."""

    def incoming_keys(self) -> frozenset[str]:
        """The storage keys of unfinished upload sessions and fetches."""


class TransferWriter(Protocol):
    """What a write function may do about transfers besides."""

    def put_upload(self, upload: Upload) -> None:
        """Add a session or overwrite its row."""

    def advance_upload(self, upload: Upload, from_offset: int) -> bool:
        """Store the row if the session is still open at `from_offset`; False if it is not."""

    def delete_upload(self, upload_id: str) -> None:
        """Remove a session."""

    def put_fetch(self, fetch: Fetch) -> None:
        """Add a fetch, or overwrite it and its parts."""

    def delete_fetch(self, digest: Digest) -> None:
        """The fetch is finished or given up."""
