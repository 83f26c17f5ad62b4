from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.adapters import migrate
from registry.adapters.catalog_sql import resolve
from tests.support.postgres import PostgresServer, binaries, running


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A Postgres server of the session's own."""
    tools = binaries()
    if tools is None:
        pytest.skip("Postgres is not installed here")
    with running(tools) as server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a database with the tables of today."""
    with postgres.database() as url:
        migrate.upgrade(resolve(url, Path()))
        yield url
