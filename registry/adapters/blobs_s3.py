"""The blob store in an object store: `BlobStore` of `ports/blobs.py` on S3 and what speaks like it.

A blob's key is random and is written once: the catalog alone knows whose bytes lie under it. So
nothing is ever copied or renamed, and an object that no row mentions hurts nobody until it is
swept. `s3_client.py` has the layout, `s3_sessions.py` what is on its way in.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from registry.adapters.fs_buffers import Lane
from registry.adapters.fs_pieces import Running
from registry.adapters.s3_buffers import Memory
from registry.adapters.s3_client import Gone, S3Bucket, is_storage_key, new_key
from registry.adapters.s3_gathering import Found, Threads
from registry.adapters.s3_incoming import S3Incoming, Workshop
from registry.adapters.s3_reading import Crowd, S3Opened, hash_object
from registry.adapters.s3_sessions import Sent, Session
from registry.adapters.s3_sweep import sweep
from registry.core.digest import Digest
from registry.core.errors import BlobUnknown, UploadUnknown
from registry.core.multipart import part_at, part_numbered, parts_below
from registry.ports.blobs import Incoming, Opened

T = TypeVar("T")

_THREADS = 32
_HASH_THREADS = 2
_READ_BACK = 2  # objects that are hashed at once
_KEPT = 256  # running hashes of upload sessions between two of their requests
_PAGE = 1000
_CHECK_S = 10.0


class S3BlobStore:
    """Blobs below a prefix of a bucket. One event loop per store; any number of processes."""

    reuses_keys = False

    def __init__(self, bucket: S3Bucket, memory: Memory | None = None) -> None:
        self.bucket = bucket
        self._pool = ThreadPoolExecutor(_THREADS, "s3")
        self._hashers = ThreadPoolExecutor(_HASH_THREADS, "s3-hash")
        self._active: dict[str, int] = {}
        self._kept: OrderedDict[str, Found] = OrderedDict()
        self._reading_back = asyncio.Semaphore(_READ_BACK)
        self._crowd = Crowd()
        self._checked_s = -_CHECK_S
        self._workshop = Workshop(
            memory or Memory(),
            Threads(self._run, partial(Lane, self._hashers), self._pool.submit),
            self._read,
            self._hash_back,
            self._closed,
        )

    def close(self) -> None:
        """Wait for work in threads and end them."""
        self._hashers.shutdown()
        self._pool.shutdown()
        self.bucket.client.close()

    def _run(self, work: Callable[[], T], /) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    def run_all(self, works: Iterable[Callable[[], object]]) -> None:
        """Do all of it, several at once. Blocks: for other threads than those of the store."""
        list(self._pool.map(_call, works))

    # ---- in

    async def turn(self, name: str) -> None:
        """No turns: what another process sent here shows at the end, and is read back then."""

    def boundary(self, offset: int) -> int:
        """Where a part begins."""
        return part_at(offset).start

    async def create(self, size_hint: int | None = None) -> Incoming:
        """Begin new bytes; nothing is asked of the store before there is a part."""
        return self._incoming(Session(self.bucket, new_key()), Found(running=Running.fresh()))

    async def resume(self, key: str, size: int, *, sparse: bool = False) -> Incoming:
        """Go on with bytes begun earlier, here or in another process."""
        session = Session.parse(self.bucket, key)
        if session is None:
            raise UploadUnknown("upload unknown")
        kept = self._kept.pop(session.name, None)
        if size == 0:
            found: Found | None = Found(running=Running.fresh())
        else:
            found = await self._run(partial(_found, session, size, sparse, kept))
        if found is None:
            raise UploadUnknown("upload unknown")
        return self._incoming(session, found)

    def _incoming(self, session: Session, found: Found) -> S3Incoming:
        self._active[session.name] = self._active.get(session.name, 0) + 1
        return S3Incoming(self._workshop, session, found)

    def _closed(self, session: Session, kept: Found | None) -> None:
        left = self._active.pop(session.name, 1) - 1
        if left:
            self._active[session.name] = left
        if kept is not None and kept.sent and kept.running is not None:
            self._kept[session.name] = kept
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)

    async def discard(self, key: str) -> None:
        """Delete incoming bytes. A finished object stays: a row may mention it by now."""
        session = Session.parse(self.bucket, key)
        if session is not None:
            self._kept.pop(session.name, None)
            await self._run(partial(_discard, session))

    # ---- small blobs

    def new_key(self, digest: Digest) -> str:
        """A random key."""
        return new_key()

    def put(self, contents: Mapping[str, bytes]) -> None:
        """Write small blobs, several at once."""
        self.run_all([partial(self._put, item) for item in contents.items()])

    def _put(self, item: tuple[str, bytes]) -> None:
        key, content = item
        self.bucket.call("put_object", Key=self.bucket.blob(key), Body=content)

    def sync(self, keys: Sequence[str]) -> None:
        """Nothing to do: the store answers when it has the bytes for good."""

    # ---- out

    async def open(self, storage_key: str) -> Opened:
        """Open a blob."""
        size = await self.exists(storage_key)
        if size is None:
            raise BlobUnknown(storage_key)
        return self._opened(storage_key, size)

    async def exists(self, storage_key: str) -> int | None:
        """The size of a blob's object."""
        if not is_storage_key(storage_key):
            return None
        head = partial(self.bucket.call, "head_object", Key=self.bucket.blob(storage_key))
        try:
            return int((await self._run(head))["ContentLength"])
        except Gone:
            return None

    async def _read(self, storage_key: str, start: int, stop: int) -> bytes:
        return await self._opened(storage_key, stop).read(start, stop)

    def _opened(self, storage_key: str, size: int) -> S3Opened:
        return S3Opened(self.bucket, self._run, storage_key, size, self._crowd)

    async def _hash_back(self, storage_key: str, size: int, algorithm: str) -> str:
        async with self._reading_back:
            return await hash_object(self.bucket, self._run, storage_key, size, algorithm)

    def path(self, storage_key: str) -> str | None:
        """None: there are no files."""
        return None

    def key_of(self, digest: Digest) -> str | None:
        """None: keys do not tell."""
        return None

    # ---- upkeep

    def remove(self, storage_key: str) -> None:
        """Delete a blob's object. Blocks while the store is asked."""
        if is_storage_key(storage_key):
            self.bucket.delete(self.bucket.blob(storage_key))

    async def keys(self, before_ns: int) -> AsyncIterator[tuple[str, int]]:
        """Every blob that was written before then."""
        objects = self.bucket.listed(self.bucket.path("blobs", ""))
        while page := await self._run(partial(_page, objects)):
            for item in page:
                key = item["Key"].rpartition("/")[2]
                if is_storage_key(key) and item["LastModified"].timestamp() * 1e9 < before_ns:
                    yield key, int(item["Size"])

    async def sweep(self, keep: frozenset[str], older_than_ns: int) -> int:
        """Abort uploads and delete rests that nobody goes on with."""
        sessions = [session for key in keep if (session := Session.parse(self.bucket, key))]
        names = {session.name for session in sessions} | set(self._active)
        uploads = {session.upload for session in sessions}
        return await self._run(partial(sweep, self.bucket, names, uploads, older_than_ns))

    async def check(self) -> None:
        """Write an object, if that was not done just now."""
        if time.monotonic() - self._checked_s >= _CHECK_S:
            await self._run(self.bucket.check)
            self._checked_s = time.monotonic()


