"""SQL written once with SQLAlchemy Core, compiled once per dialect, run on the driver's own cursor.

Core's execution layer costs more than SQLite's answer to a point query (22 against 12 µs in all for
a tag lookup), and a push is twenty statements. So statements are compiled to text with named
parameters and handed to the driver as they are. That is sound because the tables have no type that
needs conversion: integers, booleans, text and bytes only.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from sqlalchemy import ClauseElement, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

from registry.core.digest import Digest

T = TypeVar("T")
Row = tuple[Any, ...]
Insert = sqlite.Insert | postgresql.Insert

_INSERTS: dict[str, Callable[[Table], Insert]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
SQLITE = sqlite.dialect(paramstyle="named")


class Cursor(Protocol):
    """What is used of a DB-API cursor."""

    @property
    def rowcount(self) -> int:
        """Rows changed by the last statement."""

    def execute(self, text: str, values: Mapping[str, Any], /) -> Any:
        """Run one statement."""

    def executemany(self, text: str, values: Iterable[Mapping[str, Any]], /) -> Any:
        """Run it once for each set of values."""

    def fetchall(self) -> list[Any]:
        """All rows left."""

    def __iter__(self) -> Iterator[Any]:
        """The rows left, one after the other."""


class Statement:
    """One SQL statement. Its values are its `bindparam`s, given by name when it runs."""

    def __init__(self, source: ClauseElement | Callable[[Callable[[Table], Insert]], Any]) -> None:
        """Take a statement, or a function from a dialect's `insert` to one (`on_conflict_…`)."""
        self._source = source
        self.compiled: dict[str, tuple[str, dict[str, Any]]] = {}

    def compile(self, dialect: Dialect) -> tuple[str, dict[str, Any]]:
        """Text and constants for a dialect; kept in `compiled` under the dialect's name."""
        source = self._source
        if not isinstance(source, ClauseElement):
            source = source(_INSERTS[dialect.name])
        compiled = source.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        constants = {
            name: bind.value for bind, name in compiled.bind_names.items() if not bind.required
        }
        made = self.compiled[dialect.name] = (str(compiled), constants)
        return made


class Session:
    """A connection on which statements run. Says nothing of transactions: its owner begins them."""

    def __init__(self, cursor: Cursor, dialect: Dialect) -> None:
        self._cursor = cursor
        self._dialect = dialect
        self._name = dialect.name

    def _execute(self, statement: Statement, values: dict[str, Any]) -> Cursor:
        made = statement.compiled.get(self._name)
        text, constants = made or statement.compile(self._dialect)
        self._cursor.execute(text, {**constants, **values} if constants else values)
        return self._cursor

    def all(self, statement: Statement, **values: Any) -> list[Row]:
        """All rows of a query."""
        return self._execute(statement, values).fetchall()

    def each(self, statement: Statement, make: Callable[..., T]) -> list[T]:
        """What `make` makes of each row of a long query, its columns as arguments.

        The rows are never in memory all at once. `make` must not use the session.
        """
        rows = self._execute(statement, {})
        try:
            return [make(*row) for row in rows]
        finally:
            rows.fetchall()  # if `make` failed: what is left would keep its snapshot open

    def one(self, statement: Statement, **values: Any) -> Row | None:
        """The first row of a query that has few."""
        # fetchall: a query that is not read to its end would keep its snapshot open
        rows: list[Row] = self._execute(statement, values).fetchall()
        return rows[0] if rows else None

    def run(self, statement: Statement, **values: Any) -> int:
        """Run a statement without rows; return how many it changed."""
        return self._execute(statement, values).rowcount

    def notify(self, channel: str, word: str) -> None:
        """Wake who listens, once this is committed; only Postgres can, elsewhere they look."""
        if self._name == "postgresql":
            values = {"channel": channel, "word": word}
            self._cursor.execute("SELECT pg_notify(%(channel)s, %(word)s)", values)

    def many(self, statement: Statement, rows: list[dict[str, Any]]) -> None:
        """Run a statement once for each of `rows`; Postgres is waited for once."""
        if rows:
            made = statement.compiled.get(self._name)
            text, constants = made or statement.compile(self._dialect)
            values = [{**constants, **row} for row in rows] if constants else rows
            self._cursor.executemany(text, values)


class Queries:
    """Where the parts of the catalog's reader and transaction get their session and the time."""

    def __init__(self, session: Session, clock: Callable[[], int]) -> None:
        self._sql = session
        self._clock = clock


def digest_of(text: str) -> Digest:
    """The digest of a column: both algorithms have names of six letters."""
    return Digest(text[:6], text[7:])
