"""Bringing the schema up to date, at start and by `registry migrate`.

The migrations are Alembic's. They lie in `migrations/` of a checkout, and in the package as
`_migrations` when it is installed.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from registry.adapters.postgres import WRITERS
from registry.core.errors import OperationFailed, Unavailable

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = (_PACKAGE / "_migrations", _PACKAGE.parent / "migrations")
_TIMEOUT = {"sqlite": "timeout", "postgresql": "connect_timeout"}
_LOCK_S = 60.0  # another process may be migrating a big database


@dataclass(frozen=True, slots=True)
class Schema:
    """Where a database stands. `current` is empty for one without tables."""

    current: str
    known: tuple[str, ...]  # this version's revisions, oldest first

    @property
    def is_current(self) -> bool:
        """Whether there is nothing to do."""
        return self.current == self.known[-1]

    def steps(self, revision: str) -> int:
        """How many steps lead to a revision; fewer than none lead back.

        Raises:
            OperationFailed: it is none of this version's, or the database's own is not.
        """
        if self.current and self.current not in self.known:
            raise OperationFailed(
                f"the database's schema is {self.current}, which this version does not know (it "
                f"knows up to {self.known[-1]}): install the newer version that made it, or "
                "restore a backup"
            )
        order = ("", *self.known)
        wanted = {"head": self.known[-1], "base": ""}.get(revision, revision)
        if wanted not in order or (not wanted and revision != "base"):
            raise OperationFailed(
                f"there is no schema {revision!r}: {', '.join(self.known)}, head and base are known"
            )
        return order.index(wanted) - order.index(self.current)


def upgrade(url: URL | str, revision: str = "head") -> None:
    """Make the database if there is none, and bring its schema to this version's.

    Or to another revision, `base` for none; going back loses what the older one cannot hold. Under
    a lock: of several processes that start at once one does it and the others wait. A step that
    fails undoes all of them.

    Raises:
        OperationFailed: the schema is newer than this version's.
        Unavailable: the database cannot be reached, or is locked for too long.
    """
    with locked(make_url(url)) as connection:
        bring(connection, revision)


def bring(connection: Connection, revision: str) -> None:
    """Take the schema up or down to a revision, in the transaction of `locked`."""
    steps = schema(connection).steps(revision)
    if steps:
        move = command.upgrade if steps > 0 else command.downgrade
        move(_configuration(connection), revision)


def schema(connection: Connection | None) -> Schema:
    """Where the database of a connection stands; without one, that of no database."""
    scripts = ScriptDirectory.from_config(_configuration(connection))
    known = [script.revision for script in scripts.walk_revisions()]
    context = MigrationContext.configure(connection) if connection is not None else None
    current = context.get_current_revision() if context else None
    return Schema(current or "", tuple(reversed(known)))


def standing(url: URL) -> Schema:
    """The same, looked at from outside; makes nothing and waits for nobody.

    Raises:
        Unavailable: the database cannot be reached.
    """
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return schema(None)
    engine = create_engine(url, connect_args={_TIMEOUT[url.get_backend_name()]: 10})
    try:
        with engine.connect() as connection:
            return schema(connection)
    except SQLAlchemyError as error:
        raise Unavailable("the database cannot be read: " + cause(error)) from error
    finally:
        engine.dispose()


def _configuration(connection: Connection | None) -> Config:
    folder = next(folder for folder in _FOLDERS if folder.is_dir())
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@contextmanager
def locked(url: URL) -> Generator[Connection]:
    """A connection inside a transaction that shuts out other writers.

    Raises:
        Unavailable: the database cannot be reached, or what is done with it fails.
    """
    engine = _postgres(url) if url.get_backend_name() == "postgresql" else _sqlite(url)
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise Unavailable("the database cannot be brought up to date: " + cause(error)) from error
    finally:
        engine.dispose()


def _sqlite(url: URL) -> Engine:
    file = Path(url.database or "")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))  # it holds secrets
    except OSError as error:
        raise Unavailable(f"the database cannot be opened: {error.strerror}") from error
    engine = create_engine(url, connect_args={"timeout": _LOCK_S, "isolation_level": None})
    # The driver would begin a transaction of its own, too late and without the lock
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _postgres(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"connect_timeout": 10})

    def lock(connection: Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(_LOCK_S * 1000)}")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS})")

    event.listen(engine, "begin", lock)
    return engine


def cause(error: SQLAlchemyError) -> str:
    """The driver's own words; SQLAlchemy's add the statement and a link."""
    return str(getattr(error, "orig", None) or type(error).__name__)
