"""A Postgres server of the tests' own: Debian's binaries, a passing folder, a Unix socket."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import psycopg
from sqlalchemy.engine import URL

from registry.adapters.tables import metadata

_DEBIAN = Path("/usr/lib/postgresql")
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",  # the tests end processes, not machines
    "max_connections": "200",
    "shared_buffers": "32MB",
}


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`, newest version first; None if there is none."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return versions[-1].parent if versions else None


class PostgresServer:
    """A server that can be stopped and started again. Databases are made with `database()`."""

    def __init__(self, tools: Path, folder: Path) -> None:
        self._tools = tools
        self._folder = folder
        self._user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        self._process: subprocess.Popen[bytes] | None = None
        if os.getuid() == 0:  # the server refuses to run as root
            shutil.chown(folder, self._user)
        command = [tools / "initdb", "-D", folder / "data", "-A", "trust", "-U", "postgres"]
        self._run([*map(str, command), "--no-sync", "-E", "UTF8", "--locale=C"]).wait(60)

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        user = self._user if os.getuid() == 0 else None
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(command, user=user, cwd=self._folder, stdout=log, stderr=log)

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = [f"-c{name}={value}" for name, value in _SETTINGS.items()]
        self._process = self._run(
            [str(self._tools / "postgres"), "-D", "data", "-k", str(self._folder), *settings]
        )
        for _ in range(200):
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url("postgres").render_as_string()).close()
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
        raise AssertionError((self._folder / "log").read_text())

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it at once: connections break. With SIGQUIT it is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def freeze(self) -> None:
        """All its processes stand still: connections stay, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """They go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, what: signal.Signals) -> None:
        assert self._process is not None
        parent = self._process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for process in (parent, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, what)

    def url(self, database: str) -> URL:
        """Where a database is."""
        query = {"host": str(self._folder)}
        return URL.create("postgresql", "postgres", database=database, query=query)

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new, empty database, as an operator writes it."""
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(self.url("postgres").render_as_string(), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield self.url(name).render_as_string()
        finally:
            with psycopg.connect(self.url("postgres").render_as_string(), autocommit=True) as admin:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def clear(self, url: str) -> str:
        """Take all rows out of a database's tables, all replicas' connections cut off; the schema.

        Raises:
            UndefinedTable: it has not all tables of today.
        """
        tables = ", ".join(f'"{name}"' for name in metadata.tables)
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
                "datname = current_database() AND pid <> pg_backend_pid()"
            )
            admin.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE".encode())
            return str(admin.execute("SELECT version_num FROM alembic_version").fetchall()[0][0])


@contextlib.contextmanager
def running(tools: Path) -> Generator[PostgresServer]:
    """A started server, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        server = PostgresServer(tools, Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
