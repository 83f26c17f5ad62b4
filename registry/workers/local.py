"""The worker inside the library's own process: it opens blobs where the store has them.

Where those are files nothing is copied: the engine maps the store's own. From an object store a
blob is fetched into a cache in the data folder first, as on a worker elsewhere.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from registry.core.errors import BlobDamaged, BlobUnknown, RegistryError
from registry.ports.blobs import BlobStore
from registry.ports.catalog import Blob, Catalog
from registry.ports.workers import Crash, Weights
from registry.settings import Worker as WorkerSettings
from registry.workers.cache import BlobCache, in_use
from registry.workers.engine import Engine
from registry.workers.node import Node, NodeConfig
from registry.workers.transfer import FetchBroken, FetchRefused, WrongBytes

LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Library:
    """What a local worker's blobs come from, and a folder for those that are no files."""

    catalog: Catalog
    store: BlobStore
    cache: Path

    async def blob(self, weights: Weights) -> Blob:
        """The row of a blob.

        Raises:
            BlobUnknown: it was deleted meanwhile.
            BlobDamaged: its bytes were found to be wrong.
        """
        blob = await self.catalog.read(lambda tx: tx.blob(weights.digest))
        if blob is None:
            raise BlobUnknown(str(weights.digest))
        if blob.suspect:
            raise BlobDamaged(str(weights.digest))
        return blob

    def transfer(self, weights: Weights, part: Path) -> "StoreTransfer":
        """A try to fetch a blob into a file."""
        return StoreTransfer(self, weights, part)


def local_node(
    settings: WorkerSettings,
    engine: Engine,
    library: Library,
    changed: Callable[[], None] = lambda: None,
    crashed: Callable[[Crash], None] = lambda crash: None,
) -> Node:
    """A node over the library's own store; `changed` and `crashed` as `NodeConfig` has them."""
    nodes: list[Node] = []
    cache = BlobCache(library.cache, library, lambda: in_use(nodes[0].facts()))
    if not library.store.reuses_keys:  # a folder's blobs are files
        cache.prepare()
    node = Node(
        NodeConfig(
            LOCAL,
            settings,
            engine,
            partial(_in_store, library, cache),
            labels=frozenset(settings.labels),
            changed=changed,
            crashed=crashed,
        )
    )
    nodes.append(node)
    return node


async def _in_store(library: Library, cache: BlobCache, weights: Weights) -> Path:
    """Where a blob lies, fetched if the store has no files."""
    blob = await library.blob(weights)
    path = library.store.path(blob.storage_key)
    if path is not None:
        return Path(path)
    return await cache.path(weights)


class StoreTransfer:
    """One try to copy a blob out of the library's store. `received` counts what came by it."""

    def __init__(self, library: Library, weights: Weights, part: Path) -> None:
        self._library = library
        self._weights = weights
        self._part = part
        self.received = 0

    async def run(self) -> None:
        """Fetch what is missing; then the part is complete and right.

        Raises:
            FetchBroken: it did not come whole; what came is kept.
            WrongBytes: it is not what it is called; nothing is kept.
            OSError: the file cannot be written.
        """
        state = hashlib.sha256()
        try:
            blob = await self._library.blob(self._weights)
            begin = await asyncio.to_thread(_begin, self._part, blob.size, state)
            async with await self._library.store.open(blob.storage_key) as opened:
                with self._part.open("ab") as file:
                    async for chunk in opened.chunks(begin, blob.size):
                        await asyncio.to_thread(_add, file.write, state.update, chunk)
                        self.received += len(chunk)
        except BlobUnknown as error:
            raise FetchRefused(str(error)) from error
        except RegistryError as error:
            raise FetchBroken(str(error)) from error
        if state.hexdigest() != self._weights.digest.hex:
            self._part.unlink()
            raise WrongBytes


def _begin(part: Path, size: int, state: "hashlib._Hash") -> int:
    """Hash what is there of a part; return how much that is."""
    part.touch(0o600)
    with part.open("r+b") as file:
        file.truncate(min(part.stat().st_size, size))
        while data := file.read(1 << 20):
            state.update(data)
        return file.tell()


def _add(write: Callable[[bytes], object], update: Callable[[bytes], object], chunk: bytes) -> None:
    write(chunk)
    update(chunk)
