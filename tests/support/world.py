"""The store and catalog on disk with the services over them, a clock, and bodies to send."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from registry.adapters.blobs_fs import FileBlobStore
from registry.adapters.blobs_s3 import S3BlobStore
from registry.core.digest import Digest
from registry.core.errors import SizeInvalid, StorageFull
from registry.core.names import RepositoryName
from registry.ports.blobs import Incoming, Sink
from registry.ports.catalog import Catalog
from registry.ports.transfers import Upload
from registry.services.library.blobs import Blobs, Lives
from registry.services.uploading.uploads import NS, Chunk, UploadLimits, Uploads
from tests.support.backends import BACKENDS, leftovers

NAME = RepositoryName.parse("team/Llama")
OTHER = RepositoryName.parse("team/other")
DATA = bytes(range(256)) * 40
DIGEST = Digest.of(DATA)


@dataclass
class Bytes:
    """A body that is there at once."""

    data: bytes

    async def feed(self, sink: Sink) -> int:
        await sink.write(self.data)
        return len(self.data)


@dataclass
class Broken:
    """A body whose sender goes away after some bytes."""

    data: bytes

    async def feed(self, sink: Sink) -> int:
        await sink.write(self.data)
        raise SizeInvalid("the sender went away")


@dataclass
class Slow:
    """A body that sends some bytes and then waits to be told to go on."""

    data: bytes
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def feed(self, sink: Sink) -> int:
        half = len(self.data) // 2
        await sink.write(self.data[:half])
        self.begun.set()
        await self.go_on.wait()
        await sink.write(self.data[half:])
        return len(self.data)


class SmallStore(FileBlobStore):
    """A file store whose disk can be full."""

    full = False

    async def create(self, size_hint: int | None = None) -> Incoming:
        if self.full:
            raise StorageFull("no space left")
        return await super().create(size_hint)

    async def resume(self, key: str, size: int, *, sparse: bool = False) -> Incoming:
        if self.full:
            raise StorageFull("no space left")
        return await super().resume(key, size, sparse=sparse)


class SmallBucket(S3BlobStore):
    """An object store whose quota can be used up."""

    full = False

    async def create(self, size_hint: int | None = None) -> Incoming:
        if self.full:
            raise StorageFull("no space left")
        return await super().create(size_hint)

    async def resume(self, key: str, size: int, *, sparse: bool = False) -> Incoming:
        if self.full:
            raise StorageFull("no space left")
        return await super().resume(key, size, sparse=sparse)


class World:
    """A store and a catalog on disk, with a clock of our own; `restart` is a new process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 1_760_000_000 * NS
        self.start()

    def start(self, limits: UploadLimits | None = None) -> None:
        self.catalog: Catalog = BACKENDS.catalog(self.folder)
        self.bucket = BACKENDS.bucket(self.folder / "data")
        self.store: SmallStore | SmallBucket = (
            SmallBucket(self.bucket) if self.bucket else SmallStore(self.folder / "data")
        )
        self.blobs = Blobs(self.catalog, self.store, Lives(), lambda: self.now)
        self.uploads = Uploads(self.blobs, limits)

    async def stop(self) -> None:
        await self.uploads.close()
        await self.catalog.close()
        self.store.close()

    async def restart(self, limits: UploadLimits | None = None) -> None:
        await self.stop()
        self.start(limits)

    async def begin(self, name: RepositoryName = NAME) -> str:
        return (await self.uploads.begin(name)).id

    async def append(self, session: str, data: bytes, start: int | None = None) -> Upload:
        return await self.uploads.append(NAME, session, Chunk(Bytes(data), start, len(data)))

    async def content(self, digest: Digest, name: RepositoryName = NAME) -> bytes:
        async with await self.blobs.open(await self.blobs.stat(name, digest)) as opened:
            return await opened.read(0, opened.size)

    def leftovers(self) -> list[str]:
        """Files that are no blob of ours, and not the one whose bytes stand for turns."""
        if self.bucket is not None:
            return leftovers(self.bucket)
        files = [path for path in (self.folder / "data").glob("*/*") if path.is_file()]
        return [path.name for path in files if path.name != DIGEST.file_name]
