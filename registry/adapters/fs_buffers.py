"""Memory and threads of the file system store: a bounded pool of buffers, and lanes of jobs.

An upload owns at most one buffer that is being filled; the others are on their way through two
lanes, one that hashes and one that writes. Buffers are what bounds the store's memory: whoever
wants one when all are out waits its turn, first come, first served.
"""

import asyncio
import contextlib
import mmap
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from threading import Lock
from typing import TypeVar

from registry.ports.blobs import Sink

T = TypeVar("T")

BLOCK = 4096  # what O_DIRECT wants of addresses, offsets and lengths on every disk in use
_KEPT = 6  # free buffers kept for the next upload; the others go back to the system
_TURN = 8  # jobs of one lane before its thread looks after another lane


class Buffer:
    """Page-aligned memory. `view` is all of it."""

    __slots__ = ("_memory", "view")

    def __init__(self, size: int) -> None:
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):  # cheaper to fill and to write: 0.85 to 0.72 CPU s/GiB
            with contextlib.suppress(OSError):  # a kernel without them
                self._memory.madvise(mmap.MADV_HUGEPAGE)
        self.view = memoryview(self._memory)

    def free(self) -> None:
        """Give the memory back. A view someone still holds keeps it until that one goes."""
        self.view.release()
        try:
            self._memory.close()
        except BufferError:  # a slice of it is still referred to by a frame that is on its way out
            del self._memory


class BufferPool:
    """At most `count` buffers of `size` bytes. Belongs to one event loop; not for other threads."""

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self._left = count
        self._free: list[Buffer] = []
        self._waiting: deque[asyncio.Future[Buffer]] = deque()
        self._spare: dict[object, Callable[[], None]] = {}

    def can_spare(self, owner: object, give_back: Callable[[], None]) -> None:
        """`owner` holds a buffer it is not filling right now: `give_back` when others want one."""
        self._spare[owner] = give_back

    def cannot_spare(self, owner: object) -> None:
        """It is filling it again, or has none."""
        self._spare.pop(owner, None)

    async def acquire(self) -> Buffer:
        """A buffer; waits while all are out."""
        if not self._waiting:
            if self._free:
                return self._free.pop()
            if self._left:
                self._left -= 1
                return Buffer(self.size)
        turn: asyncio.Future[Buffer] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if self._spare:
            self._spare.pop(next(iter(self._spare)))()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(turn.result())
            raise

    def release(self, buffer: Buffer) -> None:
        """Take a buffer back, or hand it to the one who waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(buffer)
                return
        if len(self._free) < _KEPT:
            self._free.append(buffer)
            return
        buffer.free()
        self._left += 1


class Lane:
    """Jobs that run one after the other, in the order given, in threads shared with other lanes."""

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._jobs: deque[Callable[[], object]] = deque()
        self._lock = Lock()
        self._busy = False

    def put(self, job: Callable[[], object]) -> None:
        """Queue a job that reports by itself."""
        with self._lock:
            self._jobs.append(job)
            if self._busy:
                return
            self._busy = True
        self._threads.submit(self._run)

    def call(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """Queue a job; the future has its result. Cancelled before its turn, it does not run."""
        future: Future[T] = Future()
        self.put(lambda: _settle(future, job))
        return asyncio.wrap_future(future)

    def _run(self) -> None:
        try:
            for _ in range(_TURN):
                with self._lock:
                    job = self._jobs.popleft() if self._jobs else None
                if job is None:
                    break
                job()
        finally:
            with self._lock:
                self._busy = bool(self._jobs)
                more = self._busy
            if more:
                self._threads.submit(self._run)


def _settle(future: "Future[T]", job: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(job())
    except BaseException as error:  # the edge of a thread: whoever awaits the future handles it
        future.set_exception(error)


async def write_through(sink: Sink, data: bytes | bytearray | memoryview) -> None:
    """Copy `data` into the buffers that a sink lends."""
    source = memoryview(data).cast("B")
    while source:
        target = await sink.borrow()
        count = min(len(target), len(source))
        target[:count] = source[:count]
        await sink.fill(count)
        source = source[count:]
