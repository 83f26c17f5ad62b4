"""A blob store, and what belongs to it, that are others, but for calls that go wrong."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from registry.core.digest import Digest
from registry.core.errors import RegistryError
from registry.core.names import ModelName
from registry.ports.blobs import Arrived, BlobStore, Body, Incoming, Opened, Sink, Turn
from registry.ports.catalog import FolderChange
from registry.ports.direct import Direct, DirectPut, Landed, SentPart
from registry.ports.folder import ModelsFolder, RecordFile, TagFile
from tests.support.faults import Faults, of_disk, of_objects

T = TypeVar("T")


@dataclass(frozen=True)
class Wire:
    """Between a wrapper and what it wraps."""

    faults: Faults
    error: Callable[[], RegistryError]

    @classmethod
    def of(cls, store: BlobStore, faults: Faults) -> "Wire":
        return cls(faults, of_disk if store.reuses_keys else of_objects)

    async def run(self, name: str, act: Callable[[], Awaitable[T]]) -> T:
        return await self.faults.run(name, act, self.error)

    def run_here(self, name: str, act: Callable[[], T]) -> T:
        return self.faults.run_here(name, act, self.error)

    async def take(self, name: str, real: T, let_go: Callable[[T], Awaitable[None]]) -> T:
        """What was opened by a call whose answer may be lost: nobody could close it then."""
        how = self.faults.due(name)
        try:
            self.faults.check_before(how, self.error)
            if how == "lost":
                raise self.error()
        except RegistryError:
            await let_go(real)
            raise
        if how == "slow":
            await self.faults.meanwhile()
        return real

    async def end(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        """A call that lets go of something, which it does whatever else goes wrong."""
        how = self.faults.due(name)
        await act()
        self.faults.check_before(how, self.error)
        if how == "lost":
            raise self.error()


@dataclass
class _FaultySink:
    real: Sink
    wire: Wire

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        await self.wire.run("incoming.write", lambda: self.real.write(data))

    async def borrow(self) -> memoryview:
        return await self.wire.run("incoming.borrow", self.real.borrow)

    async def fill(self, size: int) -> None:
        await self.wire.run("incoming.fill", lambda: self.real.fill(size))


@dataclass
class _Feeding:
    """A body whose bytes pass through a faulty sink."""

    body: Body
    wire: Wire

    async def feed(self, sink: Sink) -> int:
        return await self.body.feed(_FaultySink(sink, self.wire))


@dataclass
class FaultyArrived:
    """`Arrived`."""

    real: Arrived
    wire: Wire

    @property
    def size(self) -> int:
        return self.real.size

    async def digest(self, algorithm: str = "sha256") -> Digest:
        return await self.wire.run("incoming.digest", lambda: self.real.digest(algorithm))

    async def seal(self) -> Digest:
        return await self.wire.run("incoming.seal", self.real.seal)

    async def publish(self, digest: Digest) -> str:
        return await self.wire.run("incoming.publish", lambda: self.real.publish(digest))

    def confirm(self) -> None:
        self.wire.run_here("incoming.confirm", self.real.confirm)


@dataclass
class FaultyIncoming(FaultyArrived):
    """`Incoming`."""

    real: Incoming

    @property
    def key(self) -> str:
        return self.real.key

    @property
    def rereads(self) -> bool:
        return self.real.rereads

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        await _FaultySink(self.real, self.wire).write(data)

    async def borrow(self) -> memoryview:
        return await _FaultySink(self.real, self.wire).borrow()

    async def fill(self, size: int) -> None:
        await _FaultySink(self.real, self.wire).fill(size)

    async def receive(self, body: Body) -> int:
        return await self.real.receive(_Feeding(body, self.wire))

    async def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        await self.wire.run("incoming.write_at", lambda: self.real.write_at(offset, data))

    async def read(self, start: int, stop: int) -> bytes:
        return await self.wire.run("incoming.read", lambda: self.real.read(start, stop))

    async def repeats(self, start: int, body: Body) -> bool:
        return await self.wire.run("incoming.repeats", lambda: self.real.repeats(start, body))

    async def flush(self) -> None:
        await self.wire.run("incoming.flush", self.real.flush)

    async def durable(self) -> list[tuple[int, int]]:
        return await self.wire.run("incoming.durable", self.real.durable)

    async def close(self, *, intact: bool = True) -> None:
        await self.wire.end("incoming.close", lambda: self.real.close(intact=intact))

    async def discard(self) -> None:
        how = self.wire.faults.due("incoming.discard")
        if how in {"refused", "full"}:
            await self.real.close(intact=False)  # what is on the disk stays there
        self.wire.faults.check_before(how, self.wire.error)
        await self.real.discard()
        if how == "lost":
            raise self.wire.error()


@dataclass
class FaultyOpened:
    """`Opened`."""

    real: Opened
    wire: Wire

    @property
    def size(self) -> int:
        return self.real.size

    def fileno(self) -> int | None:
        return self.real.fileno()

    async def read(self, start: int, stop: int) -> bytes:
        return await self.wire.run("opened.read", lambda: self.real.read(start, stop))

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        async for chunk in self.real.chunks(start, stop):
            yield await self.wire.take("opened.chunks", chunk, _forget)

    async def close(self) -> None:
        await self.real.close()

    async def __aenter__(self) -> "FaultyOpened":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


async def _forget(value: object) -> None:
    """Nothing to be closed."""


class FaultyStore:
    """`BlobStore`."""

    def __init__(self, real: BlobStore, faults: Faults) -> None:
        self.real = real
        self._wire = Wire.of(real, faults)

    @property
    def reuses_keys(self) -> bool:
        return self.real.reuses_keys

    async def turn(self, name: str) -> Turn | None:
        turn = await self.real.turn(name)

        async def end(taken: Turn | None) -> None:
            if taken is not None:
                taken.end()

        return await self._wire.take("store.turn", turn, end)

    def boundary(self, offset: int) -> int:
        return self.real.boundary(offset)

    async def create(self, size_hint: int | None = None) -> Incoming:
        made = await self.real.create(size_hint)
        taken = await self._wire.take("store.create", made, lambda it: it.close())
        return FaultyIncoming(taken, self._wire)

    async def resume(self, key: str, size: int, *, sparse: bool = False) -> Incoming:
        made = await self.real.resume(key, size, sparse=sparse)
        taken = await self._wire.take("store.resume", made, lambda it: it.close())
        return FaultyIncoming(taken, self._wire)

    def new_key(self, digest: Digest) -> str:
        return self.real.new_key(digest)

    def put(self, contents: Mapping[str, bytes]) -> None:
        self._wire.run_here("store.put", lambda: self.real.put(contents))

    def sync(self, keys: Sequence[str]) -> None:
        self._wire.run_here("store.sync", lambda: self.real.sync(keys))

    async def open(self, storage_key: str) -> Opened:
        opened = await self.real.open(storage_key)
        taken = await self._wire.take("store.open", opened, lambda it: it.close())
        return FaultyOpened(taken, self._wire)

    async def exists(self, storage_key: str) -> int | None:
        return await self._wire.run("store.exists", lambda: self.real.exists(storage_key))

    def path(self, storage_key: str) -> str | None:
        return self.real.path(storage_key)

    def remove(self, storage_key: str) -> None:
        self._wire.run_here("store.remove", lambda: self.real.remove(storage_key))

    async def discard(self, key: str) -> None:
        await self._wire.run("store.discard", lambda: self.real.discard(key))

    def key_of(self, digest: Digest) -> str | None:
        return self.real.key_of(digest)

    async def keys(self, before_ns: int) -> AsyncIterator[tuple[str, int]]:
        found = [item async for item in self.real.keys(before_ns)]
        for item in await self._wire.take("store.keys", found, _forget):
            yield item

    async def sweep(self, keep: frozenset[str], older_than_ns: int) -> int:
        return await self._wire.run("store.sweep", lambda: self.real.sweep(keep, older_than_ns))

    async def check(self) -> None:
        await self._wire.run("store.check", self.real.check)


class FaultyFolder:
    """`ModelsFolder`."""

    def __init__(self, real: ModelsFolder, wire: Wire) -> None:
        self._real = real
        self._wire = wire

    def apply(self, changes: Sequence[FolderChange]) -> None:
        self._wire.run_here("folder.apply", lambda: self._real.apply(changes))

    def sync(self, changes: Sequence[FolderChange]) -> None:
        self._wire.run_here("folder.sync", lambda: self._real.sync(changes))

    async def names(self) -> list[ModelName]:
        return await self._wire.run("folder.names", self._real.names)

    async def read(self, name: ModelName) -> TagFile | None:
        return await self._wire.run("folder.read", lambda: self._real.read(name))

    async def records(self) -> list[str]:
        return await self._wire.run("folder.records", self._real.records)

    async def read_record(self, place: str) -> RecordFile | None:
        return await self._wire.run("folder.read_record", lambda: self._real.read_record(place))

    def holds(self, file: TagFile | RecordFile) -> bool:
        return self._wire.run_here("folder.holds", lambda: self._real.holds(file))


class FaultyDirect:
    """`Direct`."""

    def __init__(self, real: Direct, wire: Wire) -> None:
        self._real = real
        self._wire = wire

    @property
    def address(self) -> str:
        return self._real.address

    @property
    def is_public(self) -> bool:
        return self._real.is_public

    async def read_url(self, storage_key: str, expires_s: int) -> str:
        return await self._real.read_url(storage_key, expires_s)

    async def begin(self) -> str:
        return await self._wire.run("direct.begin", self._real.begin)

    async def part_url(self, key: str, number: int, size: int, expires_s: int) -> str:
        return await self._real.part_url(key, number, size, expires_s)

    async def parts(self, key: str) -> list[SentPart]:
        return await self._wire.run("direct.parts", lambda: self._real.parts(key))

    async def complete(self, key: str, parts: Sequence[SentPart]) -> None:
        await self._wire.run("direct.complete", lambda: self._real.complete(key, parts))

    async def checks_sums(self) -> bool:
        return await self._wire.run("direct.checks_sums", self._real.checks_sums)

    def new_key(self) -> str:
        return self._real.new_key()

    async def put_url(self, key: str, digest: Digest, size: int, expires_s: int) -> DirectPut:
        return await self._real.put_url(key, digest, size, expires_s)

    async def landed(self, key: str) -> Landed | None:
        return await self._wire.run("direct.landed", lambda: self._real.landed(key))

    def arrived(self, key: str, landed: Landed) -> Arrived:
        return FaultyArrived(self._real.arrived(key, landed), self._wire)

    async def drop(self, key: str) -> None:
        await self._wire.run("direct.drop", lambda: self._real.drop(key))
