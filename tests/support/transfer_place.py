"""A catalog and a store on disk, other registries in memory, and pull and push between them."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

from registry.adapters.blobs_s3 import S3BlobStore
from registry.adapters.s3_client import S3Bucket
from registry.core.digest import Digest
from registry.core.errors import BlobUnknown
from registry.core.events import Event, Events, Transfer
from registry.core.manifest import Manifest, parse
from registry.core.names import ModelName
from registry.ports import catalog as rows
from registry.ports.catalog import Transaction
from registry.services.access.rights import FREE, TagGuard
from registry.services.sharing.efforts import Pace
from registry.services.sharing.sharing import Sharing
from registry.services.transfers.pull import Pull
from registry.services.transfers.push import Push
from registry.settings import Settings
from tests.support.backends import BACKENDS, leftovers
from tests.support.upstream import MemoryRegistry

NAME = ModelName.parse("other.example/a/b:v1")
PACE = Pace(beat_s=0.05, dead_s=0.5, closed_s=2.0)


class Place:
    """One process; `folder` may be that of another one before it."""

    def __init__(
        self,
        folder: Path,
        registry: MemoryRegistry,
        *,
        bucket: S3Bucket | None = None,
        **upstream: object,
    ) -> None:
        self.folder = folder
        self.registry = registry
        self.now = 1_760_000_000 * 10**9
        self.catalog = BACKENDS.catalog(folder)
        self.store = S3BlobStore(bucket) if bucket else BACKENDS.store(folder / "data")
        knobs = {"streams": 4, "part_bytes": 1 << 20, "retries": 2, **upstream}
        self.settings = Settings.load({}, data=folder, upstream=knobs)
        self.adopted: list[tuple[ModelName, bytes, str]] = []
        self.removes = False

        def clock() -> int:
            return self.now

        self.sharing = Sharing(self.catalog, clock, PACE)
        self.pull = Pull(self.sharing, self.store, registry, self, self.settings)
        self.push = Push(self.catalog, self.store, registry, self.settings, clock)

    async def close(self) -> None:
        await self.sharing.close()
        await self.catalog.close()
        self.store.close()

    async def adopt(
        self, name: ModelName, body: bytes, media_type: str, holder: str, guard: TagGuard = FREE
    ) -> bool:
        """The `Library`: makes the rows, after a sweep that frees what nobody holds."""
        manifest = parse(body, media_type)
        assert isinstance(manifest, Manifest)
        digests = [item.digest for item in manifest.blobs]

        def work(tx: Transaction) -> None:
            assert tx.free(digests, self.now) == []
            repository = tx.put_repository(name.repository)
            for digest in digests:
                tx.link_blob(repository.id, digest, 0)
            references = tuple(
                rows.Reference(item.digest, item.media_type, item.size) for item in manifest.blobs
            )
            row = rows.Manifest(manifest.digest, media_type, body, references, card="{}")
            tx.put_manifest(repository.id, row, self.now)
            tx.put_tag(repository.id, name.tag, manifest.digest, self.now)

        await self.catalog.write(work)
        self.adopted.append((name, body, media_type))
        return self.removes

    async def content(self, digest: Digest) -> bytes:
        blob = await self.catalog.read(lambda tx: tx.blob(digest))
        if blob is None:
            raise BlobUnknown(str(digest))
        async with await self.store.open(blob.storage_key) as opened:
            return await opened.read(0, opened.size)

    def incoming(self) -> list[Path]:
        """Files of bytes on their way."""
        if isinstance(self.store, S3BlobStore):
            return [Path(key) for key in leftovers(self.store.bucket)]
        return [path for path in (self.folder / "data" / "incoming").rglob("*") if path.is_file()]


async def collect(events: Events) -> list[Event]:
    async with aclosing(events):
        return [event async for event in events]


def texts(events: list[Event]) -> list[str]:
    """The status texts, repeated ones once."""
    found = [event.text for event in events]
    return [text for at, text in enumerate(found) if at == 0 or found[at - 1] != text]


def progress(events: list[Event]) -> list[int]:
    return [event.completed for event in events if isinstance(event, Transfer)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
