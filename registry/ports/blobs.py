"""The blob store: bytes by digest. It never sees names.

Bytes come in as an `Incoming`, an append-only file (or multipart upload) under a random key that
nobody else sees. It is hashed as it grows. `publish` makes it a blob; until the catalog has a row
for the blob, nothing serves it. Order of a commit, so that a crash at any point leaves at most
bytes that no row mentions:

    incoming = await store.create()
    await incoming.receive(body)            # hashed and written while it arrives
    digest = await incoming.seal()          # every byte on disk
    key = await incoming.publish(digest)    # under its final key, durable
    await catalog.write(lambda tx: (incoming.confirm(), tx.put_blob(digest, size, key, now)))
    await incoming.discard()                # the incoming name goes

Small contents of our own making go the other way round: their bytes are rows of the transaction
first, and `put` and `sync` later make files of them (ADR 0007).

`confirm` runs inside the transaction and makes sure that the published bytes are (still) there: a
concurrent `free` of the same digest may have removed them after `publish` (ADR 0003). Where
`remove` belongs, `reuses_keys` says.

Sizes and offsets are bytes; ranges are half-open `[start, stop)`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from registry.core.digest import Digest


class Sink(Protocol):
    """Takes bytes in order. `write` returns once the bytes may be reused; it waits when behind."""

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`.

        Raises:
            StorageFull: no space for it.
        """

    async def borrow(self) -> memoryview:
        """A writable, page-aligned buffer of at least 64 KiB, to be filled and given to `fill`."""

    async def fill(self, size: int) -> None:
        """Append the first `size` bytes of the buffer last borrowed."""


class Body(Protocol):
    """Bytes that someone is sending: a request's body, a part of a download."""

    async def feed(self, sink: Sink) -> int:
        """Send everything to `sink`; return the number of bytes.

        Raises:
            SizeInvalid: the sender went away, or sent less than it announced.
        """


class Arrived(Protocol):
    """Bytes that are all here, and may become a blob."""

    @property
    def size(self) -> int:
        """How many bytes were accepted."""

    async def digest(self, algorithm: str = "sha256") -> Digest:
        """The digest of all bytes accepted; read back if they were not hashed while they came."""

    async def seal(self) -> Digest:
        """`flush` and `digest`; nothing can be appended any more."""

    async def publish(self, digest: Digest) -> str:
        """Put the sealed bytes where blobs are; return the storage key. Replaces an older file.

        Raises:
            DigestMismatch: the sealed bytes are not those of `digest`.
        """

    def confirm(self) -> None:
        """Make sure that the published bytes are there; synchronous, inside a transaction."""


