"""The worker inside the library's own process: it opens blobs where the store has them.

Nothing is copied: the engine maps the store's file.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from registry.core.errors import BlobDamaged, BlobUnknown, Unavailable
from registry.ports.blobs import BlobStore
from registry.ports.catalog import Catalog
from registry.ports.workers import Crash, Weights
from registry.settings import Worker as WorkerSettings
from registry.workers.engine import Engine
from registry.workers.node import Node, NodeConfig

LOCAL = "local"


def local_node(
    settings: WorkerSettings,
    engine: Engine,
    catalog: Catalog,
    store: BlobStore,
    changed: Callable[[], None] = lambda: None,
    crashed: Callable[[Crash], None] = lambda crash: None,
) -> Node:
    """A node over the library's own store; `changed` and `crashed` as `NodeConfig` has them."""
    fetch = partial(_in_store, catalog, store)
    return Node(
        NodeConfig(
            LOCAL,
            settings,
            engine,
            fetch,
            labels=frozenset(settings.labels),
            changed=changed,
            crashed=crashed,
        )
    )


async def _in_store(catalog: Catalog, store: BlobStore, weights: Weights) -> Path:
    """Where the store has a blob.

    Raises:
        BlobUnknown: it was deleted meanwhile.
        BlobDamaged: its bytes were found to be wrong.
        Unavailable: the store has no files.
    """
    blob = await catalog.read(lambda tx: tx.blob(weights.digest))
    if blob is None:
        raise BlobUnknown(str(weights.digest))
    if blob.suspect:
        raise BlobDamaged(str(weights.digest))
    path = store.path(blob.storage_key)
    if path is None:
        raise Unavailable("the store of this server has no files that a local worker could open")
    return Path(path)
