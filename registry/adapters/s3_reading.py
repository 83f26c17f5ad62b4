"""Blobs of an object store, read by ranges; a stream that breaks off goes on where it was."""

import asyncio
import contextlib
import hashlib
import threading
from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Self

from botocore.exceptions import BotoCoreError

from registry.adapters.s3_client import Gone, S3Bucket
from registry.adapters.s3_gathering import Run
from registry.core.errors import BlobUnknown, UploadUnknown

_CHUNK = 1 << 20
_BACK_BYTES = 8 << 20  # of one range when an object is read back
_BACK_RANGES = 4  # of them at once, one of which is being hashed
_BACK_STEP = 256 << 10


class S3Opened:
    """A blob that was there when it was opened."""

    def __init__(self, bucket: S3Bucket, run: Run, storage_key: str, size: int) -> None:
        self._bucket = bucket
        self._run = run
        self._storage_key = storage_key
        self._key = bucket.blob(storage_key)
        self._size = size

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
        """The same in pieces of up to 1 MiB, one of them fetched ahead."""
        stream = _Stream(self._bucket, self._key, start, stop)
        ahead = self._run(stream.next) if start < stop else None
        try:
            while ahead is not None:
                data = await ahead
                start += len(data)
                ahead = self._run(stream.next) if start < stop else None
                yield data
        except Gone as error:
            raise BlobUnknown(self._storage_key) from error
        finally:
            if ahead is not None:
                ahead.add_done_callback(_heed)
            self._run(stream.close).add_done_callback(_heed)

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

    def next(self) -> bytes:
        """Up to 1 MiB, and never nothing."""
        with self._lock:
            data = self._bucket.tried(self._step)
            self._at += len(data)
            return data

    def _step(self) -> bytes:
        try:
            if self._body is None:
                wanted = f"bytes={self._at}-{self._stop - 1}"
                answer = self._bucket.client.get_object(
                    Bucket=self._bucket.name, Key=self._key, Range=wanted
                )
                self._body = answer["Body"]
            data: bytes = self._body.read(min(_CHUNK, self._stop - self._at))
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
    """Hash a finished object: some ranges at once, in order.

    Each range goes into a buffer that is used again, by pieces that the allocator keeps: read whole
    they took half as much CPU again, most of it for the kernel to clear pages.

    Raises:
        UploadUnknown: it is not there, or not as long.
    """
    state = hashlib.new(algorithm)
    read = partial(_read_into, bucket, bucket.blob(storage_key))
    starts = deque(range(0, size, _BACK_BYTES))
    free = [memoryview(bytearray(min(size, _BACK_BYTES))) for _ in range(_BACK_RANGES)]
    under_way: deque[tuple[asyncio.Future[None], memoryview]] = deque()
    try:
        while starts or under_way:
            while starts and free:
                start, buffer = starts.popleft(), free.pop()
                wanted = buffer[: min(_BACK_BYTES, size - start)]
                under_way.append((run(partial(read, start, wanted)), wanted))
            await under_way[0][0]
            _, data = under_way.popleft()
            await run(partial(state.update, data))
            free.append(data)
    except Gone as error:
        raise UploadUnknown("upload unknown") from error
    finally:
        for future, _ in under_way:
            future.add_done_callback(_heed)
    return state.hexdigest()


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
