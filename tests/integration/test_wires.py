"""Database and object store behind a wire that is slow, silent, broken or not there.

Whoever asks gets an answer, or in time an error that says to ask again; when the wire is well, so
is the service, without a restart.
"""

import hashlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy.engine import URL, make_url

from registry.adapters import postgres as adapter
from registry.adapters import s3_client
from registry.adapters.blobs_s3 import S3BlobStore
from registry.adapters.catalog_postgres import PostgresCatalog
from registry.adapters.migrate import upgrade
from registry.adapters.s3_client import S3Bucket, connect
from registry.core.errors import Unavailable
from registry.core.names import RepositoryName
from registry.core.storage_url import S3Url
from registry.ports.catalog import Reader, Repository, Transaction
from tests.support.asgi import Caller
from tests.support.postgres import PostgresServer
from tests.support.s3 import KEYS, S3Server
from tests.support.site import HOST, site
from tests.support.wire import Wire, wire

pytestmark = pytest.mark.anyio

WAIT_S = 1.0
MARGIN_S = 0.5
BOUND_S = 30.0  # far above what is waited for: the machine may be busy
NAME = RepositoryName.parse("team/m")
DATA = bytes(range(256)) * 4000


@pytest.fixture
def database(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Wire, URL]]:
    """The wire to an empty database, and its address at this end of it."""
    monkeypatch.setattr(adapter, "_MARGIN_S", MARGIN_S)
    with postgres.database() as text:
        url = make_url(text)
        upgrade(url.set(drivername="postgresql+psycopg"))
        with wire(f"{url.query['host']}/.s.PGSQL.5432") as made:
            query = {"connect_timeout": "2", "sslmode": "disable"}
            yield made, url.set(host="127.0.0.1", port=made.port, query=query)


@asynccontextmanager
async def catalog_at(url: URL) -> AsyncIterator[PostgresCatalog]:
    catalog = PostgresCatalog(url, WAIT_S, readers=2, statement_s=WAIT_S)
    try:
        yield catalog
    finally:
        await catalog.close()


def put(tx: Transaction) -> Repository:
    return tx.put_repository(NAME)


def find(tx: Reader) -> Repository | None:
    return tx.repository(NAME)


async def test_a_database_that_answers_late_is_waited_for(database: tuple[Wire, URL]) -> None:
    line, url = database
    async with catalog_at(url) as catalog:
        line.delay_s = 0.3
        made = await catalog.write(put)
        assert await catalog.read(find) == made


async def test_a_silent_database_is_unavailable_in_time_and_then_well_again(
    database: tuple[Wire, URL],
) -> None:
    line, url = database
    async with catalog_at(url) as catalog:
        made = await catalog.write(put)
        line.is_silent = True
        began = time.monotonic()
        for asked in (catalog.read(find), catalog.write(put)):
            with pytest.raises(Unavailable):
                await asked
        assert time.monotonic() - began < BOUND_S
        line.is_silent = False
        assert await catalog.read(find) == made
        assert await catalog.write(put) == made


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_connection_cut_at_a_commit_does_not_hide_what_became_of_it(
    database: tuple[Wire, URL], arrives: bool
) -> None:
    line, url = database
    runs = 0

    def work(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        tx.put_repository(NAME)

    async with catalog_at(url) as catalog:
        line.cut_on, line.passes_cut = b"COMMIT", arrives
        failed = False
        try:
            await catalog.write(work)
        except Unavailable:
            failed = True
        assert line.cuts == 1
        found = await catalog.read(find)
        assert (found is None) == failed == (not arrives), "what the caller is told is true"
        assert runs == 1
        await catalog.write(work)
        assert await catalog.read(find) is not None


async def test_a_database_that_is_not_there_is_told_with_503(
    database: tuple[Wire, URL], tmp_path: Path
) -> None:
    line, url = database
    text = url.render_as_string(hide_password=False)
    wait = {"statement_s": WAIT_S, "lock_s": WAIT_S}
    async with site(tmp_path, auth=False, database_url=text, database=wait) as library:
        ask = Caller(library.app, {"host": HOST})
        line.refuses = True
        line.cut()
        asked = [("GET", "/v2/team/m/manifests/v1"), ("POST", "/v2/team/m/blobs/uploads/")]
        for method, path in asked:
            answer = await ask(method, path)
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
            assert b"127.0.0.1" not in answer.body
        line.refuses = False
        assert [(await ask(method, path)).status for method, path in asked] == [404, 202]


@pytest.fixture
def objects(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Wire, S3BlobStore]]:
    """The wire to an object store, and a blob store at this end of it."""
    monkeypatch.setattr(s3_client, "_READ_S", WAIT_S)
    monkeypatch.setattr(s3_client, "_PATIENCE_S", WAIT_S)
    name = s3.bucket()
    with wire(s3.endpoint.removeprefix("http://")) as made:
        place = S3Url.parse(f"s3://{name}/models?endpoint=http://127.0.0.1:{made.port}")
        store = S3BlobStore(S3Bucket(connect(place, KEYS), name, "models"))
        yield made, store
        store.close()


async def stored(store: S3BlobStore) -> str:
    incoming = await store.create()
    try:
        await incoming.write(DATA)
        return await incoming.publish(await incoming.seal())
    finally:
        await incoming.close()


async def content(store: S3BlobStore, key: str) -> str:
    async with await store.open(key) as opened:
        return hashlib.sha256(await opened.read(0, opened.size)).hexdigest()


async def test_an_object_store_that_answers_late_is_waited_for(
    objects: tuple[Wire, S3BlobStore],
) -> None:
    line, store = objects
    line.delay_s = WAIT_S * 0.7
    assert await content(store, await stored(store)) == hashlib.sha256(DATA).hexdigest()


async def test_a_silent_object_store_is_unavailable_in_time_and_then_well_again(
    objects: tuple[Wire, S3BlobStore],
) -> None:
    line, store = objects
    key = await stored(store)
    line.is_silent = True
    began = time.monotonic()
    for asked in (content(store, key), stored(store)):
        with pytest.raises(Unavailable):
            await asked
    assert time.monotonic() - began < BOUND_S
    line.is_silent = False
    line.cut()
    assert await content(store, await stored(store)) == hashlib.sha256(DATA).hexdigest()


async def test_an_answer_of_an_object_store_that_breaks_off_is_asked_for_again(
    objects: tuple[Wire, S3BlobStore],
) -> None:
    line, store = objects
    key = await stored(store)
    line.cut_after = len(DATA) // 2
    assert await content(store, key) == hashlib.sha256(DATA).hexdigest()
    assert line.cuts == 1
