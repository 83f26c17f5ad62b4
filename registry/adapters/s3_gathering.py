"""Parts of a blob while they are gathered in memory, hashed, and sent to the object store.

All state but the running hash belongs to the event loop; that belongs to the lane. Parts are hashed
in the order in which they became full, so the running hash has seen a blob that came in order; one
that did not has none. What a failed body sent is taken back by giving its `Attempt` up.
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from registry.adapters.fs_buffers import Lane
from registry.adapters.fs_pieces import Attempt, Running
from registry.adapters.s3_buffers import SMALL, Memory, PartBuffer
from registry.adapters.s3_client import Gone
from registry.adapters.s3_sessions import Rest, Sent, Session
from registry.core.errors import RegistryError, TooLarge, UploadUnknown
from registry.core.multipart import Part, part_at

T = TypeVar("T")

_DEPTH = 3  # parts of one upload that may be on their way
_AT_ONCE = 64 << 20  # but not more bytes than that, one part aside
_STRIDE = 1 << 20


class Run(Protocol):
    """Runs a call of the store's in a thread."""

    def __call__(self, work: Callable[[], T], /) -> "asyncio.Future[T]":
        """The result, some time."""


@dataclass(frozen=True, slots=True)
class Threads:
    """Where work is done: calls of the store, hashes, and what nobody waits for."""

    run: Run
    lane: Callable[[], Lane]
    later: Callable[[Callable[[], object]], object]


@dataclass(slots=True)
class Found:
    """How far a session has come."""

    size: int = 0
    sent: dict[int, Sent] = field(default_factory=dict)
    rests: list[Rest] = field(default_factory=list)  # all there are, of use or not
    running: Running | None = None
    is_complete: bool = False  # the object is there, completed by somebody


