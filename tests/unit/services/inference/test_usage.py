"""The books: added up in memory, written behind, added up again for whoever asks."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.errors import Unavailable
from registry.core.names import ModelName
from registry.ports.catalog import Catalog
from registry.ports.fleet import HOUR_NS, Usage
from registry.services.inference.metering import Use
from registry.services.inference.usage import Ledger, summed
from tests.support.backends import BACKENDS

pytestmark = pytest.mark.anyio
TINY = ModelName.parse("tiny")


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    catalog = BACKENDS.catalog(tmp_path)
    yield catalog
    await catalog.close()


def use(account: str = "ann", tokens: int = 2) -> Use:
    return Use(TINY, "gpu", account, 0.0, prompt_tokens=5, tokens=tokens)


async def test_leases_of_one_hour_and_kind_are_one_row(catalog: Catalog) -> None:
    now = 3 * HOUR_NS + 5
    ledger = Ledger(catalog, lambda: now)
    for _ in range(3):
        ledger.record(use(), 0.5)
    ledger.record(use("bob"), 0.25)
    assert await ledger.rows(0, 9 * HOUR_NS) == [
        Usage(3 * HOUR_NS, "ann", "tiny:latest", "gpu", 3, 15, 6, 1500),
        Usage(3 * HOUR_NS, "bob", "tiny:latest", "gpu", 1, 5, 2, 250),
    ]
    now = 4 * HOUR_NS
    ledger.record(use(), 0.0)
    await ledger.close()
    rows = await ledger.rows(0, 9 * HOUR_NS)
    assert [row.hour // HOUR_NS for row in rows] == [4, 3, 3]
    assert await ledger.totals(0, 9 * HOUR_NS, "model") == [
        Usage(0, "", "tiny:latest", "", 5, 25, 10, 1750)
    ]
    now = 500 * 24 * HOUR_NS
    await ledger.trim()
    assert await ledger.rows(0, 9 * HOUR_NS) == []


async def test_what_cannot_be_written_is_kept(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(catalog, lambda: 0)
    ledger.record(use(), 1.0)

    async def refuse(work: object) -> None:
        ledger.record(use(), 1.0)
        raise Unavailable("locked")

    with monkeypatch.context() as patch:
        patch.setattr(catalog, "write", refuse)
        await ledger.flush()
    await ledger.close()
    assert (await ledger.rows(0, 1))[0].requests == 2


async def test_more_kinds_than_can_be_kept_are_dropped(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.services.inference.usage._KEYS_MAX", 2)
    ledger = Ledger(catalog, lambda: 0)
    for name in ("ann", "bob", "eve", "ann"):
        ledger.record(use(name), 1.0)
    await ledger.close()
    rows = await ledger.rows(0, 1)
    assert {row.account: row.requests for row in rows} == {"ann": 2, "bob": 1}


def test_rows_are_added_up_over_what_is_not_asked_for() -> None:
    rows = [
        Usage(2, "ann", "a", "gpu", 1, 1, 1, 1),
        Usage(1, "bob", "a", "cpu", 1, 1, 5, 1),
        Usage(1, "ann", "b", "gpu", 1, 1, 1, 1),
    ]
    assert [(row.model, row.tokens) for row in summed(rows, ["model"])] == [("a", 6), ("b", 1)]
    assert [(row.account, row.requests) for row in summed(rows, ["account"])] == [
        ("bob", 1),
        ("ann", 2),
    ]
    assert [row.hour for row in summed(rows, ["hour"])] == [2, 1]
    assert summed([], ["worker"]) == []
