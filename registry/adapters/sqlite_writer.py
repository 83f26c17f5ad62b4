"""The connection on which SQLite is written, with `synchronous=FULL`."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from registry.adapters.catalog_transaction import SqlTransaction
from registry.adapters.group_commit import CLOSED
from registry.adapters.statements import SQLITE, Session
from registry.core.errors import Conflict, RegistryError, StorageFull, Unavailable
from registry.ports.catalog import Transaction

_SWITCH_PAUSE_S = 0.01
_PRAGMAS = (
    "synchronous = FULL",
    "foreign_keys = ON",
    "temp_store = MEMORY",
    "cache_size = -8192",  # KiB, of each connection; the system keeps the file's pages too
    # A create writes 40 pages, mostly the same: by default every 25th would wait for a checkpoint.
    "wal_autocheckpoint = 4096",  # pages of 4 KiB
    "journal_size_limit = 67108864",  # a log that grew during a long read shrinks again
)


def connect(path: Path, busy_s: float) -> sqlite3.Connection:
    """Open a connection that leaves transactions to us, for one thread at a time."""
    connection = sqlite3.connect(
        path, timeout=busy_s, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _write_ahead(connection: sqlite3.Connection, busy_s: float) -> None:
    """Have the file written ahead, waiting for others that hold it.

    SQLite itself does not wait here: the switch takes the file for itself while it already reads,
    and of two that wait like this for each other neither would end.
    """
    deadline = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(_SWITCH_PAUSE_S)
        else:
            return


def translated(error: sqlite3.Error) -> RegistryError:
    """What a caller is told. SQLite's own texts name no file."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StorageFull("no space left for the database")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable("the database is busy")
    if isinstance(error, sqlite3.IntegrityError):
        return Conflict(f"the change contradicts what is in the database: {error}")
    if "closed database" in str(error):
        return Unavailable(CLOSED)
    return Unavailable(f"the database cannot be used: {error}")


class SqliteDatabase:
    """`Database` on a file."""

    Error: type[Exception] = sqlite3.Error

    def __init__(self, path: Path, busy_s: float, clock: Callable[[], int]) -> None:
        self.connection = connect(path, busy_s)
        _write_ahead(self.connection, busy_s)
        session = Session(self.connection.cursor(), SQLITE)
        self._transaction = SqlTransaction(session, clock)
        self._run = self.connection.execute

    @property
    def transaction(self) -> Transaction:
        """See `Database`."""
        return self._transaction

    def begin(self) -> None:
        """See `Database`."""
        self._run("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """See `Database`."""
        self._run("COMMIT")

    def rollback(self) -> None:
        """See `Database`."""
        if self.connection.in_transaction:
            self._run("ROLLBACK")

    def run(self, text: str) -> None:
        """See `Database`."""
        self._run(text)

    def translated(self, error: Exception) -> RegistryError:
        """See `Database`."""
        assert isinstance(error, sqlite3.Error)
        return translated(error)

    def close(self) -> None:
        """See `Database`."""
        self.connection.close()
