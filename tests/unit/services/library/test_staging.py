"""Contents of our own making: small ones are rows first, large ones files first."""

from pathlib import Path

import pytest

from registry.core.digest import Digest
from registry.services.library.staging import SMALL, Staging
from tests.support.library import Library, library

pytestmark = [pytest.mark.anyio, pytest.mark.folder]

TEXTS = (b"", b"a text", b"l" * (SMALL + 1))
CONTENTS = {Digest.of(text): text for text in TEXTS}


async def kept(lib: Library) -> set[bytes]:
    rows = await lib.catalog.read(lambda tx: tx.unwritten(10))
    return {row.content for row in rows}


async def test_small_contents_are_rows_and_large_ones_files(tmp_path: Path) -> None:
    async with library(tmp_path) as lib:
        async with Staging(lib.catalog, lib.store) as staging:
            await staging.add(CONTENTS)
            assert lib.files() == {str(Digest.of(TEXTS[2]))}
            await lib.catalog.write(lambda tx: staging.commit(tx, 1))
        assert await kept(lib) == set(TEXTS[:2])
        for digest, text in CONTENTS.items():
            blob = await lib.catalog.read(lambda tx, d=digest: tx.blob(d))  # type: ignore[misc]
            assert blob is not None
            assert blob.size == len(text)
        assert list((tmp_path / "incoming").iterdir()) == []


async def test_what_is_here_is_left_out(tmp_path: Path) -> None:
    async with library(tmp_path) as lib:
        await lib.blobs.put_bytes(b"a text")
        async with Staging(lib.catalog, lib.store) as staging:
            await staging.add(CONTENTS)
            await lib.catalog.write(lambda tx: staging.commit(tx, 1))
        assert await kept(lib) == {b""}


async def test_what_goes_before_the_transaction_is_brought_again(tmp_path: Path) -> None:
    async with library(tmp_path) as lib:
        for text in TEXTS:
            await lib.blobs.put_bytes(text)
        async with Staging(lib.catalog, lib.store) as staging:
            await staging.add(CONTENTS)
            await lib.catalog.write(lambda tx: tx.free(list(CONTENTS), 1))
            await lib.housekeeping.purge()
            await lib.catalog.write(lambda tx: staging.commit(tx, 1))
        await lib.housekeeping.settle([])
        assert lib.files() == {str(digest) for digest in CONTENTS}


async def test_without_a_commit_nothing_is_left(tmp_path: Path) -> None:
    async with library(tmp_path) as lib:
        with pytest.raises(LookupError):
            async with Staging(lib.catalog, lib.store) as staging:
                await staging.add(CONTENTS)
                raise LookupError
        assert lib.files() == set()
        assert await kept(lib) == set()
        assert list((tmp_path / "incoming").iterdir()) == []
