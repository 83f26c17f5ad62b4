import sqlite3
import threading
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from registry.adapters import migrate
from registry.adapters.catalog_sql import resolve
from registry.adapters.catalog_sqlite import SqliteCatalog
from registry.core.errors import Unavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "registry.db"
    migrate.upgrade(resolve("", path))
    return path


@pytest.fixture
def reader(file: Path) -> Generator[sqlite3.Connection]:
    """Somebody in the middle of reading, which keeps the file from being switched to its log."""
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM sqlite_master").fetchall()
        yield other


async def test_the_first_start_waits_for_who_reads_the_file(
    file: Path, reader: sqlite3.Connection
) -> None:
    leaving = threading.Timer(0.2, lambda: reader.execute("COMMIT"))
    leaving.start()
    catalog = SqliteCatalog(file, busy_s=30)
    await catalog.check()
    await catalog.close()
    leaving.join()


def test_and_says_so_when_that_takes_too_long(file: Path, reader: sqlite3.Connection) -> None:
    with pytest.raises(Unavailable, match="the database is busy"):
        SqliteCatalog(file, busy_s=0.05)
