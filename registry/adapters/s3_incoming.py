"""Bytes on their way into an object store: `Incoming` of `ports/blobs.py`.

Each part is gathered in memory, hashed, and sent while the next one fills. Two hashes go over its
bytes: that of the whole blob so far, and the part's own, which the store compares with what
arrives. So at the end the store's checksum over all parts tells whether the object is made of the
very bytes that were hashed here. Where it does not (another process went on with the upload, or
bytes came out of order), the object is read back and hashed before anybody hears of it.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from registry.adapters.fs_buffers import write_through
from registry.adapters.hashing_sink import HashingSink
from registry.adapters.s3_buffers import Memory, PartBuffer
from registry.adapters.s3_gathering import Found, Gathering, Threads, limited_part
from registry.adapters.s3_sessions import Session
from registry.core.digest import Digest
from registry.core.errors import DigestMismatch, OperationFailed, RegistryError, UploadUnknown
from registry.core.multipart import FIRST_PART, Coverage, part_numbered
from registry.ports.blobs import Body


@dataclass(frozen=True, slots=True)
class Workshop:
    """What the store lends to each of its incoming bytes."""

    memory: Memory
    threads: Threads
    read: Callable[[str, int, int], Awaitable[bytes]]  # of a finished object
    hash_back: Callable[[str, int, str], Awaitable[str]]  # storage key, size, algorithm
    closed: Callable[[Session, Found | None], None]


class S3Incoming:
    """Parts of a multipart upload that is begun with the first full one."""

    rereads = False

    def __init__(self, workshop: Workshop, session: Session, found: Found) -> None:
        self._workshop = workshop
        self._session = session
        self._parts = Gathering(workshop.memory, workshop.threads, session, found)
        self._size = found.size
        self._borrowed: PartBuffer | None = None
        self._last: tuple[int, asyncio.Future[hashlib._Hash | None]] | None = None
        self._is_complete = found.is_complete
        self._made = False  # the object is there, and by us
        self._sealed: Digest | None = None
        self._published = self._closed = self._gone = False

    @property
    def key(self) -> str:
        """What takes it up again; another one once a part has been sent."""
        return self._session.key

    @property
    def size(self) -> int:
        """How many bytes were accepted."""
        return self._size

    # ---- bytes in

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`; it may be reused at once."""
        await write_through(self, data)

    async def borrow(self) -> memoryview:
        """The unfilled part of a buffer."""
        self._check()
        part = limited_part(self._size)
        buffer = await self._parts.buffer(part)
        offset = self._size - part.start
        data = await self._parts.ready(buffer, offset + 1)
        self._borrowed, buffer.is_lent = buffer, True
        return memoryview(data)[offset:]

    async def fill(self, size: int) -> None:
        """Append the first `size` bytes of the buffer last borrowed."""
        buffer, self._borrowed = self._borrowed, None
        assert buffer is not None, "borrow comes first"
        buffer.is_lent = False
        buffer.coverage.add(self._size, self._size + size)
        self._size += size
        self._parts.touch(buffer)

    async def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write out of order; the hash is made by reading back."""
        self._check()
        self._parts.lane.put(self._parts.forget_hash)
        source = memoryview(data).cast("B")
        while source:
            part = limited_part(offset)
            buffer = await self._parts.buffer(part)
            begin = offset - part.start
            count = min(len(source), part.size - begin)
            target = await self._parts.ready(buffer, begin + count)
            target[begin : begin + count] = source[:count]
            buffer.coverage.add(offset, offset + count)
            offset, source = offset + count, source[count:]
            self._size = max(self._size, offset)
            self._parts.touch(buffer)

    async def receive(self, body: Body) -> int:
        """Append a whole body, or nothing of it."""
        self._check()
        back = self._parts.try_anew(self._size)
        self._last = (self._size, self._state_here())
        try:
            return await body.feed(self)
        except BaseException:
            self._parts.undo(back)
            self._size, self._borrowed, self._last = back.size, None, None
            raise

    async def repeats(self, start: int, body: Body) -> bool:
        """Whether a body is what was accepted last; told by its length where nothing else is."""
        before = await self._last[1] if self._last and self._last[0] == start else None
        sink = HashingSink(before)
        length = await body.feed(sink)
        if before is None:
            return length == self._size - start
        return sink.hexdigest() == (await self.digest()).hex

    # ---- bytes back

    async def read(self, start: int, stop: int) -> bytes:
        """Bytes that are sealed, or still in memory."""
        stop = min(stop, self._size)
        if self._sealed is not None:
            return await self._workshop.read(self._session.storage_key, start, stop)
        buffer = self._parts.buffers.get(limited_part(start).number)
        if buffer is None or stop > buffer.end:
            raise OperationFailed("the bytes cannot be read before all of them are there")
        begin = buffer.part.start
        data = await self._parts.ready(buffer, buffer.end - begin)
        return bytes(memoryview(data)[start - begin : stop - begin])

    async def flush(self) -> None:
        """Send everything: full parts as such, the others as objects of their own."""
        await self._parts.flush()

    async def durable(self) -> list[tuple[int, int]]:
        """The parts that the store has, and what else it had at the last `flush`."""
        self._parts.check()
        there = Coverage()
        if self._is_complete:
            there.add(0, self._size)
        for number in self._parts.sent:
            part = part_numbered(number)
            there.add(part.start, min(part.stop, self._size))
        for buffer in self._parts.buffers.values():
            if buffer.rest is not None:
                there.add(buffer.rest.start, min(buffer.rest.stop, buffer.part.stop))
        return there.ranges

    async def digest(self, algorithm: str = "sha256") -> Digest:
        """The digest of all bytes accepted."""
        if self._sealed is not None:
            if algorithm == "sha256":
                return self._sealed
            key = self._session.storage_key
            return Digest(algorithm, await self._workshop.hash_back(key, self._size, algorithm))
        await self._parts.settled()
        buffer = self._parts.buffers.get(limited_part(self._size).number)
        if buffer is not None:
            await self._parts.ready(buffer, buffer.end - buffer.part.start)
        state = await self._state_here(algorithm)
        if state is None:
            raise OperationFailed("the bytes cannot be hashed before all of them are there")
        return Digest(algorithm, state.hexdigest())

    def _state_here(self, algorithm: str = "sha256") -> "asyncio.Future[hashlib._Hash | None]":
        """A hash of everything so far: of what went out, and of what is in memory."""
        part = limited_part(self._size)
        buffer = self._parts.buffers.get(part.number)
        view = memoryview(b"")
        if buffer is not None and buffer.data is not None and buffer.end == self._size:
            view = buffer.view()
        start = self._size - len(view)
        return self._parts.lane.call(partial(self._state, algorithm, view, start))

    def _state(self, algorithm: str, view: memoryview, start: int) -> "hashlib._Hash | None":
        running = self._parts.running
        if start == 0:
            state = hashlib.new(algorithm)
        elif algorithm == "sha256" and running is not None and running.size == start:
            state = running.state.copy()
        else:
            return None
        state.update(view)
        return state

    # ---- the end

    async def seal(self) -> Digest:
        """Make the bytes an object that nobody knows of, and say what they are."""
        if self._sealed is None:
            self._sealed = await self._seal()
        return self._sealed

    async def _seal(self) -> Digest:
        if self._is_complete or self._made:  # made: the hashing broke off
            return await self._read_back()
        await self._parts.settled()
        if not self._parts.sent and self._size <= FIRST_PART:
            return await self._seal_small()
        await self._parts.send_all()
        sent = self._parts.sent
        if sum(part.size for part in sent.values()) != self._size:
            raise OperationFailed("bytes of the upload are missing")
        vouched = await self._workshop.threads.run(partial(self._session.complete, sent))
        self._made = True
        running = self._parts.running
        if vouched and running is not None and running.size == self._size:
            return Digest.sha256(running.state.hexdigest())
        return await self._read_back()

    async def _seal_small(self) -> Digest:
        buffer = self._parts.buffers.get(1)
        body = b""
        if buffer is not None:
            await self._parts.ready(buffer, buffer.end)
            body = bytes(buffer.view())
        if len(body) != self._size:
            raise OperationFailed("bytes of the upload are missing")
        state = await self._parts.lane.call(partial(hashlib.sha256, body))
        put = partial(self._session.put_whole, body, state.digest())
        vouched = await self._workshop.threads.run(put)
        self._made = True
        return Digest.sha256(state.hexdigest()) if vouched else await self._read_back()

    async def _read_back(self) -> Digest:
        key = self._session.storage_key
        return Digest.sha256(await self._workshop.hash_back(key, self._size, "sha256"))

    async def publish(self, digest: Digest) -> str:
        """The storage key of the sealed bytes: they lie there already."""
        own = await self.seal()
        if digest != own:
            same = digest.algorithm != "sha256" and await self.digest(digest.algorithm) == digest
            if not same:
                raise DigestMismatch(str(digest), str(own))
        self._published = True
        return self._session.storage_key

    def confirm(self) -> None:
        """Nothing to do: nobody can have removed a key that nobody else has had."""

    async def close(self, *, intact: bool = True) -> None:
        """Let go of memory; what was not flushed is lost."""
        if self._closed:
            return
        self._closed = True
        await self._parts.end(give_up=False)
        intact = intact and not (self._sealed or self._made or self._parts.has_failed)
        kept = Found(self._size, self._parts.sent, running=self._parts.running)
        self._workshop.closed(self._session, kept if intact else None)
        if self._made and not self._published and not self._session.upload:
            # Its key does not lead there. What was published a row may mention.
            self._workshop.threads.later(self._session.remove)

    async def discard(self) -> None:
        """`close`, and delete the bytes unless they were published."""
        if self._gone:
            return
        self._gone = self._closed = True
        await self._parts.end(give_up=True)
        self._workshop.closed(self._session, None)
        self._parts.drop_rests()
        if not self._published:
            with contextlib.suppress(RegistryError):  # the sweep finds it again
                run = self._workshop.threads.run
                await asyncio.shield(
                    run(self._session.remove if self._made else self._session.abort)
                )

    def _check(self) -> None:
        assert self._sealed is None and not self._closed
        if self._is_complete or self._made:
            raise UploadUnknown("upload unknown")
        self._parts.check()
