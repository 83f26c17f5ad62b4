"""Connections to Postgres: how they are opened, what their errors mean, the one that writes.

All writes of all replicas follow one another under an advisory lock, as on SQLite: what a function
of a transaction has read stays true until it commits, and events are numbered in the order of their
commits. Group commit (`group_commit.py`) makes one turn of the lock serve many callers.

Source: PostgreSQL 15 documentation 9.27 (advisory locks, `pg_xact_status`), 20.11 (timeouts).
"""

import contextlib
import time
from typing import Final

import psycopg
from psycopg import Connection, errors
from psycopg.abc import RV, PQGen
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from sqlalchemy.engine import URL, Dialect

from registry.adapters.catalog_transaction import SqlTransaction
from registry.adapters.postgres_clock import ServerClock
from registry.adapters.statements import Session
from registry.core.errors import Conflict, RegistryError, StorageFull, Unavailable
from registry.ports.catalog import Transaction

DIALECT: Final[Dialect] = URL.create("postgresql+psycopg").get_dialect()()
WRITERS: Final = 0x7265_6769_7374_7279
"""The advisory lock of those who write."""
_PARAMETERS: Final = {
    "application_name": "registry",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",  # ms: a machine that vanished is noticed
}
_IDLE_MS: Final = (
    60_000  # a replica that froze in a transaction does not hold the others up for ever
)
_PAUSE_S: Final = 0.1
_MARGIN_S: Final = 10.0


class Patient(Connection):
    """A connection on which nobody waits for ever for an answer.

    A server whose machine hangs, or that is stopped, keeps no limit of its own, and its kernel may
    go on saying that the connection lives.
    """

    answer_s: float | None = _MARGIN_S

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """See psycopg. What has had no answer in `answer_s` breaks the connection."""
        try:
            return super().wait(gen, interval, self.answer_s if timeout is None else timeout)
        except psycopg.OperationalError:
            if timeout is None and self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.close()
            raise


def connect(url: URL, lock_s: float, statement_s: float = 0) -> Connection:
    """Open a connection that leaves transactions to us, for one thread at a time.

    Args:
        url: where, and as whom.
        lock_s: seconds after which a statement that waits for a lock fails.
        statement_s: seconds after which any statement fails; 0: never.

    Raises:
        psycopg.Error: nobody answers there, or we are not let in.
    """
    native = url.set(drivername="postgresql").render_as_string(hide_password=False)
    given = {key for key in _PARAMETERS if key in url.query}
    rest = {key: value for key, value in _PARAMETERS.items() if key not in given}
    connection = Patient.connect(make_conninfo(native, **rest), autocommit=True)
    # the server's own limit comes first
    connection.answer_s = statement_s + _MARGIN_S if statement_s else None
    connection.prepare_threshold = 2
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {int(lock_s * 1000)}".encode())
        cursor.execute(f"SET statement_timeout = {int(statement_s * 1000)}".encode())
        cursor.execute(f"SET idle_in_transaction_session_timeout = {_IDLE_MS}".encode())
        cursor.execute("SHOW synchronous_commit")
        if cursor.fetchall() == [("off",)]:  # what we acknowledge must be on the disk
            cursor.execute("SET synchronous_commit = on")
    return connection


def translated(error: psycopg.Error) -> RegistryError:
    """What a caller is told. The driver's own texts may tell names of hosts and of tables."""
    if isinstance(error, errors.LockNotAvailable | errors.QueryCanceled):
        return Unavailable("the database is busy")
    if isinstance(error, errors.DiskFull):
        return StorageFull("no space left for the database")
    if isinstance(error, psycopg.IntegrityError):
        constraint = error.diag.constraint_name or "a rule"
        return Conflict(f"the change contradicts what is in the database: {constraint}")
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return Unavailable("the database cannot be reached")
    return Unavailable(f"the database cannot be used: {type(error).__name__}")


class PostgresDatabase:
    """`Database` of `group_commit.py`. Connects again when the server was away."""

    Error: type[Exception] = psycopg.Error

    def __init__(self, url: URL, busy_s: float, clock: ServerClock, statement_s: float = 0) -> None:
        self._url = url
        self._busy_s = busy_s
        self._statement_s = statement_s
        self._clock = clock
        self._open()

    def _open(self) -> None:
        self._connection = connect(self._url, self._busy_s, self._statement_s)
        cursor = self._connection.cursor()
        self._run = cursor.execute
        self._cursor = cursor
        self._transaction = SqlTransaction(Session(cursor, DIALECT), self._clock.now)
        self._clock.look(cursor)

    @property
    def transaction(self) -> Transaction:
        """See `Database`."""
        return self._transaction

    def begin(self) -> None:
        """See `Database`. Waits for a server that restarts, as long as for a lock."""
        deadline = time.monotonic() + self._busy_s
        while True:
            try:
                self._begin()
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                self.rollback()
                if isinstance(error, errors.LockNotAvailable) or time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_S)
            else:
                return

    def _begin(self) -> None:
        if self._connection.closed:
            self._open()
        self._clock.look(self._cursor)
        self._run("BEGIN")
        self._run("SELECT pg_advisory_xact_lock(%s)", (WRITERS,))

    def commit(self) -> None:
        """See `Database`. If the answer is lost, the server is asked what became of it."""
        self._run("SELECT pg_current_xact_id_if_assigned()::text")
        (xid,) = self._cursor.fetchall()[0]
        try:
            self._run("COMMIT")
        except (psycopg.OperationalError, psycopg.InterfaceError):
            if xid is None or not self._has_committed(xid):
                raise

    def _has_committed(self, xid: str) -> bool:
        """What became of a transaction whose connection broke.

        Raises:
            psycopg.Error: the server does not come back in time. The outcome is not known then.
        """
        deadline = time.monotonic() + self._busy_s
        while True:
            try:
                self._open()
                self._run("SELECT pg_xact_status(%s::xid8)", (xid,))
                (status,) = self._cursor.fetchall()[0]
            except (psycopg.OperationalError, psycopg.InterfaceError):
                if time.monotonic() > deadline:
                    raise
            else:
                if status != "in progress":
                    return bool(status == "committed")
            time.sleep(_PAUSE_S)

    def rollback(self) -> None:
        """See `Database`."""
        with contextlib.suppress(psycopg.Error):
            if not self._connection.closed:
                self._run("ROLLBACK")
                return
        with contextlib.suppress(psycopg.Error):
            self._connection.close()

    def run(self, text: str) -> None:
        """See `Database`."""
        self._run(text)

    def translated(self, error: Exception) -> RegistryError:
        """See `Database`."""
        assert isinstance(error, psycopg.Error)
        return translated(error)

    def close(self) -> None:
        """See `Database`."""
        self._connection.close()
