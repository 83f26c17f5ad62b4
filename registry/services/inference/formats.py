"""`format`: what an answer must look like, checked before an engine is asked to keep to it.

The engine passes over a schema that it cannot compile without a word: so it is compiled here first.

Source: spec ollama-api 14.2 row 17, inference-and-gguf 12.3.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import llguidance

from registry.core.errors import OperationFailed, RequestInvalid
from registry.core.gojson import Raw
from registry.core.gotext import quote

_LARGEST = 1 << 16
_DEEPEST = 64
_COMBINED = 12
"""So many patterns at once an engine finds the common strings of; time doubles with each more."""
_NONE = (b"null", b'""')
_SHOWN = 200
ENGINE_KEY = "x-guidance"
_STRICT = {ENGINE_KEY: {"whitespace_flexible": False}}
"""Free white space lets weak models write newlines until the limit."""
ANY_OBJECT: Mapping[str, Any] = {"type": "object", **_STRICT}


def schema_of(given: Raw | None) -> Mapping[str, Any] | None:
    """The schema that is asked for; None where the answer is free.

    Raises:
        OperationFailed: neither "json" nor an object.
        RequestInvalid: a schema that is too large, too deep or that no engine can keep to.
    """
    text = bytes(given).strip() if given is not None else b""
    if not text or text in _NONE:
        return None
    if text == b'"json"':
        return ANY_OBJECT
    if not text.startswith(b"{"):
        shown = quote(text[:_SHOWN].decode("utf-8", "replace"))
        raise OperationFailed(
            f'invalid format: {shown}; expected "json" or a valid JSON Schema object'
        )
    if len(text) > _LARGEST:
        raise RequestInvalid(f"the JSON schema in format is larger than {_LARGEST} bytes")
    if _depth(text) > _DEEPEST:
        raise RequestInvalid(f"the JSON schema in format is nested deeper than {_DEEPEST} levels")
    try:
        schema: dict[str, Any] = json.loads(text)
    except ValueError as error:  # more digits than an integer may have
        raise RequestInvalid("invalid JSON schema in format: it cannot be read") from error
    if len(_patterns(schema)) > _COMBINED and _combines(schema):
        raise RequestInvalid(
            f"the JSON schema in format combines more than {_COMBINED} patterns and formats"
        )
    strict = {**schema, **_STRICT}
    try:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(strict)
        fault = llguidance.LLMatcher.validate_grammar(grammar, None)
    except ValueError as error:
        raise RequestInvalid(f"invalid JSON schema in format: {error}") from error
    if fault:
        raise RequestInvalid(f"invalid JSON schema in format: {fault.strip()}")
    return strict


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """A value's objects at all depths."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            yield from _objects(item)


def _patterns(schema: dict[str, Any]) -> set[str]:
    """The different texts that strings are matched with."""
    found: set[str] = set()
    for item in _objects(schema):
        found |= {str(item[key]) for key in ("pattern", "format") if key in item}
        keyed = item.get("patternProperties")
        found |= set(keyed) if isinstance(keyed, dict) else set()
    return found


def _combines(schema: dict[str, Any]) -> bool:
    """Whether one string may have to match several of them at once."""
    return any("allOf" in item or ("$ref" in item and len(item) > 1) for item in _objects(schema))


def _depth(text: bytes) -> int:
    """How deep brackets are nested; those in strings count too, which only refuses more."""
    depth = deepest = 0
    for byte in text:
        if byte in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"}]":
            depth -= 1
    return deepest
