"""A dump of a database: tables and their rows as lines of text, the same for every database.

    {"table": "blob", "columns": [["digest", "text"], …], "next": null}     a table begins
    ["sha256:…", 12, …]                                                     one of its rows
    {"end": {"blob": 1, …}}                                                 the last line

A value is what JSON has for it; bytes are Base64. `next` is the number that a numbered table gives
out next, which may be far beyond its rows: numbers are never given twice.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import orjson

from registry.core.errors import OperationFailed

MAX_LINE = 256 << 20
"""Bytes of a row: the content of a text layer at most, in Base64."""
_KINDS = {"text": str, "number": int, "flag": bool, "bytes": str}
_BROKEN = "the backup is damaged: "
_SILENT = _BROKEN + "it does not say what is in it"
_LATER = "the backup is of a format that this version does not know"
_FILE = re.compile(r"database-[0-9a-f]{12}\.jsonl\.gz")
FORMAT = 1

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a dump. A column is its name and its kind: text, number, flag or bytes."""

    name: str
    columns: tuple[tuple[str, str], ...]
    next: int | None = None

    def named(self, row: Row) -> dict[str, Any]:
        """A row by column."""
        return dict(zip((name for name, _ in self.columns), row, strict=True))


@dataclass(frozen=True, slots=True)
class Summary:
    """What a backup says of itself: the file of its database, and what is in it."""

    made_at: str
    version: str  # of the program
    schema: str
    database: str  # the file's name
    sha256: str
    rows: dict[str, int]
    blobs: int
    blob_bytes: int
    with_blobs: bool
    format: int = FORMAT

    def to_json(self) -> bytes:
        """Its text."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2) + b"\n"

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read it.

        Raises:
            OperationFailed: it is none, or one of a later format.
        """
        try:
            value = orjson.loads(content)
            if isinstance(value, dict) and value.get("format") != FORMAT:
                raise OperationFailed(_LATER)
            found = cls(**value)
        except (ValueError, TypeError) as error:
            raise OperationFailed(_SILENT) from error
        if not _FILE.fullmatch(str(found.database)) or not isinstance(found.schema, str):
            raise OperationFailed(_SILENT)
        return found


Item = tuple[Table, Row | None]
"""A table's row; None as its first, so that an empty table is told too."""


@dataclass(slots=True)
class Counts:
    """Rows by table, counted as they pass."""

    rows: dict[str, int] = field(default_factory=dict)

    def add(self, table: Table, row: Row | None) -> None:
        """Count one."""
        self.rows[table.name] = self.rows.get(table.name, 0) + (row is not None)


def encode(items: Iterable[Item], counts: Counts) -> Iterator[bytes]:
    """The lines of a dump."""
    for table, row in items:
        counts.add(table, row)
        if row is None:
            head = {"table": table.name, "columns": table.columns, "next": table.next}
            yield orjson.dumps(head) + b"\n"
        else:
            yield orjson.dumps(row, default=_text) + b"\n"
    yield orjson.dumps({"end": counts.rows}) + b"\n"


def _text(value: object) -> str:
    if not isinstance(value, bytes | memoryview):
        raise TypeError
    return base64.b64encode(value).decode()


def decode(lines: Iterable[bytes]) -> Iterator[Item]:
    """What a dump says.

    Raises:
        OperationFailed: it is not whole, or no dump.
    """
    table: Table | None = None
    counts = Counts()
    for line in lines:
        value = _json(line)
        if isinstance(value, list) and table is not None:
            row = _row(table, value)
            counts.add(table, row)
            yield table, row
        elif isinstance(value, dict) and "table" in value:
            table = _table(value)
            counts.add(table, None)
            yield table, None
        elif isinstance(value, dict) and value.get("end") == counts.rows:
            return
        else:
            raise OperationFailed(_BROKEN + "its database has a line that means nothing")
    raise OperationFailed(_BROKEN + "its database ends too early")


def _json(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except ValueError as error:
        raise OperationFailed(_BROKEN + "its database has a line that is no JSON") from error


def _table(value: dict[str, Any]) -> Table:
    name, columns, number = value["table"], value.get("columns"), value.get("next")
    if (
        not isinstance(name, str)
        or not isinstance(columns, list)
        or not all(_is_column(column) for column in columns)
        or not isinstance(number, int | None)
    ):
        raise OperationFailed(_BROKEN + "its database has a table that means nothing")
    return Table(name, tuple((name, kind) for name, kind in columns), number)


def _is_column(column: Any) -> bool:
    return (
        isinstance(column, list)
        and len(column) == 2
        and isinstance(column[0], str)
        and column[1] in _KINDS
    )


def _row(table: Table, values: list[Any]) -> Row:
    if len(values) != len(table.columns):
        raise OperationFailed(_BROKEN + f"a row of {table.name} has not its columns")
    return tuple(
        _value(table, kind, value) for (_, kind), value in zip(table.columns, values, strict=True)
    )


def _value(table: Table, kind: str, value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, _KINDS[kind]):
        raise OperationFailed(_BROKEN + f"a value of {table.name} is no {kind}")
    if kind != "bytes":
        return value
    try:
        return base64.b64decode(str(value), validate=True)
    except binascii.Error as error:
        raise OperationFailed(_BROKEN + f"a value of {table.name} is not Base64") from error