class Gathering:
    """The parts of one blob."""

    def __init__(self, memory: Memory, threads: Threads, session: Session, found: Found) -> None:
        self.session = session
        self.sent = found.sent
        self.running = found.running  # of the lane; None: read back for the digest
        self.buffers = _partial(found)
        self.lane = threads.lane()
        self._memory = memory
        self._threads = threads
        self._rests = set(found.rests)
        self._useful = set(found.rests)  # of the last `flush`: the row may stand there
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._progress = asyncio.Event()
        self._beginning = asyncio.Lock()
        self._attempt = Attempt()
        self._failure: tuple[Attempt, RegistryError] | None = None
        for budget in (memory.large, memory.small):
            budget.holders[self] = None

    # ---- memory

    async def buffer(self, part: Part) -> PartBuffer:
        """Where a part's bytes are gathered; a new one waits for parts that are on their way."""
        depth = max(1, min(_DEPTH, _AT_ONCE // part.size - 1))
        while part.number not in self.buffers and len(self._tasks) >= depth:
            self._progress.clear()
            await self._progress.wait()
            self.check()
        if part.number not in self.buffers:
            self.buffers[part.number] = PartBuffer(part)
        return self.buffers[part.number]

    async def ready(self, buffer: PartBuffer, need: int) -> bytearray:
        """Have the buffer's bytes in memory, and room for `need` of them from its start."""
        async with buffer.lock:
            buffer.used_s = time.monotonic()
            old = buffer.data
            if old is not None and len(old) >= need:
                return old
            count = buffer.end - buffer.part.start
            small = max(need, count) <= SMALL and not self.sent and not self._tasks
            new = await self._memory.acquire(SMALL if small else buffer.part.size)
            try:
                new[:count] = await self._beginning_bytes(buffer, count)
            except BaseException:
                self._memory.release(new)
                raise
            self._let_go(buffer)
            buffer.data, buffer.head = new, b""
            return new

    async def _beginning_bytes(self, buffer: PartBuffer, count: int) -> bytes | memoryview:
        if buffer.data is not None:
            return buffer.view()
        if buffer.rest is None:
            return buffer.head
        try:
            return await self._threads.run(partial(self.session.rest, buffer.rest, count))
        except Gone as error:
            raise UploadUnknown("upload unknown") from error

    def touch(self, buffer: PartBuffer) -> None:
        """Bytes came; a full part goes out."""
        buffer.used_s = time.monotonic()
        if buffer.is_full:
            self._pass_on(buffer)

    def spare(self, now_s: float) -> None:
        """Give up buffers that got no bytes for a while; `ready` gets the bytes back."""
        for buffer in self.buffers.values():
            if buffer.data is not None and buffer.is_idle(now_s) and not buffer.lock.locked():
                self._start(self._spill(buffer))

    async def _spill(self, buffer: PartBuffer) -> None:
        async with buffer.lock:
            if not buffer.is_idle(time.monotonic()):
                return
            with contextlib.suppress(RegistryError):
                await self._keep(buffer)
                self._let_go(buffer)

    def _let_go(self, buffer: PartBuffer) -> None:
        data, buffer.data = buffer.data, None
        if data is not None:
            self._memory.release(data)

    # ---- rests

    async def flush(self) -> None:
        """Send everything: full parts as such, the others as objects of their own."""
        await self.settled()
        for buffer in list(self.buffers.values()):
            async with buffer.lock:
                await self._keep(buffer)
        useful = {buffer.rest for buffer in self.buffers.values() if buffer.rest is not None}
        self._drop(self._rests - useful - self._useful)
        self._useful = useful

    async def _keep(self, buffer: PartBuffer) -> None:
        """Put the beginning of a part where it outlives us. Under the buffer's lock."""
        start, end = buffer.part.start, buffer.end
        if end == start or (buffer.rest is not None and buffer.rest.stop >= end):
            return
        body = buffer.head if buffer.data is None else bytes(buffer.view())
        buffer.rest = await self._threads.run(partial(self.session.put_rest, start, body))
        self._rests.add(buffer.rest)

    def drop_rests(self) -> None:
        """Delete all of them, some time."""
        self._drop(self._rests)

    def _drop(self, rests: Iterable[Rest]) -> None:
        for rest in list(rests):
            self._rests.discard(rest)
            self._threads.later(partial(self.session.drop_rest, rest))

    # ---- parts out

    async def send_all(self) -> None:
        """Send what is left, the last part too."""
        await self.settled()
        for buffer in list(self.buffers.values()):
            await self.ready(buffer, buffer.end - buffer.part.start)
            self._pass_on(buffer)
        await self.settled()

    def _pass_on(self, buffer: PartBuffer) -> None:
        number = buffer.part.number
        del self.buffers[number]
        before = self._sending.get(number)
        # Queued here and now, before any later wish of the lane: `try_anew` saves the hash there.
        view, attempt = buffer.view(), self._attempt
        hashing = self.lane.call(partial(self._hash, view, buffer.part.start, attempt))
        outgoing = _Outgoing(buffer, view, attempt, hashing)
        self._sending[number] = self._start(self._send(outgoing, before))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._progress.set()

    async def _send(self, outgoing: "_Outgoing", before: asyncio.Task[None] | None) -> None:
        buffer, view, attempt = outgoing.buffer, outgoing.view, outgoing.attempt
        number = buffer.part.number
        try:
            sha256 = await outgoing.hashing
            if before is not None:  # else an older part of that number might come in last
                await asyncio.wait({before})
            if attempt.given_up:
                return
            async with self._beginning:
                if not self.session.upload:
                    await self._threads.run(self.session.begin)
            body = buffer.data if len(view) == len(buffer.data or b"") else bytes(view)
            assert body is not None
            sent = await self._threads.run(partial(self.session.put_part, number, body, sha256))
            if not attempt.given_up:
                self.sent[number] = sent
        except RegistryError as error:
            self._failure = (attempt, error)
        except Gone:
            self._failure = (attempt, UploadUnknown("the upload was ended elsewhere"))
        finally:
            view.release()
            self._let_go(buffer)

    async def settled(self) -> None:
        """Wait until everything that was passed on is there.

        Raises:
            RegistryError: what went wrong with it.
        """
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        self.check()

    def check(self) -> None:
        """Raise what went wrong in the background."""
        if self.has_failed:
            assert self._failure is not None
            raise self._failure[1]

    @property
    def has_failed(self) -> bool:
        """Whether something did."""
        return self._failure is not None and not self._failure[0].given_up

    async def end(self, *, give_up: bool) -> None:
        """Let go of everything, also when cancelled: work in threads is waited for."""
        self._attempt.given_up = self._attempt.given_up or give_up
        if self._tasks:
            await asyncio.shield(asyncio.ensure_future(asyncio.wait(set(self._tasks))))
        for buffer in self.buffers.values():
            self._let_go(buffer)
        for budget in (self._memory.large, self._memory.small):
            budget.holders.pop(self, None)

    # ---- attempts

    def try_anew(self, size: int) -> "Return":
        """From here on bytes may be taken back, to `size` of them."""
        self._attempt = Attempt()
        saved: list[Running | None] = []
        self.lane.put(partial(self._save_hash, saved))
        return Return(size, self._beginning_of(size), saved)

    def _beginning_of(self, size: int) -> PartBuffer | None:
        """The beginning of the part that `size` lies in."""
        old = self.buffers.get(limited_part(size).number)
        if old is None or old.end != size:
            return None
        kept = PartBuffer(old.part)
        kept.coverage.add(old.part.start, size)
        kept.rest, kept.head = old.rest, old.head
        if old.data is not None and (old.rest is None or old.rest.stop < size):
            kept.rest, kept.head = None, bytes(old.view())
        return kept

    def undo(self, back: "Return") -> None:
        """Go back to where it was, and to the hash of that."""
        self._attempt.given_up = True
        self._attempt = Attempt()
        for buffer in self.buffers.values():
            self._let_go(buffer)
        first = limited_part(back.size).number
        for number in [number for number in self.sent if number >= first]:
            del self.sent[number]
        self.buffers = {} if back.beginning is None else {first: back.beginning}
        self.lane.put(partial(self._restore_hash, back.saved))

    # ---- in the lane

    def _hash(self, view: memoryview, start: int, attempt: Attempt) -> bytes:
        """Hash a part for itself and for the whole; its own hash is returned."""
        state, running = hashlib.sha256(), self.running
        if running is not None and running.size != start:
            self.running = running = None
        if attempt.given_up:
            return b""
        for offset in range(0, len(view), _STRIDE):
            with view[offset : offset + _STRIDE] as stride:
                state.update(stride)
                if running is not None:
                    running.state.update(stride)
                    running.size += len(stride)
        return state.digest()

    def _save_hash(self, saved: list[Running | None]) -> None:
        saved.append(self.running.copy() if self.running else None)

    def _restore_hash(self, saved: list[Running | None]) -> None:
        self.running = saved.pop()

    def forget_hash(self) -> None:
        """Bytes come out of order."""
        self.running = None


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A part on its way."""

    buffer: PartBuffer
    view: memoryview
    attempt: Attempt
    hashing: asyncio.Future[bytes]


@dataclass(frozen=True, slots=True)
class Return:
    """What it takes to go back."""

    size: int
    beginning: PartBuffer | None
    saved: list[Running | None]


def limited_part(offset: int) -> Part:
    """The part at an offset.

    Raises:
        TooLarge: no store takes that many parts.
    """
    try:
        return part_at(offset)
    except ValueError as error:
        raise TooLarge("larger than an object store takes") from error


def _partial(found: Found) -> dict[int, PartBuffer]:
    """The parts whose beginnings are there."""
    buffers: dict[int, PartBuffer] = {}
    for rest in sorted(found.rests, key=lambda rest: rest.stop):
        part = limited_part(rest.start)
        if part.start != rest.start or part.number in found.sent or rest.start >= found.size:
            continue
        buffer = buffers[part.number] = PartBuffer(part)
        buffer.coverage.add(rest.start, min(rest.stop, part.stop, found.size))
        buffer.rest = rest
    return buffers
