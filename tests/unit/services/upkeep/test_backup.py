"""A backup while others delete, and what is left when a backup or an import breaks off."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.adapters.backup_folder import BackupFolder
from registry.adapters.database_rows import DatabaseRows
from registry.core.digest import Digest
from registry.core.errors import OperationFailed, StorageFull
from registry.core.names import ModelName
from registry.services.upkeep.backup import Backup
from tests.support.backends import BACKENDS
from tests.support.gguf import SMALLEST
from tests.support.library import Library, library

pytestmark = pytest.mark.anyio


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data") as lib:
        await lib.base()
        await lib.make("team/other", origin="base", system="Be brief.")
        yield lib


def backup(lib: Library, place: BackupFolder) -> Backup:
    rows = DatabaseRows(BACKENDS.database(lib.data))
    return Backup(lib.blobs, rows, place, "1.0")


async def clear(lib: Library) -> None:
    """Delete every model, and every byte that nothing holds."""
    for model in await lib.listing.models():
        await lib.models.delete(ModelName.parse(model.name.short))
    lib.clock.now += 10**9 * 86_400
    await lib.housekeeping.sweep()
    await lib.housekeeping.purge()


async def test_what_is_deleted_meanwhile_is_saved(lib: Library, tmp_path: Path) -> None:
    work, before = backup(lib, BackupFolder(tmp_path / "saved")), lib.files()
    async for event in work.run(with_blobs=True):
        if event.text.endswith("blobs"):  # the rows are saved, no byte is yet
            for model in await lib.listing.models():
                await lib.models.delete(ModelName.parse(model.name.short))
            await lib.housekeeping.purge()
    saved = {path.name.replace("-", ":") for path in (tmp_path / "saved" / "blobs").iterdir()}
    assert saved == before
    assert work.summary is not None
    assert (work.summary.blobs, work.summary.with_blobs) == (len(before), True)
    await clear(lib)
    assert lib.files() == set()


class Full(BackupFolder):
    """A place that has no room for a second blob."""

    puts = 0

    async def put(self, digest: Digest, chunks: AsyncIterator[bytes]) -> None:
        self.puts += 1
        if self.puts > 1:
            raise StorageFull("no space left in the store")
        await super().put(digest, chunks)


async def test_a_backup_that_breaks_off_is_none_and_holds_nothing(
    lib: Library, tmp_path: Path
) -> None:
    with pytest.raises(StorageFull):
        async for _ in backup(lib, Full(tmp_path / "saved")).run(with_blobs=True):
            pass
    with pytest.raises(OperationFailed, match="no finished backup"):
        BackupFolder(tmp_path / "saved").summary()
    await clear(lib)
    assert lib.files() == set()


async def test_the_backup_before_stays_when_the_next_breaks_off(
    lib: Library, tmp_path: Path
) -> None:
    async for _ in backup(lib, BackupFolder(tmp_path / "saved")).run():
        pass
    before = BackupFolder(tmp_path / "saved").summary()
    await lib.make("third", origin="base", system="Be long.")
    with pytest.raises(StorageFull):
        async for _ in backup(lib, Full(tmp_path / "saved")).run(with_blobs=True):
            pass
    place = BackupFolder(tmp_path / "saved")
    assert place.summary() == before
    assert list(place.lines(before))


@pytest.mark.parametrize(
    ("known", "said"),
    [(False, r"1 of 3 blobs.*digest mismatch"), (True, r"1 of 3 blobs.*damaged")],
    ids=["found out now", "found by scrub"],
)
async def test_damaged_bytes_are_named_and_the_rest_is_saved(
    lib: Library, tmp_path: Path, known: bool, said: str
) -> None:
    digest = Digest.of(SMALLEST)
    BACKENDS.stored(lib.data, digest).write(bytes([SMALLEST[0] ^ 1]) + SMALLEST[1:])
    if known:
        blob = await lib.catalog.read(lambda tx: tx.blob(digest))
        assert blob is not None
        await lib.catalog.write(lambda tx: tx.suspect(digest, blob.storage_key, 1))
    work = backup(lib, BackupFolder(tmp_path / "saved"))
    with pytest.raises(OperationFailed, match=said):
        async for _ in work.run(with_blobs=True):
            pass
    assert work.summary is not None
    assert not work.summary.with_blobs
    assert len(list((tmp_path / "saved" / "blobs").iterdir())) == 2
