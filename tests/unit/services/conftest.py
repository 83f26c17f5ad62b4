"""An accounts service for the tests of its parts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.ports.catalog import Catalog
from registry.services.access.accounts import Accounts
from tests.support.accounts import Clock, new_accounts, new_catalog


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def accounts_catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    catalog = new_catalog(tmp_path)
    yield catalog
    await catalog.close()


@pytest.fixture
async def accounts(accounts_catalog: Catalog, clock: Clock) -> AsyncIterator[Accounts]:
    accounts = new_accounts(accounts_catalog, clock)
    yield accounts
    await accounts.close()
