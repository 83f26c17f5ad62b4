"""The choice of the catalog's database: what a database URL stands for."""

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from registry.adapters.catalog_postgres import PostgresCatalog
from registry.adapters.catalog_sqlite import SqliteCatalog
from registry.core.errors import Unsupported
from registry.ports.catalog import Catalog
from registry.settings import Database


def resolve(database_url: str, sqlite_path: Path) -> URL:
    """The URL that the settings mean: SQLite at `sqlite_path` unless `database_url` is given.

    Raises:
        Unsupported: it is no URL, or another kind of database's.
    """
    if not database_url:
        return URL.create("sqlite", database=str(sqlite_path))
    try:
        url = make_url(database_url)
    except ArgumentError as error:
        raise Unsupported("the database URL cannot be read") from error
    if url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != "sqlite":
        raise Unsupported(f"databases of kind {url.get_backend_name()!r} are not supported")
    if not url.database or url.database == ":memory:":
        raise Unsupported("the database must be a file: sqlite:////path/to/registry.db")
    return url


def open_catalog(database_url: str, sqlite_path: Path, limits: Database | None = None) -> Catalog:
    """Open the catalog, whose schema `migrate.upgrade` has brought up to date.

    Raises:
        Unsupported: see `resolve`.
        Unavailable: the database cannot be opened.
    """
    url = resolve(database_url, sqlite_path)
    if url.get_backend_name() == "postgresql":
        knobs = limits or Database()
        return PostgresCatalog(
            url, knobs.lock_s, readers=knobs.readers, statement_s=knobs.statement_s
        )
    return SqliteCatalog(Path(url.database or sqlite_path))
