"""The services over SQLite and a folder, without HTTP, and models put into them."""

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.adapters.blobs_s3 import S3BlobStore
from registry.adapters.scratch_file import ScratchFile
from registry.adapters.tensors_process import TensorProcesses
from registry.core.digest import Digest
from registry.core.events import Event, Events
from registry.core.layering import Recipe
from registry.core.names import ModelName
from registry.ports.blobs import BlobStore
from registry.ports.catalog import Catalog
from registry.ports.tensors import TensorWorkshop
from registry.services.building.conversions import Conversions
from registry.services.building.create import Create
from registry.services.library.blobs import Blobs
from registry.services.library.housekeeping import Housekeeping
from registry.services.library.listing import Listing
from registry.services.library.manifests import Manifests
from registry.services.library.models import Models
from registry.services.sharing.sharing import Sharing
from registry.services.upkeep.adoption import Adoption
from registry.settings import Retention, Settings
from registry.web.answers import rfc3339
from tests.support.backends import BACKENDS, digests, leftovers
from tests.support.gguf import SMALLEST

DAY_NS = 86_400 * 10**9


class Clock:
    """A clock that stands still until it is moved; each look is a nanosecond later."""

    def __init__(self) -> None:
        self.now = 1_700_000_000 * 10**9

    def __call__(self) -> int:
        self.now += 1
        return self.now


class Pulls:
    """What create calls for an absent base: records the names, then does as told."""

    def __init__(self) -> None:
        self.asked: list[ModelName] = []
        self.events: list[Event | Exception] = []

    async def run(self, name: ModelName) -> Events:
        self.asked.append(name)
        for event in self.events:
            if isinstance(event, Exception):
                raise event
            yield event


@dataclass(slots=True)
class Library:
    """Services to test, and short ways to use them."""

    data: Path
    catalog: Catalog
    store: BlobStore
    clock: Clock
    housekeeping: Housekeeping
    adoption: Adoption
    blobs: Blobs
    manifests: Manifests
    models: Models
    listing: Listing
    create: Create
    pulls: Pulls

    async def put(self, data: bytes) -> str:
        """Upload bytes; their digest as text."""
        return str((await self.blobs.put_bytes(data)).digest)

    async def make(self, name: str, **recipe: Any) -> list[str]:
        """Create a model; the status texts."""
        events = self.create.run(ModelName.parse(name), Recipe(**recipe))
        return [event.text async for event in events]

    async def base(self, name: str = "base", gguf: bytes = SMALLEST) -> str:
        """A model of one GGUF; the digest of its manifest, as tags shows it."""
        await self.make(name, files={"test.gguf": await self.put(gguf)})
        return await self.digest(name)

    async def digest(self, name: str) -> str:
        """The digest that a model's tag points to."""
        tag = await self.models.find(ModelName.parse(name))
        assert tag is not None, f"no model {name}"
        return tag.digest.hex

    async def show(self, name: str, **ask: Any) -> dict[str, Any]:
        """The answer of show."""
        tag = await self.models.find(ModelName.parse(name))
        assert tag is not None, f"no model {name}"
        return await self.models.show(tag, **ask)

    async def has(self, digest: str) -> bool:
        """Whether the catalog has a blob."""
        return await self.catalog.read(lambda tx: tx.blob(Digest.parse(digest))) is not None

    def files(self) -> set[str]:
        """The digests of the blobs in the store; a file is checked to be what it is called."""
        found = set()
        if isinstance(self.store, S3BlobStore):
            return digests(self.store.bucket)
        for file in (self.data / "blobs").iterdir():
            assert file.name == f"sha256-{hashlib.sha256(file.read_bytes()).hexdigest()}"
            found.add(file.name.replace("-", ":"))
        return found

    def size(self) -> int:
        """Of all blobs in the store."""
        if isinstance(self.store, S3BlobStore):
            bucket = self.store.bucket
            return sum(item["Size"] for item in bucket.listed(bucket.path("blobs", "")))
        return sum(file.stat().st_size for file in (self.data / "blobs").iterdir())

    def incoming(self) -> list[str]:
        """What is on its way in, or was left over."""
        if isinstance(self.store, S3BlobStore):
            return leftovers(self.store.bucket)
        return [file.name for file in (self.data / "incoming").iterdir()]

    def age(self) -> None:
        """Make every blob's file as old as a leftover of a crash must be to go."""
        for file in (self.data / "blobs").iterdir():
            os.utime(file, ns=(0, 0))

    def tag_files(self) -> set[str]:
        """The tags in the models folder, below `manifests/`."""
        if isinstance(self.store, S3BlobStore):
            bucket = self.store.bucket
            above = bucket.path("manifests", "")
            return {item["Key"].removeprefix(above) for item in bucket.listed(above)}
        root = self.data / "manifests"
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@asynccontextmanager
async def library(
    data: Path, retention: Retention | None = None, workshop: TensorWorkshop | None = None
) -> AsyncIterator[Library]:
    """A library in an empty folder (or one that is there already)."""
    data.mkdir(parents=True, exist_ok=True)
    retention, clock, pulls = retention or Retention(), Clock(), Pulls()
    catalog = BACKENDS.catalog(data)
    store = BACKENDS.store(data)
    folder = BACKENDS.tags(store, data)
    housekeeping = Housekeeping(catalog, store, folder, retention, clock)
    manifests = Manifests(catalog, store, housekeeping, clock)
    models = Models(catalog, store, manifests, housekeeping, clock)
    settings = Settings.load({}, data=data)
    workshop = workshop or TensorProcesses(data, 2, 1 << 30)
    sharing = Sharing(catalog, clock)
    conversions = Conversions(manifests, sharing, workshop, settings)
    create = Create(manifests, models, conversions, pulls.run)
    blobs = Blobs(catalog, store, clock=clock)
    listing = Listing(catalog, rfc3339, lambda: ScratchFile(data))
    try:
        yield Library(
            data,
            catalog,
            store,
            clock,
            housekeeping,
            Adoption(manifests, folder, retention.leftover_s, young_s=0),
            blobs,
            manifests,
            models,
            listing,
            create,
            pulls,
        )
    finally:
        await sharing.close()
        await housekeeping.finish()
        await catalog.close()
