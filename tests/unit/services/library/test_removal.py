"""Freed bytes go where the store has it; a database of the other kind of store is refused."""

from pathlib import Path

import pytest

from registry.adapters.blobs_fs import FileBlobStore
from registry.core.digest import Digest
from registry.core.errors import OperationFailed
from registry.ports.catalog import Freed
from registry.services.library.housekeeping import check_place
from registry.services.library.removal import delete_freed
from tests.support.library import library

pytestmark = pytest.mark.anyio
ONE, TWO = Digest.of(b"one"), Digest.of(b"two")


class Unique(FileBlobStore):
    """A store whose keys never come back; tells what was removed."""

    reuses_keys = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.removed: list[str] = []

    def remove(self, storage_key: str) -> None:
        self.removed.append(storage_key)


async def test_where_keys_are_unique_the_key_decides_and_not_the_digest(tmp_path: Path) -> None:
    store = Unique(tmp_path / "unique")
    async with library(tmp_path / "data") as lib:
        await lib.catalog.write(lambda tx: tx.put_blob(ONE, 3, "kept", 1))
        await lib.catalog.write(lambda tx: tx.put_blob(ONE, 3, "second", 1))
        freed = await lib.catalog.read(lambda tx: tx.freed(9))
        assert freed == [Freed(ONE, "second")]
        await delete_freed(lib.catalog, store, [*freed, Freed(ONE, "kept"), Freed(TWO, "gone")])
        assert store.removed == ["second", "gone"]
        assert await lib.catalog.read(lambda tx: tx.freed(9)) == []
    store.close()


@pytest.mark.parametrize(
    ("key", "in_folder", "fits"),
    [
        (ONE.file_name, True, True),
        (ONE.file_name, False, False),
        ("0" * 32, False, True),
        ("0" * 32, True, False),
    ],
)
async def test_a_database_belongs_to_one_kind_of_store(
    tmp_path: Path, key: str, in_folder: bool, fits: bool
) -> None:
    async with library(tmp_path / "data") as lib:
        await check_place(lib.catalog, in_folder=in_folder)
        await lib.catalog.write(lambda tx: tx.put_blob(ONE, 3, key, 1))
        if fits:
            await check_place(lib.catalog, in_folder=in_folder)
        else:
            with pytest.raises(OperationFailed, match="REGISTRY_STORAGE_URL says otherwise"):
                await check_place(lib.catalog, in_folder=in_folder)
