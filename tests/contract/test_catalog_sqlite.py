"""The contract on SQLite, and what only SQLite does: locks, other processes, crashes."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from registry.adapters import migrate
from registry.adapters.catalog_sql import open_catalog, resolve
from registry.adapters.catalog_sqlite import SqliteCatalog
from registry.adapters.sqlite_writer import SqliteDatabase
from registry.core.errors import Conflict, StorageFull, Unavailable, Unsupported
from registry.ports.catalog import Catalog, Reader, Transaction
from registry.ports.transfers import Upload
from tests.contract.catalog import CatalogContract
from tests.support.catalog_rows import digest, put_blob, put_model

pytestmark = pytest.mark.anyio

_PUSHES = """
import asyncio, sys
from pathlib import Path
from registry.adapters.catalog_sql import open_catalog
from tests.support.catalog_rows import put_model

async def one(catalog, writer):
    for number in range(100000):
        word = f"{writer}-{number}"
        await catalog.write(lambda tx: put_model(tx, f"team/{word}", "latest", word))
        print(word, flush=True)

async def main():
    catalog = open_catalog("", Path(sys.argv[1]))
    await asyncio.gather(*(one(catalog, writer) for writer in range(4)))

asyncio.run(main())
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "registry.db"
    migrate.upgrade(resolve("", file))
    return file


@pytest.fixture
async def catalog(file: Path) -> AsyncIterator[Catalog]:
    catalog = open_catalog("", file)
    yield catalog
    await catalog.close()


@pytest.fixture
async def hasty(file: Path) -> AsyncIterator[SqliteCatalog]:
    """A catalog that waits for locks only briefly."""
    catalog = SqliteCatalog(file, busy_s=0.05)
    yield catalog
    await catalog.close()


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Another process in the midst of a write."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


class TestSqliteCatalog(CatalogContract):
    """The contract."""


