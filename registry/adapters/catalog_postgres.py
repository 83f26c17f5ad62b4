"""The catalog on Postgres, shared by any number of replicas.

- Reads run in a pool of threads, each with its own connection and on one snapshot.
- All writes of a replica go through one thread (`group_commit.py`), those of all replicas follow
  one another (`postgres.py`).
- The version is the server's own snapshot: it changes with every commit of anybody, and is asked
  for on a connection of its own, without leaving the event loop and not for longer than a moment.
"""

import asyncio
import contextlib
import select
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from hashlib import blake2b
from typing import TypeVar

import psycopg
from psycopg import Connection
from psycopg.pq import ExecStatus
from sqlalchemy.engine import URL

from registry.adapters.catalog_transaction import SqlReader
from registry.adapters.group_commit import CLOSED, Writer
from registry.adapters.postgres import DIALECT, PostgresDatabase, connect, translated
from registry.adapters.postgres_bell import Bell
from registry.adapters.postgres_clock import ServerClock
from registry.adapters.statements import Session
from registry.core.errors import Unavailable
from registry.ports.catalog import Reader, Transaction

T = TypeVar("T")

READERS = 8
STATEMENT_S = 60.0
_SCANNERS = 2
_BUSY_S = 10.0
_READ_BUSY_S = 5.0
_VERSION_S = 0.5  # the event loop stands still meanwhile
_VERSION_PAUSE_S = 1.0
_UNREACHABLE = "the database cannot be reached"


class PostgresCatalog:
    """`Catalog` on a Postgres database. May be used from several event loops and threads."""

    def __init__(
        self,
        url: URL,
        busy_s: float = _BUSY_S,
        readers: int = READERS,
        statement_s: float = STATEMENT_S,
    ) -> None:
        """Connect; the schema must be up to date.

        Raises:
            Unavailable: nobody answers there, or we are not let in.
        """
        self._url = url
        self._clock = ServerClock()
        self._statement_s = statement_s
        self._lock = threading.Lock()
        self._local = threading.local()
        self._open: list[Connection] = []
        self._closed = False
        try:
            self._writer = Writer(PostgresDatabase(url, busy_s, self._clock, statement_s))
            self._versions = _Versions(url)
        except psycopg.Error as error:
            raise translated(error) from error
        self._bell = Bell(url)
        self._readers = ThreadPoolExecutor(readers, "catalog-read")
        self._scanners = ThreadPoolExecutor(_SCANNERS, "catalog-scan")
        self._writer.start()

    async def read(self, work: Callable[[Reader], T]) -> T:
        """See `Catalog`."""
        return await self._hand(self._readers, work)

    async def scan(self, work: Callable[[Reader], T]) -> T:
        """See `Catalog`."""
        return await self._hand(self._scanners, work)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """See `Catalog`. When the caller is cancelled, `work` has run wholly or never will."""
        return await self._writer.write(work)

    def version(self) -> int:
        """See `Catalog`."""
        if self._closed:
            raise Unavailable(CLOSED)
        return self._versions.now()

    def now(self) -> int:
        """See `Catalog`."""
        return self._clock.now()

    async def job_change(self, timeout_s: float) -> None:
        """See `Catalog`."""
        await self._bell.wait(timeout_s)

    async def check(self) -> None:
        """See `Catalog`."""
        await self.write(lambda tx: None)

    async def close(self) -> None:
        """See `Catalog`."""
        self._closed = True
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.finish()
        self._readers.shutdown()
        self._scanners.shutdown()
        self._versions.close()
        self._bell.close()
        with self._lock:
            while self._open:
                self._open.pop().close()

    async def _hand(self, threads: Executor, work: Callable[[Reader], T]) -> T:
        try:
            future = threads.submit(self._read, work)
        except RuntimeError as error:
            raise Unavailable(CLOSED) from error
        return await asyncio.wrap_future(future)

    def _mine(self) -> tuple[Connection, SqlReader]:
        """This thread's connection, made anew if it broke."""
        mine: tuple[Connection, SqlReader] | None = getattr(self._local, "mine", None)
        if mine is not None and not mine[0].closed:
            return mine
        connection = connect(self._url, _READ_BUSY_S, self._statement_s)
        with self._lock:
            if mine is not None and mine[0] in self._open:
                self._open.remove(mine[0])
            self._open.append(connection)
        session = Session(connection.cursor(), DIALECT)
        self._local.mine = connection, SqlReader(session, self._clock.now)
        made: tuple[Connection, SqlReader] = self._local.mine
        return made

    def _read(self, work: Callable[[Reader], T]) -> T:
        """Run `work` on one snapshot; again on a new connection if the old one was lost."""
        try:
            try:
                return self._read_once(work)
            except (psycopg.OperationalError, psycopg.InterfaceError):
                mine = getattr(self._local, "mine", None)
                if mine is None or not mine[0].closed:
                    raise
                return self._read_once(work)
        except psycopg.Error as error:
            raise translated(error) from error
        except StopIteration as error:  # a future cannot hold it and would hang
            raise RuntimeError("a read raised StopIteration") from error

    def _read_once(self, work: Callable[[Reader], T]) -> T:
        connection, reader = self._mine()
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            return work(reader)
        finally:
            with contextlib.suppress(psycopg.Error):  # the error that is on its way says more
                connection.execute("ROLLBACK")


class _Versions:
    """The connection that tells the version."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._connection: Connection | None = connect(url, _READ_BUSY_S, _READ_BUSY_S)
        self._connecting: threading.Thread | None = None
        self._next_try = 0.0

    def now(self) -> int:
        """The version at this moment.

        Raises:
            Unavailable: the server does not say so at once.
        """
        with self._lock:
            connection = self._connection
            if connection is None:
                self._connect_again()
                raise Unavailable(_UNREACHABLE)
            try:
                return _number(_snapshot(connection))
            except (psycopg.Error, TimeoutError) as error:
                connection.close()
                self._connection = None
                self._connect_again()
                raise Unavailable(_UNREACHABLE) from error

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            self._next_try = float("inf")

    def _connect_again(self) -> None:
        """Begin to, in a thread: it may take seconds."""
        busy = self._connecting is not None and self._connecting.is_alive()
        if not busy and time.monotonic() >= self._next_try:
            self._next_try = time.monotonic() + _VERSION_PAUSE_S
            self._connecting = threading.Thread(target=self._try, daemon=True)
            self._connecting.start()

    def _try(self) -> None:
        with contextlib.suppress(psycopg.Error):
            connection = connect(self._url, _READ_BUSY_S, _READ_BUSY_S)
            with self._lock:
                if self._next_try == float("inf"):
                    connection.close()
                else:
                    self._connection = connection


def _snapshot(connection: Connection) -> bytes:
    """Which transactions are finished: two that are equal see the same rows.

    Raises:
        TimeoutError: no answer in `_VERSION_S`.
        psycopg.Error: the connection broke.
    """
    link = connection.pgconn
    link.send_query(b"SELECT pg_current_snapshot()")
    poll = select.poll()
    poll.register(link.socket, select.POLLIN)
    deadline = time.monotonic() + _VERSION_S
    while link.is_busy():
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        poll.poll(left * 1000)
        link.consume_input()
    result = link.get_result()
    if result is None or result.status != ExecStatus.TUPLES_OK:
        raise psycopg.OperationalError(_UNREACHABLE)
    value = result.get_value(0, 0)
    link.get_result()  # None: the end of the answer
    assert value is not None
    return value


def _number(snapshot: bytes) -> int:
    return int.from_bytes(blake2b(snapshot, digest_size=8).digest()) >> 1
