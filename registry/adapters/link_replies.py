"""An answer that comes over a worker's link: fed at one end, read at the other.

No more than some 256 KiB of it are held: who sends waits for who reads.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from registry.adapters.replies import beginning
from registry.core.errors import WorkerLost

_HIGH = 1 << 18


class LinkReply:
    """`Reply` of `llama_http.py`. `cancel` is called when it is let go of before its end."""

    def __init__(self, head: Mapping[str, Any], cancel: Callable[[], None]) -> None:
        self.head = head
        self.is_closed = False
        self._cancel = cancel
        self._chunks: list[bytes] = []
        self._held = 0
        self._ended = False
        self._complete = False
        self._changed = asyncio.Event()

    @property
    def status(self) -> int:
        """The runner's status."""
        status = self.head.get("status")
        return status if isinstance(status, int) else 500

    # --- the end that sends

    async def feed(self, chunk: bytes) -> None:
        """Add a piece; waits while too much is held."""
        self._chunks.append(chunk)
        self._held += len(chunk)
        self._changed.set()
        while self._held > _HIGH and not self.is_closed and not self._ended:
            self._changed.clear()
            await self._changed.wait()

    def end(self, *, complete: bool) -> None:
        """There is no more of it."""
        if not self._ended:
            self._ended, self._complete = True, complete
            self._changed.set()

    # --- the end that reads

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives.

        Raises:
            WorkerLost: it broke off.
        """
        while True:
            if self._chunks:
                held = b"".join(self._chunks)
                self._chunks.clear()
                self._held = 0
                self._changed.set()
                yield held
            elif self._ended:
                if not self._complete:
                    raise WorkerLost
                return
            else:
                self._changed.clear()
                await self._changed.wait()

    async def read(self, limit: int) -> bytes:
        """The whole body, of which no more than `limit` bytes are looked at.

        Raises:
            WorkerLost: it broke off.
        """
        return await beginning(self.chunks(), limit)

    async def close(self) -> None:
        """Let go; the worker stops what it still makes."""
        if not self.is_closed:
            self.is_closed = True
            self._changed.set()
            if not self._ended:
                self._cancel()
