"""Dumps: every value comes back, and what is damaged is told before anything is done with it."""

import json
from collections.abc import Iterable

import pytest

from registry.core.dump import Counts, Item, Summary, Table, decode, encode
from registry.core.errors import OperationFailed

ALL = Table("all", (("t", "text"), ("n", "number"), ("f", "flag"), ("b", "bytes")), 7)
EMPTY = Table("empty", (("t", "text"),))
ITEMS: list[Item] = [
    (ALL, None),
    (ALL, ("ü\n\0", -(2**63), True, b"\0\xff")),
    (ALL, (None, None, None, None)),
    (EMPTY, None),
]


def dumped(items: Iterable[Item] = ITEMS) -> list[bytes]:
    return list(encode(items, Counts()))


def test_what_is_dumped_comes_back() -> None:
    counts = Counts()
    lines = list(encode(ITEMS, counts))
    assert list(decode(lines)) == ITEMS
    assert counts.rows == {"all": 2, "empty": 0}
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)


def test_a_row_is_read_by_column() -> None:
    assert ALL.named(("x", 1, False, b"")) == {"t": "x", "n": 1, "f": False, "b": b""}


def test_what_is_no_value_of_a_database_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError):
        dumped([(EMPTY, None), (EMPTY, ({1, 2},))])


def changed(position: int, line: bytes) -> list[bytes]:
    lines = dumped()
    lines[position : position + 1] = [line] if line else []
    return lines


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"garbage"],
        [b"7"],
        [b"[1]"],
        dumped()[:-1],
        changed(1, b""),
        changed(1, b'["x", 1, true]'),
        changed(1, b'["x", "1", true, ""]'),
        changed(1, b'["x", 1, 1, ""]'),
        changed(1, b'["x", 1, true, "***"]'),
        changed(0, b'{"table": 7, "columns": [], "next": null}'),
        changed(0, b'{"table": "a", "columns": 7, "next": null}'),
        changed(0, b'{"table": "a", "columns": [["t"]], "next": null}'),
        changed(0, b'{"table": "a", "columns": [["t", "money"]], "next": null}'),
        changed(0, b'{"table": "a", "columns": [], "next": "7"}'),
        changed(0, b'{"other": "a"}'),
    ],
)
def test_a_damaged_dump_is_told(lines: list[bytes]) -> None:
    with pytest.raises(OperationFailed, match="damaged"):
        list(decode(lines))


SUMMARY = Summary("t", "1.0", "0008", f"database-{'a' * 12}.jsonl.gz", "b", {"a": 1}, 2, 3, True)


def test_a_summary_is_read_again() -> None:
    assert Summary.from_json(SUMMARY.to_json()) == SUMMARY


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format"),
        ({"database": "../secret"}, "damaged"),
        ({"schema": 7}, "damaged"),
        ({"surplus": 1}, "damaged"),
    ],
)
def test_a_summary_that_cannot_be_ours_is_told(change: dict[str, object], said: str) -> None:
    with pytest.raises(OperationFailed, match=said):
        Summary.from_json(json.dumps(json.loads(SUMMARY.to_json()) | change).encode())


@pytest.mark.parametrize("content", [b"", b"7", b"[]", b"{", b'{"format": 1}'])
def test_what_is_no_summary_is_told(content: bytes) -> None:
    with pytest.raises(OperationFailed):
        Summary.from_json(content)
