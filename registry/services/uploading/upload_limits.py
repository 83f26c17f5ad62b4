"""What uploads may take, and how many this process has begun."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from registry.core.errors import TooLarge, Unavailable
from registry.core.names import RepositoryName
from registry.ports.catalog import Catalog, Reader
from registry.ports.transfers import Upload

NS = 10**9
_LOOK_NS = 10 * NS


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What uploads may take. Times in seconds."""

    sessions: int = 4096  # open ones that were begun in this process
    idle_s: int = 86_400  # life after the last data
    total_s: int = 7 * 86_400  # life in all
    result_s: int = 3_600  # a finished session is remembered so long
    blob_bytes: int = 1 << 40
    commit_hold_s: float = 50.0  # a longer verification is answered with "ask again"

    def expiry(self, upload: Upload, now: int) -> int:
        """Until when a session lives that got data just now."""
        return min(upload.created_at + self.total_s * NS, now + self.idle_s * NS)

    def check_size(self, size: int) -> None:
        """Raise `TooLarge` if a blob of so many bytes is."""
        if size > self.blob_bytes:
            raise TooLarge(f"a blob may have {self.blob_bytes} bytes at most")


async def unexpired(
    catalog: Catalog, name: RepositoryName, session: str, now: int
) -> Upload | None:
    """A session of a repository, in whichever state; None if there is none or its time is up."""

    def work(tx: Reader) -> Upload | None:
        repository, upload = tx.repository(name), tx.upload(session)
        same = repository and upload and upload.repository_id == repository.id
        return upload if same else None

    upload = await catalog.read(work)
    return None if upload is None or upload.expires_at <= now else upload


class OpenSessions:
    """The sessions that were begun here and have not ended or expired."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._until: dict[str, int] = {}
        self._looked_at = 0
        self._looking = asyncio.Lock()

    async def check_room(self, catalog: Catalog, now: int) -> None:
        """Raise `Unavailable` if there is room for no more.

        Sessions may end without our hearing of it, on another replica, so their rows are asked when
        they seem to be too many; not all the time, if they are.
        """
        if len(self._until) < self._limit:
            return
        async with self._looking:  # who comes meanwhile waits for what the rows say
            await self._look(catalog, now)
        if len(self._until) >= self._limit:
            raise Unavailable("too many uploads are open", retry_after_s=60)

    async def _look(self, catalog: Catalog, now: int) -> None:
        """Forget those that are over."""
        self._until = {session: until for session, until in self._until.items() if until > now}
        if len(self._until) >= self._limit and now - self._looked_at > _LOOK_NS:
            self._looked_at = now
            known = list(self._until)
            for session in await catalog.scan(lambda tx: _ended(tx, known)):
                self._until.pop(session, None)

    def note(self, upload: Upload) -> None:
        """A session was begun, or goes on."""
        self._until[upload.id] = upload.expires_at

    def ended(self, upload: Upload) -> None:
        """A session is over."""
        self._until.pop(upload.id, None)


def _ended(tx: Reader, sessions: Sequence[str]) -> list[str]:
    rows = ((session, tx.upload(session)) for session in sessions)
    return [session for session, row in rows if row is None or row.state in ("done", "failed")]
