"""Sharing: whoever asks for a blob that is being fetched already waits for that fetch.

One fetch per digest and size in this process. It runs in a task of its own, belongs to all who wait
for it, and is cancelled when the last of them leaves.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CancelScope

from registry.core.digest import Digest
from registry.ports.upstream import Upstream
from registry.services.download import Download, Workshop


class Transfer:
    """A blob on its way, as one who waits for it sees it."""

    def __init__(self, download: Download, upstream: Upstream, holders: set[str]) -> None:
        self._download = download
        self.upstream = upstream
        self._highest = 0
        self.holders = holders
        self.task = asyncio.create_task(download.run())
        self.leaving = False

    @property
    def completed(self) -> int:
        """How many bytes are here; never less than it said before."""
        self._highest = max(self._highest, self._download.completed)
        return self._highest

    async def wait(self, timeout_s: float) -> bool:
        """Wait a while; say whether the blob is here.

        Raises:
            RegistryError: it will not come, and why.
        """
        await asyncio.wait({self.task}, timeout=timeout_s)
        if not self.task.done():
            return False
        await self.task
        return True


class Transfers:
    """The blobs on their way into this process."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._running: dict[tuple[Digest, int], Transfer] = {}

    @asynccontextmanager
    async def join(
        self, upstream: Upstream, digest: Digest, size: int, holder: str
    ) -> AsyncIterator[Transfer]:
        """Wait with others for a blob, or begin to fetch it; `holder` gets a lease on it.

        Leaving the block leaves the transfer.
        """
        key = digest, size
        while (transfer := self._running.get(key)) is not None and transfer.leaving:
            await asyncio.wait({transfer.task})
        if transfer is None or transfer.task.done():
            holders = {holder}
            download = Download(self._workshop, upstream, digest, size, holders)
            transfer = self._running[key] = Transfer(download, upstream, holders)
        transfer.holders.add(holder)
        try:
            yield transfer
        finally:
            transfer.holders.discard(holder)
            if not transfer.holders:
                await self._end(key, transfer)

    async def _end(self, key: tuple[Digest, int], transfer: Transfer) -> None:
        """Stop a transfer that nobody waits for, and see it put its parts away."""
        transfer.leaving = True
        transfer.task.cancel()
        with CancelScope(shield=True):
            await asyncio.wait({transfer.task})
        if not transfer.task.cancelled():
            transfer.task.exception()  # whoever waited was told; nobody is left to tell
        if self._running.get(key) is transfer:
            del self._running[key]
