"""Deleting bytes that no row mentions, where the store has it: see `BlobStore.reuses_keys`."""

from collections.abc import Sequence

from anyio import to_thread

from registry.ports.blobs import BlobStore
from registry.ports.catalog import Catalog, Freed, Reader, Transaction


async def delete_freed(catalog: Catalog, store: BlobStore, freed: Sequence[Freed]) -> None:
    """Delete freed bytes, and forget them; those of a blob that came back are spared."""
    if store.reuses_keys:
        # A new blob may get the very key: it must not come between the look and the deed.
        await catalog.write(lambda tx: _delete_inside(tx, store, freed))
        return

    def unused(tx: Reader) -> list[str]:
        found = [(item, tx.blob(item.digest)) for item in freed]
        return [
            item.storage_key
            for item, blob in found
            if blob is None or blob.storage_key != item.storage_key
        ]

    def remove(keys: list[str]) -> None:
        for key in keys:
            store.remove(key)

    await to_thread.run_sync(remove, await catalog.read(unused))
    await catalog.write(lambda tx: tx.forget_freed(freed))


def _delete_inside(tx: Transaction, store: BlobStore, freed: Sequence[Freed]) -> None:
    for item in freed:
        if tx.blob(item.digest) is None:
            store.remove(item.storage_key)
    tx.forget_freed(freed)
