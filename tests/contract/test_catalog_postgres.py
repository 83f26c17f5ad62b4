"""The contract on Postgres, and what only Postgres does: replicas, a server that goes away."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from registry.adapters.catalog_postgres import PostgresCatalog
from registry.adapters.catalog_sql import open_catalog, resolve
from registry.adapters.postgres import connect, translated
from registry.core.errors import Conflict, Unavailable
from registry.ports.catalog import Catalog, Transaction
from registry.ports.transfers import Upload
from registry.settings import Database
from tests.contract.catalog import CatalogContract
from tests.support.catalog_rows import digest, put_blob, put_model
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.anyio
NOWHERE = Path("not used")
_HOLD = """
import psycopg, sys, time
holder = psycopg.connect(sys.argv[1])
holder.execute("SELECT pg_advisory_xact_lock(%s)" % sys.argv[2])
print(flush=True)
time.sleep(60)
"""


@pytest.fixture
def url(postgres: PostgresServer, migrated: str) -> Iterator[str]:
    yield migrated
    postgres.clear(migrated)


@pytest.fixture
async def catalog(url: str) -> AsyncIterator[Catalog]:
    catalog = open_catalog(url, NOWHERE)
    yield catalog
    await catalog.close()


@pytest.fixture
async def other(url: str) -> AsyncIterator[Catalog]:
    """Another replica."""
    catalog = open_catalog(url, NOWHERE)
    yield catalog
    await catalog.close()


class TestPostgresCatalog(CatalogContract):
    """The contract."""


class TestReplicas:
    async def test_writes_of_two_replicas_are_seen_by_both(
        self, catalog: Catalog, other: Catalog
    ) -> None:
        for number in range(5):
            for writer, reader in ((catalog, other), (other, catalog)):
                before, word = reader.version(), f"{number} {id(writer)}"
                await writer.write(lambda tx, w=word: put_blob(tx, w))  # type: ignore[misc]
                assert reader.version() != before
                assert await reader.read(lambda tx, w=word: tx.blob(digest(w)))  # type: ignore[misc]

    async def test_two_replicas_write_at_once(self, catalog: Catalog, other: Catalog) -> None:
        async def push(writer: Catalog, name: str) -> None:
            for number in range(30):
                path = f"team/{name}{number}"
                await writer.write(partial(put_model, path=path, tag="latest", word=path))

        await asyncio.gather(push(catalog, "a"), push(other, "b"), push(other, "c"))
        assert len(await catalog.scan(lambda tx: tx.models())) == 90

    async def test_what_a_write_has_read_stays_true_until_it_commits(
        self, catalog: Catalog, other: Catalog
    ) -> None:
        def take(tx: Transaction) -> int:
            number = next(n for n in range(100) if tx.secret(str(n)) is None)
            tx.put_secret(str(number), b"taken")
            return number

        both = (one.write(take) for one in (catalog, other) for _ in range(40))
        assert sorted(await asyncio.gather(*both)) == list(range(80))


class TestFailures:
    async def test_a_server_that_restarts_is_waited_for(
        self, catalog: Catalog, postgres: PostgresServer
    ) -> None:
        await catalog.write(lambda tx: put_blob(tx, "before"))
        postgres.stop()
        write = asyncio.ensure_future(catalog.write(lambda tx: put_blob(tx, "w")))
        with pytest.raises(Unavailable, match="cannot be reached"):
            await catalog.read(lambda tx: tx.blob(digest("before")))
        with pytest.raises(Unavailable):
            catalog.version()
        await asyncio.to_thread(postgres.start)
        assert (await write).digest == digest("w")
        assert await catalog.read(lambda tx: tx.blob(digest("before")))
        await _version_again(catalog)

    async def test_a_server_that_stays_away_makes_everything_unavailable(
        self, url: str, postgres: PostgresServer
    ) -> None:
        catalog = PostgresCatalog(resolve(url, NOWHERE), busy_s=0.3)
        postgres.stop()
        try:
            for work in (catalog.check(), catalog.read(lambda tx: None)):
                with pytest.raises(Unavailable) as caught:
                    await work
                assert "pg-" not in str(caught.value)
        finally:
            await asyncio.to_thread(postgres.start)
        await catalog.check()
        await catalog.close()

    async def test_a_connection_that_is_cut_off_costs_nothing(
        self, catalog: Catalog, url: str
    ) -> None:
        for number in range(5):
            with psycopg.connect(url) as admin:
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
                    "datname = current_database() AND pid <> pg_backend_pid()"
                )
            await catalog.write(lambda tx, n=number: put_blob(tx, str(n)))  # type: ignore[misc]
            assert await catalog.read(lambda tx, n=number: tx.blob(digest(str(n))))  # type: ignore[misc]

    async def test_a_contradiction_is_a_conflict(self, catalog: Catalog) -> None:
        upload = Upload("u", 999, "", 1, 2)
        with pytest.raises(Conflict):
            await catalog.write(lambda tx: tx.put_upload(upload))

    async def test_somebody_who_holds_the_lock_is_not_waited_for_for_ever(self, url: str) -> None:
        catalog = PostgresCatalog(resolve(url, NOWHERE), busy_s=0.2)
        code = "import psycopg, sys, time; c = psycopg.connect(sys.argv[1]); c.execute("
        code += (
            "'SELECT pg_advisory_xact_lock(%s)' % sys.argv[2]); print(flush=True); time.sleep(60)"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, url, str(0x7265_6769_7374_7279)], stdout=subprocess.PIPE
        ) as other:
            assert other.stdout is not None
            other.stdout.readline()
            with pytest.raises(Unavailable, match="busy"):
                await catalog.check()
            assert await catalog.read(lambda tx: tx.secret("s")) is None
            other.kill()
        await catalog.check()
        await catalog.close()

    async def test_as_many_connections_as_the_settings_say(self, url: str) -> None:
        catalog = open_catalog(url, NOWHERE, Database(readers=2))
        await asyncio.gather(*(catalog.read(lambda tx: time.sleep(0.02)) for _ in range(20)))
        with psycopg.connect(url) as admin:
            row = admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE "
                "datname = current_database() AND application_name = 'registry'"
            ).fetchone()
        assert row == (2 + 2,)  # the writer, and the one that tells the version
        await catalog.close()

    def test_a_statement_that_takes_too_long_is_ended(self, url: str) -> None:
        with connect(resolve(url, NOWHERE), 1, 0.1) as connection:
            with pytest.raises(psycopg.errors.QueryCanceled) as caught:
                connection.execute("SELECT pg_sleep(9)")
            assert str(translated(caught.value)) == "the database is busy"

    def test_a_server_that_is_not_there(self) -> None:
        with pytest.raises(Unavailable, match="cannot be reached"):
            open_catalog("postgresql:///d?host=/nonexistent", NOWHERE)


async def _version_again(catalog: Catalog) -> None:
    for _ in range(100):
        try:
            catalog.version()
        except Unavailable:
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("the version stays away")


class TestTime:
    async def test_it_is_the_servers_whatever_this_machine_says(
        self, catalog: Catalog, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: 0)
        monkeypatch.setattr(time, "time", lambda: 0.0)
        with psycopg.connect(url) as admin:
            ((now,),) = admin.execute("SELECT extract(epoch FROM clock_timestamp())").fetchall()
        assert abs(catalog.now() - int(now * 10**9)) < 5 * 10**9
