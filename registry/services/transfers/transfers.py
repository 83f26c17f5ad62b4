"""Blobs on their way in: whoever asks for one that is being fetched waits for that fetch."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from registry.core.digest import Digest
from registry.core.errors import Unavailable
from registry.ports.upstream import Upstream
from registry.services.sharing.efforts import Asking, Effort, Progress, What
from registry.services.sharing.sharing import Share, Sharing
from registry.services.transfers.download import Download, Workshop


@dataclass(frozen=True, slots=True)
class Transfer:
    """A blob on its way, as one who waits for it sees it."""

    share: Share

    @property
    def completed(self) -> int:
        """How many bytes are here; never less than it said before."""
        return self.share.progress.done

    @property
    def mine(self) -> bool:
        """Whether it comes, or came, from the registry that this asker named."""
        return self.share.mine

    async def wait(self, timeout_s: float) -> bool:
        """Wait a while; say whether the blob is here.

        Raises:
            RegistryError: it will not come, and why.
        """
        return await self.share.wait(timeout_s) is not None


class Transfers:
    """The blobs on their way."""

    def __init__(self, workshop: Workshop, sharing: Sharing) -> None:
        self._workshop = workshop
        self._sharing = sharing

    @asynccontextmanager
    async def join(
        self, upstream: Upstream, digest: Digest, size: int, asking: Asking
    ) -> AsyncIterator[Transfer]:
        """Wait with others for a blob, or begin to fetch it; who asks gets a lease on it.

        Leaving the block leaves the transfer.
        """

        async def work(effort: Effort) -> str:
            download = Download(self._workshop, upstream, digest, size, effort.conclude)
            effort.look = lambda: Progress(download.completed, size)
            async with self._turn(digest):
                await download.run()
            return ""

        what = What("pull", f"pull {digest} {size}", str(digest))
        async with self._sharing.join(what, asking, work) as share:
            yield Transfer(share)

    @asynccontextmanager
    async def _turn(self, digest: Digest) -> AsyncIterator[None]:
        """Shut out a process that had this work before and only seemed dead.

        Both would write one file, which the other may have published. If it keeps its turn, the
        file is left to it, and all is fetched anew.
        """
        turn = None
        try:
            turn = await self._workshop.store.turn(f"fetch {digest}")
        except Unavailable:
            await self._workshop.catalog.write(lambda tx: tx.delete_fetch(digest))
        try:
            yield
        finally:
            if turn is not None:
                turn.end()