def _call(work: Callable[[], T]) -> T:
    return work()


def _page(objects: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(islice(objects, _PAGE))


def _discard(session: Session) -> None:
    for rest in session.rests():
        session.drop_rest(rest)
    session.abort()


def _found(session: Session, size: int, sparse: bool, kept: Found | None) -> Found | None:
    """What the store has of a session's first `size` bytes; None if that is not all.

    `sparse`: whatever it has, whichever is missing.
    """
    sent: dict[int, Sent] = {}
    if session.upload:
        listed = session.parts()
        if listed is None:
            head = session.head()
            whole = head is not None and head["ContentLength"] == size
            return Found(size, is_complete=True) if whole else None
        sent = {number: part for number, part in listed.items() if _fits(number, part, size)}
    rests = session.rests()
    if not sparse:
        whole_parts = list(parts_below(size))
        begin = whole_parts[-1].stop if whole_parts else 0
        there = any(rest.start == begin and rest.stop >= size for rest in rests)
        if len(whole_parts) != len(sent) or not (there or begin == size):
            return None
    running = None if sent else Running.fresh()
    if kept is not None and sent == kept.sent:
        running = kept.running
    return Found(size, sent, rests, running)


def _fits(number: int, part: Sent, size: int) -> bool:
    """Whether a part is a full one of the first `size` bytes, or the last of a blob."""
    place = part_numbered(number)
    return part.size == place.size and place.stop <= size
