"""`format`: what an answer must look like, checked before an engine is asked to keep to it.

The engine passes over a schema that it cannot compile without a word: so it is compiled here first.

Source: spec ollama-api 14.2 row 17, inference-and-gguf 12.3.
"""

import json
from collections.abc import Mapping
from typing import Any

import llguidance

from registry.core.errors import OperationFailed, RequestInvalid
from registry.core.gojson import Raw
from registry.core.gotext import quote

_LARGEST = 1 << 16
_DEEPEST = 64
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
    strict = {**schema, **_STRICT}
    try:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(strict)
        fault = llguidance.LLMatcher.validate_grammar(grammar, None)
    except ValueError as error:
        raise RequestInvalid(f"invalid JSON schema in format: {error}") from error
    if fault:
        raise RequestInvalid(f"invalid JSON schema in format: {fault.strip()}")
    return strict


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
