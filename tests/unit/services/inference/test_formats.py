"""Schemas are checked in bounded time before an engine has to keep to them."""

import json
import time
from typing import Any

import pytest

from registry.core.errors import RequestInvalid
from registry.core.gojson import Raw
from registry.services.inference.formats import ANY_OBJECT, schema_of

TEXTS = [{"type": "string", "pattern": f"(a|b){{1,{n}}}c"} for n in range(1, 40)]


def read(schema: Any) -> Any:
    return schema_of(Raw(json.dumps(schema).encode()))


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"a": {"enum": [1, "x", None]}}, "required": ["a"]},
        {"type": "array", "items": {"type": "number"}, "minItems": 2},
        {"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a"},
        {"anyOf": [{"type": "integer"}, {"type": "string", "format": "date"}]},
        {"type": "object", "properties": dict(zip("abcdefghijklmnopq", TEXTS, strict=False))},
        {"x-guidance": {"whitespace_flexible": True}, "type": "string"},
    ],
)
def test_what_can_be_kept_to_passes_with_white_space_off(schema: dict[str, Any]) -> None:
    assert read(schema) == {**schema, "x-guidance": {"whitespace_flexible": False}}


def test_json_is_any_object() -> None:
    assert schema_of(Raw(b' "json" ')) is ANY_OBJECT
    assert schema_of(None) is None


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"allOf": TEXTS}, "combines more than 12 patterns"),
        (
            {"allOf": [{"properties": {"x": text}} for text in TEXTS]},
            "combines more than 12 patterns",
        ),
        (
            {
                "$ref": "#/$defs/d0",
                "$defs": {
                    f"d{n}": {"$ref": f"#/$defs/d{n + 1}", **text} for n, text in enumerate(TEXTS)
                },
            },
            "combines more than 12 patterns",
        ),
        (
            {"allOf": [{"patternProperties": {text["pattern"]: {}}} for text in TEXTS]},
            "combines more than 12 patterns",
        ),
        ({"anyOf": []}, "anyOf is empty"),
        ({"type": "object", "x-guidance": 5, "properties": 5}, "invalid JSON schema in format"),
        ({"maximum": 10**300}, "invalid JSON schema in format"),
    ],
)
def test_what_costs_too_much_or_means_nothing_is_refused_at_once(
    schema: dict[str, Any], message: str
) -> None:
    began = time.monotonic()
    with pytest.raises(RequestInvalid, match=message):
        read(schema)
    assert time.monotonic() - began < 1
