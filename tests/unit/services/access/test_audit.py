"""The audit: entries in order, texts that a database takes, keys left out."""

import time

import pytest

from registry.ports.accounts import AuditEntry
from registry.ports.catalog import Catalog
from registry.services.access import audit as module
from registry.services.access.audit import Audit
from registry.settings import Retention

pytestmark = pytest.mark.anyio

NS = 10**9


def entry(number: int = 0, target: str = "t") -> AuditEntry:
    return AuditEntry(number, "alice", "password", "::1", "put", target, "done", "r1")


async def test_entries_are_read_newest_first_and_page_by_page(accounts_catalog: Catalog) -> None:
    audit = Audit(accounts_catalog, Retention(), time.time_ns)
    for number in range(10):
        audit.record(entry(number))
    first = await audit.entries(limit=4)
    second = await audit.entries(first[-1].id, 4)
    assert [one.at for one in first + second] == [9, 8, 7, 6, 5, 4, 3, 2]
    await audit.close()


async def test_what_was_recorded_is_there_after_close(accounts_catalog: Catalog) -> None:
    audit = Audit(accounts_catalog, Retention(), time.time_ns)
    audit.record(entry(5))
    await audit.close()
    (found,) = await Audit(accounts_catalog, Retention(), time.time_ns).entries()
    assert (found.at, found.who, found.request_id) == (5, "alice", "r1")


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("x" * 9999, "x" * 512),
        ("\ud800\0é", "?é"),
        ("GET /v2/?key=hf_" + "aB3" * 13, "GET /v2/?key=hf_…"),
    ],
)
async def test_texts_are_made_harmless(accounts_catalog: Catalog, target: str, kept: str) -> None:
    audit = Audit(accounts_catalog, Retention(), time.time_ns)
    audit.record(entry(target=target))
    assert [one.target for one in await audit.entries()] == [kept]
    await audit.close()


@pytest.mark.parametrize(
    ("kept", "left"), [({"audit_entries": 3}, [8, 7, 6]), ({"audit_s": 2}, [8, 7]), ({}, 9)]
)
async def test_old_entries_are_dropped(
    accounts_catalog: Catalog,
    kept: dict[str, int],
    left: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_TRIMMED", 2)
    audit = Audit(accounts_catalog, Retention(**kept), lambda: 9 * NS)
    for number in range(9):
        audit.record(entry(number * NS))
    await audit.entries()
    await audit.trim()
    found = [one.at // NS for one in await audit.entries()]
    assert left in (found, len(found))
    await audit.close()
