from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.adapters import migrate
from registry.adapters.catalog_sql import resolve
from tests.support.postgres import PostgresServer


@pytest.fixture(scope="session")
def migrated(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a database with the tables of today."""
    with postgres.database() as url:
        migrate.upgrade(resolve(url, Path()))
        yield url
