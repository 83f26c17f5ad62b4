"""Blobs of an object store, read by ranges; a stream that breaks off goes on where it was."""

import asyncio
import contextlib
import hashlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, Self

from botocore.exceptions import BotoCoreError

from registry.adapters.s3_client import Gone, S3Bucket
from registry.adapters.s3_gathering import Run
from registry.core.errors import BlobUnknown, UploadUnknown

_CHUNK = 1 << 20
_LEAST = 64 << 10  # smaller pieces cost more CPU than they save memory
_TOGETHER = 16 << 20  # of the pieces of all streams
_BACK_BYTES = 8 << 20  # of one range when an object is read back, and of the first stream
_BACK_STREAM = 64 << 20
_BUSY = 5  # times its CPU that a stream may take: more means that the store is waited for
_BACK_RANGES = 4  # of them at once, one of which is being hashed
_BACK_STEP = 256 << 10


class Crowd:
    """The streams that are open at once: the more, the smaller their pieces.

    Measured, a stream that fetches ahead, to a slow client, has nearly four pieces in memory.
    """

    def __init__(self) -> None:
        self._streams = 0

    @property
    def piece(self) -> int:
        """How many bytes a stream may fetch in one go."""
        return max(_LEAST, min(_CHUNK, _TOGETHER // max(1, self._streams)))

    @property
    def is_small(self) -> bool:
        """Whether a stream may fetch ahead. Of many, others are fetched for meanwhile."""
        return self.piece == _CHUNK

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """One more, for a while."""
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1


class S3Opened:
    """A blob that was there when it was opened."""

    def __init__(
        self, bucket: S3Bucket, run: Run, storage_key: str, size: int, crowd: Crowd
    ) -> None:
        self._bucket = bucket
        self._run = run
        self._storage_key = storage_key
        self._key = bucket.blob(storage_key)
        self._size = size
        self._crowd = crowd

    @property
    def size(self) -> int:
        """Length of the blob in bytes."""
        return self._size

    def fileno(self) -> int | None:
        """None: there is no file."""
        return None

    async def read(self, start: int, stop: int) -> bytes:
        """The bytes `[start, stop)`."""
        try:
            return await self._run(partial(self._bucket.read, self._key, start, stop))
        except Gone as error:
            raise BlobUnknown(self._storage_key) from error

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """The same in pieces of up to 1 MiB; while there are few streams, one is fetched ahead."""
        stream = _Stream(self._bucket, self._key, start, stop)
        with self._crowd.joined():
            ahead: asyncio.Future[bytes] | None = None
            try:
                while start < stop:
                    data = await (ahead or self._next(stream))
                    start += len(data)
                    ahead = self._next(stream) if self._crowd.is_small and start < stop else None
                    yield data
            except Gone as error:
                raise BlobUnknown(self._storage_key) from error
            finally:
                if ahead is not None:
                    ahead.add_done_callback(_heed)
                self._run(stream.close).add_done_callback(_heed)

    def _next(self, stream: "_Stream") -> "asyncio.Future[bytes]":
        return self._run(partial(stream.next, self._crowd.piece))

    async def close(self) -> None:
        """Nothing is held between two reads."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class _Stream:
    """One answer after the other until all bytes came. Blocks; one call at a time goes on."""

    def __init__(self, bucket: S3Bucket, key: str, start: int, stop: int) -> None:
        self._bucket = bucket
        self._key = key
        self._at = start
        self._stop = stop
        self._body: Any = None
        self._lock = threading.Lock()

    def next(self, most: int) -> bytes:
        """Up to so many bytes, and never nothing."""
        with self._lock:
            data = self._bucket.tried(partial(self._step, most))
            self._at += len(data)
            return data

    def _step(self, most: int) -> bytes:
        try:
            if self._body is None:
                wanted = f"bytes={self._at}-{self._stop - 1}"
                answer = self._bucket.client.get_object(
                    Bucket=self._bucket.name, Key=self._key, Range=wanted
                )
                self._body = answer["Body"]
            data: bytes = self._body.read(min(most, self._stop - self._at))
            if not data:
                raise BotoCoreError
        except BaseException:
            self._drop()
            raise
        return data

    def _drop(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def close(self) -> None:
        """End the connection, unless everything was read: then it is used again."""
        with self._lock:
            self._drop()


async def hash_object(
    bucket: S3Bucket, run: Run, storage_key: str, size: int, algorithm: str
) -> str:
    """Hash a finished object, by one stream while that keeps up, then by some ranges at once.

    Raises:
        UploadUnknown: it is not there, or not as long.
    """
    state, key = hashlib.new(algorithm), bucket.blob(storage_key)
    start, length, keeps_up = 0, _BACK_BYTES, True
    try:
        while start < size and keeps_up:
            stop = min(start + length, size)
            keeps_up = await run(partial(_hash_stream, bucket, key, (start, stop), state))
            start, length = stop, _BACK_STREAM
        await _hash_ahead(partial(_read_into, bucket, key), run, range(start, size), state)
    except Gone as error:
        raise UploadUnknown("upload unknown") from error
    return state.hexdigest()


def _hash_stream(bucket: S3Bucket, key: str, span: tuple[int, int], state: "hashlib._Hash") -> bool:
    """Hash each piece in the thread that has just read it; whether the store was hardly waited for.

    The piece still lies in the core's cache then: 67 ms of CPU per 100 MB, of which the hash itself
    takes 48, where ranges read ahead of it take 99.
    """
    start, stop = span
    stream = _Stream(bucket, key, start, stop)
    began_s, used_s = time.perf_counter(), time.thread_time()
    try:
        while start < stop:
            data = stream.next(_CHUNK)
            state.update(data)
            start += len(data)
    finally:
        stream.close()
    return time.perf_counter() - began_s < _BUSY * (time.thread_time() - used_s)


async def _hash_ahead(
    read: Callable[[int, memoryview], None], run: Run, span: range, state: "hashlib._Hash"
) -> None:
    """Hash some ranges, in order, that are read at once: one connection alone would be slow.

    Each goes into a buffer that is used again, by pieces that the allocator keeps: read whole they
    took half as much CPU again, most of it for the kernel to clear pages.
    """
    starts = deque(span[::_BACK_BYTES])
    longest, count = min(len(span), _BACK_BYTES), min(len(starts), _BACK_RANGES)
    free = [memoryview(bytearray(longest)) for _ in range(count)]
    under_way: deque[tuple[asyncio.Future[None], memoryview]] = deque()
    try:
        while starts or under_way:
            while starts and free:
                start, buffer = starts.popleft(), free.pop()
                wanted = buffer[: min(_BACK_BYTES, span.stop - start)]
                under_way.append((run(partial(read, start, wanted)), wanted))
            await under_way[0][0]
            _, data = under_way.popleft()
            await run(partial(state.update, data))
            free.append(data)
    finally:
        for future, _ in under_way:
            future.add_done_callback(_heed)


def _read_into(bucket: S3Bucket, key: str, start: int, buffer: memoryview) -> None:
    """Fill a buffer with an object's bytes from `start` on; what broke off goes on where it was."""
    done = 0

    def step() -> None:
        nonlocal done
        wanted = f"bytes={start + done}-{start + len(buffer) - 1}"
        answer = bucket.client.get_object(Bucket=bucket.name, Key=key, Range=wanted)
        with contextlib.closing(answer["Body"]) as body:
            while done < len(buffer):
                data = body.read(min(_BACK_STEP, len(buffer) - done))
                if not data:
                    raise BotoCoreError
                buffer[done : done + len(data)] = data
                done += len(data)

    bucket.tried(step)


def _heed(future: "asyncio.Future[Any]") -> None:
    """Nobody waits for it any more: how it ends is no surprise."""
    with contextlib.suppress(asyncio.CancelledError):
        future.exception()
