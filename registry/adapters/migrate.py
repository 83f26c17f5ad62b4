"""Bringing the schema up to date, at start and by `registry migrate`.

The migrations are Alembic's. They lie in `migrations/` of a checkout, and in the package as
`_migrations` when it is installed.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from registry.adapters.postgres import WRITERS
from registry.core.errors import OperationFailed, Unavailable

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = (_PACKAGE / "_migrations", _PACKAGE.parent / "migrations")
_LOCK_S = 60.0  # another process may be migrating a big database


def upgrade(url: URL | str) -> None:
    """Make the database if there is none, and bring its schema to this version's.

    Under a lock: of several processes that start at once one does it and the others wait. A step
    that fails undoes all of them.

    Raises:
        OperationFailed: the schema is newer than this version's.
        Unavailable: the database cannot be reached, or is locked for too long.
    """
    with _locked(make_url(url)) as (connection, config):
        if _refuse_newer(connection, config):
            command.upgrade(config, "head")


def downgrade(url: URL | str, revision: str) -> None:
    """Take the schema back to a revision, `base` for none. Loses what the older one cannot hold."""
    with _locked(make_url(url)) as (connection, config):
        _refuse_newer(connection, config)
        command.downgrade(config, revision)


def _configuration(connection: Connection) -> Config:
    folder = next(folder for folder in _FOLDERS if folder.is_dir())
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _refuse_newer(connection: Connection, config: Config) -> bool:
    """Whether there is anything to do.

    Raises:
        OperationFailed: the database is at a revision that is not among ours.
    """
    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    try:
        scripts.get_revision(current or "base")
    except CommandError as error:
        raise OperationFailed(
            f"the database's schema is {current}, which this version does not know (it knows up to "
            f"{scripts.get_current_head()}): install the newer version that made it, or restore a "
            "backup"
        ) from error
    return current != scripts.get_current_head()


@contextmanager
def _locked(url: URL) -> Generator[tuple[Connection, Config]]:
    """A connection inside a transaction that shuts out other writers."""
    engine = _postgres(url) if url.get_backend_name() == "postgresql" else _sqlite(url)
    try:
        with engine.begin() as connection:
            yield connection, _configuration(connection)
    except SQLAlchemyError as error:
        raise Unavailable("the database cannot be brought up to date: " + _cause(error)) from error
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


def _cause(error: SQLAlchemyError) -> str:
    """The driver's own words; SQLAlchemy's add the statement and a link."""
    return str(getattr(error, "orig", None) or type(error).__name__)
