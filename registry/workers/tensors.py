"""Work on tensors for a library whose machine has no engine: one job at a time, in a child process.

The blobs come out of the worker's cache, the file goes back in the answer. See `tensors_remote.py`.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from registry.adapters.nameless import LocalFile
from registry.adapters.tensors_remote import DATA, fault_record, record
from registry.core.digest import Digest
from registry.core.errors import RegistryError, RequestInvalid
from registry.ports.tensors import Making, TensorJob, TensorWorkshop
from registry.ports.workers import Weights
from registry.workers.cache import BlobCache

_PIECE = 256 << 10
_WAITING = 4
_FILES = 512

Answer = tuple[dict[str, Any], AsyncGenerator[bytes, None]]
"""The head of an answer, and its body."""


class TensorJobs:
    """The jobs of a worker, whichever replica they are from."""

    def __init__(self, workshop: TensorWorkshop, cache: BlobCache) -> None:
        self._workshop = workshop
        self._cache = cache
        self._turn = asyncio.Semaphore(1)

    @asynccontextmanager
    async def begin(self, told: Mapping[str, Any]) -> AsyncIterator[Answer]:
        """Begin a job; leaving the block ends it.

        Raises:
            RegistryError: it cannot be done here, and why.
        """
        async with self._turn, AsyncExitStack() as stack:
            job = await self._job(told, stack)
            making = await stack.enter_async_context(self._workshop.begin(job))
            plan = {
                "size": making.size,
                "total": making.total,
                "level": making.level,
                "warnings": list(making.warnings),
            }
            body = await stack.enter_async_context(contextlib.aclosing(_body(making)))
            yield {"status": 200, "plan": plan}, body

    async def _job(self, told: Mapping[str, Any], stack: AsyncExitStack) -> TensorJob:
        """The job with its files here, and open."""
        try:
            weights = [
                (str(name), Weights(Digest.parse(str(digest)), int(size)))
                for name, digest, size in told["files"]
            ]
            options = dict(told["options"])
        except (KeyError, TypeError, ValueError) as error:
            raise RequestInvalid("the order cannot be read") from error
        if len(weights) > _FILES:
            raise RequestInvalid("too many files")
        files = []
        for name, item in weights:
            path: Path = await self._cache.path(item)
            files.append((name, stack.enter_context(LocalFile.opened(path))))
        kind, target = told.get("kind"), str(told.get("target") or "")
        if kind not in {"gguf", "checkpoint", "adapter"}:
            raise RequestInvalid("this worker does not know that kind of work")
        canonical = told.get("canonical") is True
        return TensorJob(kind, files, target, canonical, options)


class _Pipe:
    """A `Sink` whose bytes come out at the other end."""

    def __init__(self) -> None:
        self._buffer = bytearray(_PIECE)
        self.records: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """See `Sink`."""
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            await self.records.put(record(DATA, bytes(view[start : start + _PIECE])))

    async def borrow(self) -> memoryview:
        """See `Sink`."""
        return memoryview(self._buffer)

    async def fill(self, size: int) -> None:
        """See `Sink`."""
        await self.write(memoryview(self._buffer)[:size])


async def _body(making: Making) -> AsyncGenerator[bytes, None]:
    """The finished file in records; the last says what went wrong, if something did."""
    pipe = _Pipe()

    async def work() -> None:
        try:
            await making.feed(pipe)
        except RegistryError as error:
            await pipe.records.put(fault_record(error))
        await pipe.records.put(None)

    task = asyncio.create_task(work())
    try:
        while (item := await pipe.records.get()) is not None:
            yield item
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
