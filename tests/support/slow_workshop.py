"""A workshop that works in this process, at the pace a test sets."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from registry.core.errors import RegistryError
from registry.ports.blobs import Sink
from registry.ports.tensors import TensorJob


class SlowMaking:
    """A job that sends half of its bytes, waits, and sends the rest."""

    def __init__(self, data: bytes, workshop: "SlowWorkshop") -> None:
        self._data = data
        self._workshop = workshop
        self.size = len(data)
        self.level = "F16"
        self.total = workshop.total
        self.done = 0
        self.warnings: Sequence[str] = workshop.warnings

    async def feed(self, sink: Sink) -> int:
        half = self.size // 2
        await sink.write(self._data[:half])
        self.done = self.total // 2
        self._workshop.half_way.set()
        await self._workshop.go_on.wait()
        if self._workshop.error is not None:
            raise self._workshop.error
        await sink.write(self._data[half:])
        self.done = self.total
        return self.size


class SlowWorkshop:
    """Makes `made` of whatever it gets; counts the jobs and how many ran at once."""

    def __init__(self, made: bytes, total: int = 64 << 20) -> None:
        self.made = made
        self.total = total
        self.warnings: list[str] = []
        self.error: RegistryError | None = None
        self.half_way = asyncio.Event()
        self.go_on = asyncio.Event()
        self.jobs: list[TensorJob] = []
        self.running = self.most = 0

    @asynccontextmanager
    async def begin(self, job: TensorJob) -> AsyncIterator[SlowMaking]:
        self.jobs.append(job)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            yield SlowMaking(self.made, self)
        finally:
            self.running -= 1
