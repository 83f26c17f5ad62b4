"""All rows of a database, read on one snapshot or written in one transaction.

Tables are taken as the database has them, not as this version's code does: a dump can be made
before an upgrade, and one of an older schema is written into tables of that schema, which are then
brought up to date. What belongs to processes that ran at the time is left out.
"""

import sqlite3
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import (
    Boolean,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    create_engine,
    event,
    select,
    text,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from registry.adapters import migrate, postgres
from registry.core import dump
from registry.core.errors import Conflict, OperationFailed, Unavailable

PASSING = frozenset(
    {
        "alembic_version",
        "fetch",
        "fetch_part",
        "job",
        "job_asker",
        "lease",
        "nonce",
        "replica",
        "upload",
    }
)
"""Tables whose rows mean something only to processes that run, or to bytes not backed up."""
_BATCH = 1_000
_CONTENT = ("account", "blob", "repository")
_IN_USE = "the database is in use: stop the server first"
_LEAVING_S = 3.0
_PAUSE_S = 0.1
_OTHERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND application_name = 'registry' AND pid <> pg_backend_pid()"
)


class DatabaseRows:
    """`Rows` of `ports/backups.py` on SQLite or Postgres."""

    def __init__(self, url: URL) -> None:
        self._url = url

    @contextmanager
    def snapshot(self) -> Generator[tuple[str, Iterator[dump.Item]]]:
        """See `Rows`."""
        if not migrate.standing(self._url).current:
            raise OperationFailed("there is no library in the database")
        engine = self._reading()
        try:
            with engine.connect() as connection:
                yield migrate.schema(connection).current, _items(connection)
        except SQLAlchemyError as error:
            raise Unavailable(f"the database cannot be read: {migrate.cause(error)}") from error
        finally:
            engine.dispose()

    def _reading(self) -> Engine:
        """An engine whose transactions see one moment only."""
        if self._is_postgres:
            options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            return create_engine(self._url, execution_options=options)
        engine = create_engine(self._url, connect_args={"isolation_level": None})
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        return engine

    def check(self, schema: str, *, force: bool) -> None:
        """See `Rows`."""
        self._refuse_users()
        with migrate.locked(self._url) as connection:
            self._check(connection, schema, force)

    def _check(self, connection: Connection, schema: str, force: bool) -> None:
        standing = migrate.schema(connection)
        standing.steps(schema)  # raises if this version does not know one of the two
        if not force and standing.current and _has_content(connection):
            raise Conflict(
                "there is a library in the database already; with --force it is replaced"
            )

    def load(self, schema: str, items: Iterable[dump.Item], *, force: bool) -> None:
        """See `Rows`."""
        self._refuse_users()
        with migrate.locked(self._url) as connection:
            self._check(connection, schema, force)
            migrate.bring(connection, "base")
            migrate.bring(connection, schema)
            tables = _tables(connection)
            for name, group in groupby(items, key=lambda item: item[0].name):
                if name not in tables:
                    raise OperationFailed(f"the backup has a table {name!r} that is none of ours")
                self._fill(connection, tables[name], group)
            migrate.bring(connection, "head")
            if self._is_postgres:  # until it looks by itself it takes the tables for small
                connection.exec_driver_sql("ANALYZE")

    def _refuse_users(self) -> None:
        """Make sure that no server uses the database.

        Raises:
            Conflict: one does.
        """
        if self._is_postgres:
            _refuse_users_of_server(self._url)
        else:
            _refuse_users_of_file(self._url)

    def _fill(self, connection: Connection, table: Table, items: Iterable[dump.Item]) -> None:
        batch: list[dict[str, Any]] = []
        number = None
        for head, row in items:
            number = head.next
            if row is not None:
                batch.append(head.named(row))
            if len(batch) == _BATCH:
                connection.execute(table.insert(), batch)
                batch = []
        if batch:
            connection.execute(table.insert(), batch)
        if number is not None:
            self._number(connection, str(table.name), number)

    def _number(self, connection: Connection, table: str, number: int) -> None:
        """Let the next row of a table have that number."""
        values = {"table": table, "last": number - 1}
        if number < 2:
            return
        if self._is_postgres:
            sequence = "pg_get_serial_sequence(quote_ident(:table), 'id')"
            connection.execute(text(f"SELECT setval({sequence}, :last)"), values)
        else:
            connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :table"), values)
            connection.execute(
                text("INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :last)"), values
            )

    @property
    def _is_postgres(self) -> bool:
        return self._url.get_backend_name() == "postgresql"


def _items(connection: Connection) -> Iterator[dump.Item]:
    """Every row, tables that are referred to before those that refer to them."""
    numbers = _numbers(connection)
    for name, table in _tables(connection).items():
        if name in PASSING:
            continue
        columns = tuple((str(column.name), _kind(column.type)) for column in table.columns)
        head = dump.Table(name, columns, numbers.get(name))
        yield head, None
        rows = (
            select(table).order_by(*table.primary_key.columns).execution_options(yield_per=_BATCH)
        )
        for row in connection.execute(rows):
            yield head, tuple(row)


def _tables(connection: Connection) -> dict[str, Table]:
    metadata = MetaData()
    metadata.reflect(connection)
    return {str(table.name): table for table in metadata.sorted_tables}


def _kind(column: object) -> str:
    if isinstance(column, Boolean):
        return "flag"
    if isinstance(column, Integer):
        return "number"
    return "bytes" if isinstance(column, LargeBinary) else "text"


def _numbers(connection: Connection) -> dict[str, int]:
    """The next number of each table that gives out numbers."""
    if connection.dialect.name == "sqlite":
        query = "SELECT name, seq + 1 FROM sqlite_sequence"
    else:  # `last_value` is null until the first number was given out
        query = (
            "SELECT t.relname, s.last_value + 1 FROM pg_sequences s "
            "JOIN pg_class q ON q.relname = s.sequencename AND q.relkind = 'S' "
            "JOIN pg_namespace n ON n.oid = q.relnamespace AND n.nspname = s.schemaname "
            "JOIN pg_depend d ON d.objid = q.oid AND d.deptype IN ('a', 'i') "
            "JOIN pg_class t ON t.oid = d.refobjid AND t.relkind = 'r' "
            "WHERE s.schemaname = current_schema() AND s.last_value IS NOT NULL"
        )
    return {str(name): int(number) for name, number in connection.exec_driver_sql(query)}


def _has_content(connection: Connection) -> bool:
    here = _tables(connection)
    return any(
        connection.execute(select(here[name]).limit(1)).first() is not None
        for name in _CONTENT
        if name in here
    )


def _refuse_users_of_server(url: URL) -> None:
    """Those who have just gone may be listed for a moment."""
    deadline = time.monotonic() + _LEAVING_S
    try:
        with closing(postgres.connect(url, _LEAVING_S)) as connection:
            while connection.execute(_OTHERS).fetchall() != [(0,)]:
                if time.monotonic() > deadline:
                    raise Conflict(_IN_USE)
                time.sleep(_PAUSE_S)
    except psycopg.Error as error:
        raise postgres.translated(error) from error


def _refuse_users_of_file(url: URL) -> None:
    """Make sure that nobody else has the file open: only then can its log be done away with.

    Raises:
        Conflict: somebody has.
    """
    if not Path(url.database or "").exists():
        return
    with closing(sqlite3.connect(url.database or "", timeout=1.0)) as connection:
        try:
            connection.execute("PRAGMA journal_mode = DELETE").fetchall()
        except sqlite3.OperationalError as error:
            raise Conflict(_IN_USE) from error
        except sqlite3.Error as error:
            raise Unavailable("the database cannot be read") from error
