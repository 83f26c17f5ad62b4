"""What a database says of its own health."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass

import psycopg
from sqlalchemy.engine import URL

from registry.adapters.postgres import connect, translated
from registry.core.errors import Unavailable

_OLDEST = 13


@dataclass(frozen=True, slots=True)
class Health:
    """`faults` are contradictions in the file, `risks` settings that may lose what was answered.

    `now` is the server's clock in seconds; None where it is this machine's own.
    """

    version: str
    faults: tuple[str, ...] = ()
    risks: tuple[str, ...] = ()
    now: float | None = None


def health(url: URL, *, deep: bool = False) -> Health:
    """Ask the database; `deep` reads all of an SQLite file.

    Raises:
        Unavailable: it cannot be asked.
    """
    return _postgres(url) if url.get_backend_name() == "postgresql" else _sqlite(url, deep)


def _sqlite(url: URL, deep: bool) -> Health:
    check = "integrity_check" if deep else "quick_check"
    try:
        with closing(sqlite3.connect(url.database or "", timeout=5.0)) as connection:
            rows = connection.execute(f"PRAGMA {check}(5)").fetchall()
            broken = connection.execute("PRAGMA foreign_key_check").fetchmany(5)
    except sqlite3.Error as error:
        raise Unavailable(f"the database cannot be read: {error}") from error
    faults = [str(text) for (text,) in rows if text != "ok"]
    faults += [f"a row of {row[0]} refers to nothing in {row[2]}" for row in broken]
    return Health(f"SQLite {sqlite3.sqlite_version}", tuple(faults))


def _postgres(url: URL) -> Health:
    try:
        with closing(connect(url, 5.0)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('server_version'), "
                "current_setting('server_version_num')::int / 10000, "
                "current_setting('fsync'), current_setting('full_page_writes'), "
                "extract(epoch FROM clock_timestamp())::float8, pg_is_in_recovery()"
            )
            version, major, fsync, pages, now, standby = cursor.fetchall()[0]
    except psycopg.Error as error:
        raise translated(error) from error
    risks = []
    if major < _OLDEST:
        risks.append(f"this version is older than {_OLDEST}, which is not tried")
    if fsync != "on" or pages != "on":
        risks.append("fsync or full_page_writes is off: a power cut may lose or damage everything")
    if standby:
        risks.append("it is a standby, which cannot be written")
    return Health(f"Postgres {version}", (), tuple(risks), float(now))
