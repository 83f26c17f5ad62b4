"""The catalog on SQLite: reads on the caller's thread, one writer thread with group commit.

- WAL mode: readers and the writer never wait for one another. Each thread that reads has its own
  connection, so a point read on the event loop costs no hop to another thread.
- All writes go through one thread (`group_commit.py`), whose callers share one fsync.
- Other processes may use the same file: `BEGIN IMMEDIATE` waits for their lock, and `data_version`
  notices their commits.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from registry.adapters.catalog_transaction import SqlReader
from registry.adapters.group_commit import CLOSED, Writer
from registry.adapters.sqlite_writer import SqliteDatabase, connect, translated
from registry.adapters.statements import SQLITE, Session
from registry.core.errors import Unavailable
from registry.ports.catalog import Reader, Transaction

T = TypeVar("T")

_SCANNERS = 2  # threads for long reads; more would only share the same disk and processor
_BUSY_S = 5.0
_LOOK_S = 0.1
_MAPPED_BYTES = 1 << 31  # of the file, by readers; pages that the system may take back
_READ_BUSY_S = 1.0  # readers wait for others only while a crashed process's log is recovered


class SqliteCatalog:
    """`Catalog` on a database file. May be used from several event loops and threads."""

    def __init__(
        self, path: Path, busy_s: float = _BUSY_S, clock: Callable[[], int] = time.time_ns
    ) -> None:
        """Open the file; its schema must be up to date.

        Raises:
            Unavailable: it cannot be opened, or stays locked for `busy_s`.
        """
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._closed = False
        try:
            self._writer = Writer(SqliteDatabase(path, busy_s, clock))
            self._versions = self._connect()
        except sqlite3.Error as error:
            raise translated(error) from error
        # Two runs of the service must not give one number to different contents: ETags outlive both
        self._first_version = clock()
        self._scanners = ThreadPoolExecutor(_SCANNERS, "catalog-scan")
        self._writer.start()

    async def read(self, work: Callable[[Reader], T]) -> T:
        """See `Catalog`."""
        return self._read(work)

    async def scan(self, work: Callable[[Reader], T]) -> T:
        """See `Catalog`."""
        try:
            future = self._scanners.submit(self._read, _never_stop_iteration(work))
        except RuntimeError as error:
            raise Unavailable(CLOSED) from error
        return await asyncio.wrap_future(future)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """See `Catalog`. When the caller is cancelled, `work` has run wholly or never will."""
        return await self._writer.write(work)

    def version(self) -> int:
        """See `Catalog`."""
        with self._lock:
            try:
                row = self._versions.execute("PRAGMA data_version").fetchall()[0]
            except sqlite3.Error as error:
                raise translated(error) from error
        return self._first_version + int(row[0])

    def now(self) -> int:
        """See `Catalog`. All processes are on one machine."""
        return self._clock()

    async def job_change(self, timeout_s: float) -> None:
        """See `Catalog`. Nobody tells: any change of the database may be one of a job."""
        seen = self.version()
        for _ in range(max(1, round(timeout_s / _LOOK_S))):
            await asyncio.sleep(min(timeout_s, _LOOK_S))
            if self.version() != seen:
                return

    async def check(self) -> None:
        """See `Catalog`."""
        await self.write(lambda tx: None)

    async def close(self) -> None:
        """See `Catalog`."""
        self._closed = True
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.finish()
        self._scanners.shutdown()
        with self._lock:
            while self._open:
                self._open.pop().close()

    def _connect(self) -> sqlite3.Connection:
        connection = connect(self._path, _READ_BUSY_S)
        connection.execute("PRAGMA query_only = ON")
        # With a million blobs a HEAD costs 18 µs so, and 25 to 47 by reads into its own cache
        connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
        with self._lock:
            self._open.append(connection)
        return connection

    def _mine(self) -> tuple[sqlite3.Connection, SqlReader]:
        """This thread's connection."""
        if self._closed:
            raise Unavailable(CLOSED)
        connection = self._connect()
        reader = SqlReader(Session(connection.cursor(), SQLITE), self._clock)
        self._local.mine = connection, reader
        return connection, reader

    def _read(self, work: Callable[[Reader], T]) -> T:
        """Run `work` on one snapshot."""
        try:
            connection, reader = getattr(self._local, "mine", None) or self._mine()
            connection.execute("BEGIN")
            try:
                return work(reader)
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise translated(error) from error


def _never_stop_iteration(work: Callable[[Reader], T]) -> Callable[[Reader], T]:
    """`work` as a coroutine would run it: a future cannot hold StopIteration and would hang."""

    def run(reader: Reader) -> T:
        try:
            return work(reader)
        except StopIteration as error:
            raise RuntimeError("a read raised StopIteration") from error

    return run
