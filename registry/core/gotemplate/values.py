"""What a template can see: nil, bool, int, float, complex and str, and the three kinds below.

Nothing else is ever handed to a template, and of these only what `field` gives can be reached, so
no attribute of a Python object is. None is nil. A text may hold single bytes as lone surrogates
(see `gotext.unquote`).

Source: package documentation of `text/template`; `tests/data/go-template-golden.json`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from registry.core.errors import OperationFailed
from registry.core.gojson import dumps

Value = Any
"""One of the kinds above; a union that holds itself is more than mypy's `isinstance` takes."""

_NESTING_LIMIT = 100


def failure(message: str) -> OperationFailed:
    """The error of a template that parses but cannot be rendered with these values."""
    return OperationFailed(f"template: {message}")


class Style(Enum):
    """How a slice or map prints: as Go does, as JSON, or a lone item bare (a property's type)."""

    GO = "go"
    JSON = "json"
    TYPE = "type"


@dataclass(frozen=True, slots=True)
class Slice:
    """A list. A nil one prints and counts like an empty one, but its JSON is null."""

    items: tuple[Value, ...]
    style: Style = Style.GO
    is_nil: bool = False


@dataclass(frozen=True, slots=True)
class Map:
    """A map with texts for keys; an absent one reads as nil."""

    items: Mapping[str, Value]
    style: Style = Style.GO


@dataclass(frozen=True, slots=True)
class Struct:
    """Named fields. It prints as JSON: `names` gives the JSON name of each field that has one.

    Fields in `omits_empty` are left out of the JSON when they are empty.
    """

    kind: str
    fields: Mapping[str, Value]
    names: Mapping[str, str]
    omits_empty: frozenset[str] = frozenset()


def is_true(value: Value) -> bool:
    """Go's truth: nil, false, zero and what is empty are false."""
    if isinstance(value, Slice | Map):
        return bool(value.items)
    return isinstance(value, Struct) or bool(value)


def wire(value: Value) -> Any:
    """`value` as plain JSON data, the keys in the order in which they are written."""
    if isinstance(value, Slice):
        if value.style is Style.TYPE and len(value.items) == 1:
            return value.items[0]
        return None if value.is_nil else [wire(item) for item in value.items]
    if isinstance(value, Map):
        return {key: wire(value.items[key]) for key in sorted(value.items)}
    if isinstance(value, Struct):
        return {
            name: wire(value.fields[field])
            for field, name in value.names.items()
            if field not in value.omits_empty or is_true(value.fields[field])
        }
    return value


def to_json(value: Value) -> str:
    """`value` as Go's `json.Marshal` writes it; what JSON cannot say becomes the empty text."""
    try:
        return dumps(wire(value)).decode()
    except ValueError:
        return ""


def from_json(data: Any, depth: int = 0) -> Value:
    """Plain JSON data as a value of type `any`: every number is a float.

    Raises:
        OperationFailed: nested deeper than 100 levels.
    """
    if depth > _NESTING_LIMIT:
        raise failure(f"a value nested deeper than {_NESTING_LIMIT} levels")
    if isinstance(data, Mapping):
        return Map({key: from_json(item, depth + 1) for key, item in data.items()})
    if isinstance(data, list | tuple):
        return Slice(tuple(from_json(item, depth + 1) for item in data))
    if isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    return data