class Incoming(Sink, Arrived, Protocol):
    """Bytes on their way in, under a random key. Not safe for two tasks at once."""

    @property
    def key(self) -> str:
        """The random key: `BlobStore.resume` takes it up again. `flush` may change it."""

    async def receive(self, body: Body) -> int:
        """Append a whole body; return its length in bytes.

        If the body fails half-way, the bytes that came are cut off again and the error is raised.
        """

    async def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write out of order, as parallel downloads do; `size` becomes the highest end written.

        Bytes so written are not hashed on the way: `digest` and `seal` read them back. Several
        tasks may call it at once for ranges that do not overlap.

        Raises:
            StorageFull: no space for it.
        """

    @property
    def rereads(self) -> bool:
        """Whether `read` has all bytes before they are sealed; an object store has those later."""

    async def read(self, start: int, stop: int) -> bytes:
        """Bytes already written, to look into them or hash them again. At most a few MiB."""

    async def repeats(self, start: int, body: Body) -> bool:
        """Whether a body, which is not kept, is what was accepted last: the bytes from `start` on.

        Where that cannot be known any more, its length is what counts: the digest will tell.
        """

    async def flush(self) -> None:
        """Wait until every byte accepted is on stable storage."""

    async def durable(self) -> list[tuple[int, int]]:
        """Ranges that would outlive this process: of bytes out of order, what is cheap to have so.

        After `flush` everything. In order, apart from one another.
        """

    async def close(self, *, intact: bool = True) -> None:
        """Let go of files and buffers; keep the bytes, published or not, for `resume`.

        Not `intact`: what was accepted last may not count, and others may write other bytes there.
        So nothing that is known of the bytes, such as their hash so far, is kept for `resume`.
        """

    async def discard(self) -> None:
        """`close`, and delete the incoming name, with the bytes unless they were published."""


class Opened(Protocol):
    """A blob opened for reading. From a folder it stays readable after the blob is removed.

    Raises:
        BlobUnknown: from what reads, if it does not.
    """

    @property
    def size(self) -> int:
        """Length of the blob in bytes."""

    def fileno(self) -> int | None:
        """A descriptor for zero-copy sending, if the bytes are in a local file."""

    async def read(self, start: int, stop: int) -> bytes:
        """The bytes `[start, stop)`, which must lie inside the blob. Keep it to a few MiB."""

    def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """The same in pieces of up to 1 MiB, for ranges of any length."""

    async def close(self) -> None:
        """Let go of it; also done by leaving `async with`."""

    async def __aenter__(self) -> "Opened": ...

    async def __aexit__(self, *exc: object) -> None: ...


class Turn(Protocol):
    """The right to write some incoming bytes, which no other process has meanwhile."""

    def is_wanted(self) -> bool:
        """Whether another process waits for it."""

    def end(self) -> None:
        """Give it back, with the bytes closed."""


class BlobStore(Protocol):
    """Where bytes are kept."""

    @property
    def reuses_keys(self) -> bool:
        """Whether the same bytes get the same storage key again, as a folder's file names do.

        Then `remove` is quick and belongs into the transaction that has just seen that no row
        mentions the blob. Else a key never comes back: `remove` asks an object store, which takes
        a while, and comes after the transaction.
        """

    async def turn(self, name: str) -> Turn | None:
        """Wait until no other process writes the incoming bytes that `name` stands for.

        Without a turn of one's own those bytes may change at any time. None: two processes cannot
        get into each other's way here, and bytes may stay open from one request to the next.

        Raises:
            Unavailable: another process keeps the turn.
        """

    def boundary(self, offset: int) -> int:
        """The next offset at or before this one where bytes out of order had best begin.

        Who writes from one to another alone never waits for a second one who fills the same part.
        """

    async def create(self, size_hint: int | None = None) -> Incoming:
        """Begin new bytes; `size_hint` lets the store reserve room.

        Raises:
            StorageFull: `size_hint` bytes do not fit.
        """

    async def resume(self, key: str, size: int, *, sparse: bool = False) -> Incoming:
        """Go on with bytes begun earlier, also by another process: the first `size` are kept.

        `sparse`: bytes that came out of order; which of them are there, `durable` tells.

        Raises:
            UploadUnknown: the key is not there, or has fewer bytes.
        """

    def new_key(self, digest: Digest) -> str:
        """The storage key under which a small blob is to be `put`."""

    def put(self, contents: Mapping[str, bytes]) -> None:
        """Write small blobs whole under their keys, replacing what is there. Blocks: for threads.

        They outlive this process at once, a power cut after `sync`. None is ever seen in part.

        Raises:
            StorageFull: no space for them; some may be there.
        """

    def sync(self, keys: Sequence[str]) -> None:
        """Make small blobs durable that were `put`; those removed since are skipped. Blocks."""

    async def open(self, storage_key: str) -> Opened:
        """Open a blob.

        Raises:
            BlobUnknown: the store does not have it.
        """

    async def exists(self, storage_key: str) -> int | None:
        """The size of a blob in the store, None if it is not there."""

    def path(self, storage_key: str) -> str | None:
        """The path of a blob's file on this machine, if it has one: for workers and zero copy."""

    def remove(self, storage_key: str) -> None:
        """Delete a blob's bytes; absent is fine. Blocks: see `reuses_keys` for where it belongs."""

    async def discard(self, key: str) -> None:
        """Delete incoming bytes; absent is fine."""

    def key_of(self, digest: Digest) -> str | None:
        """The key under which bytes of that name lie, unverified; None if there are none."""

    def keys(self, before_ns: int) -> AsyncIterator[tuple[str, int]]:
        """Storage key and size of every blob written before then, for the sweep; no order."""

    async def sweep(self, keep: frozenset[str], older_than_ns: int) -> int:
        """Delete incoming bytes whose key is not in `keep` and that were not written since then.

        Returns the number of bytes freed.
        """

    async def check(self) -> None:
        """Say whether the store can be written. Raises what `create` would."""