class TestOtherProcesses:
    async def test_a_lock_that_stays_makes_writes_unavailable_and_reads_not(
        self, hasty: SqliteCatalog, file: Path
    ) -> None:
        with locked(file):
            writes = [hasty.write(lambda tx: put_blob(tx, "w")) for _ in range(50)]
            began = time.monotonic()
            outcomes = await asyncio.gather(*writes, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {Unavailable}
            assert time.monotonic() - began < 1  # those that waited together fail together
            assert await hasty.read(lambda tx: tx.blob(digest("w"))) is None
            with pytest.raises(Unavailable):
                await hasty.check()
        assert await hasty.write(lambda tx: put_blob(tx, "w"))

    async def test_a_lock_that_goes_is_waited_for(self, catalog: Catalog, file: Path) -> None:
        with locked(file):
            write = asyncio.ensure_future(catalog.write(lambda tx: put_blob(tx, "w")))
            await asyncio.sleep(0.1)
            assert not write.done()
        assert (await write).digest == digest("w")

    async def test_writes_of_two_catalogs_are_seen_by_both(
        self, catalog: Catalog, file: Path
    ) -> None:
        other = open_catalog("", file)
        for number in range(5):
            for writer, reader in ((catalog, other), (other, catalog)):
                before, word = reader.version(), f"{number} {id(writer)}"
                await writer.write(lambda tx, w=word: put_blob(tx, w))  # type: ignore[misc]
                assert reader.version() != before
                assert await reader.read(lambda tx, w=word: tx.blob(digest(w)))  # type: ignore[misc]
        await other.close()

    async def test_two_catalogs_write_at_once(self, catalog: Catalog, file: Path) -> None:
        other = open_catalog("", file)

        async def push(writer: Catalog, name: str) -> None:
            for number in range(30):
                path = f"team/{name}{number}"
                await writer.write(partial(put_model, path=path, tag="latest", word=path))

        await asyncio.gather(push(catalog, "a"), push(other, "b"), push(other, "c"))
        assert len(await catalog.scan(lambda tx: tx.models())) == 90
        await other.close()

    async def test_a_version_is_not_given_twice_by_two_runs(self, file: Path) -> None:
        versions = []
        for number in range(3):
            catalog = open_catalog("", file)
            await catalog.write(lambda tx, n=number: put_blob(tx, str(n)))  # type: ignore[misc]
            versions.append(catalog.version())
            await catalog.close()
        assert versions == sorted(set(versions))

    async def test_a_read_sees_one_state(self, catalog: Catalog, file: Path) -> None:
        other = open_catalog("", file)

        def look(tx: Reader) -> None:
            assert tx.blob(digest("w")) is None
            thread = threading.Thread(
                target=asyncio.run, args=(_put(other),)
            )  # a write of another process, in the middle of our read
            thread.start()
            thread.join()
            assert tx.blob(digest("w")) is None

        await catalog.read(look)
        assert await catalog.read(lambda tx: tx.blob(digest("w"))) is not None
        await other.close()

    async def test_acknowledged_writes_outlive_a_kill(self, file: Path) -> None:
        for _ in range(3):
            writer = subprocess.Popen(
                [sys.executable, "-c", _PUSHES, str(file)], stdout=subprocess.PIPE, text=True
            )
            assert writer.stdout is not None
            words = [writer.stdout.readline().strip() for _ in range(60)]
            writer.kill()
            words += [line.strip() for line in writer.stdout if line.endswith("\n")]
            writer.wait()
            writer.stdout.close()
            catalog = open_catalog("", file)
            found = {model.tag.model.model for model in await catalog.scan(lambda tx: tx.models())}
            assert set(words) <= found
            assert sqlite3.connect(file).execute("PRAGMA integrity_check").fetchone() == ("ok",)
            await catalog.close()
            file.unlink()
            migrate.upgrade(resolve("", file))


class TestFailures:
    async def test_a_full_disk_fails_only_what_does_not_fit(self, hasty: SqliteCatalog) -> None:
        database = hasty._writer._database
        assert isinstance(database, SqliteDatabase)
        limit = database.connection  # a full disk is not to be had otherwise
        pages = limit.execute("PRAGMA page_count").fetchone()[0]
        limit.execute(f"PRAGMA max_page_count = {pages + 40}")

        def big(tx: Transaction) -> None:
            tx.put_secret("big", bytes(1 << 20))

        outcomes = await asyncio.gather(
            hasty.write(lambda tx: put_blob(tx, "before")),
            hasty.write(big),
            hasty.write(lambda tx: put_blob(tx, "after")),
            return_exceptions=True,
        )
        assert isinstance(outcomes[1], StorageFull)
        assert await hasty.read(lambda tx: tx.secret("big")) is None
        for word in ("before", "after"):
            assert await hasty.read(lambda tx, w=word: tx.blob(digest(w))) is not None  # type: ignore[misc]

    async def test_a_contradiction_is_a_conflict(self, catalog: Catalog) -> None:
        upload = Upload("u", 999, "", 1, 2)
        with pytest.raises(Conflict):
            await catalog.write(lambda tx: tx.put_upload(upload))

    async def test_a_file_that_is_no_database_is_said_so_without_its_path(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "registry.db").write_bytes(b"not a database" * 1000)
        for path in (tmp_path / "registry.db", tmp_path / "none" / "registry.db"):
            with pytest.raises(Unavailable) as caught:
                open_catalog("", path)
            assert str(tmp_path) not in str(caught.value)

    @pytest.mark.parametrize("url", ["nonsense", "sqlite://", "sqlite:///:memory:", "mysql://h/d"])
    def test_a_url_of_another_kind_is_refused(self, url: str, tmp_path: Path) -> None:
        with pytest.raises(Unsupported):
            open_catalog(url, tmp_path / "registry.db")

    async def test_a_url_names_the_file(self, file: Path, tmp_path: Path) -> None:
        catalog = open_catalog(f"sqlite:///{file}", tmp_path / "other.db")
        await catalog.check()
        await catalog.close()
        assert not (tmp_path / "other.db").exists()

    async def test_two_event_loops_share_a_catalog(self, catalog: Catalog) -> None:
        thread = threading.Thread(target=asyncio.run, args=(_put(catalog),))
        thread.start()
        await asyncio.gather(*(catalog.write(lambda tx: put_blob(tx, "v")) for _ in range(20)))
        await asyncio.to_thread(thread.join)
        assert await catalog.read(lambda tx: tx.blob(digest("w"))) is not None


async def _put(catalog: Catalog) -> None:
    await catalog.write(lambda tx: put_blob(tx, "w"))
