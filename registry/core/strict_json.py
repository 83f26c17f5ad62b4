"""JSON of strangers, read so that two readers cannot disagree about it, within bounded time.

Beyond RFC 8259: no key twice in one object, no nesting beyond `MAX_DEPTH`, integers within int64,
no `NaN`, no lone surrogates. The caller bounds the length of the text.
"""

import json
from collections.abc import Iterable
from typing import Any

import orjson

MAX_DEPTH = 32
INT64_MAX = (1 << 63) - 1


class JsonInvalid(ValueError):
    """A text that is not strict JSON; the message says why, without the text."""


def parse(text: bytes) -> Any:
    """Return what `text` (UTF-8) says, as `json.loads` would.

    Raises:
        JsonInvalid: it breaks one of the rules above.
    """
    try:
        # orjson refuses bad UTF-8, lone surrogates, NaN and nesting beyond 1,024 before the slower
        # reader, which tells duplicate keys and large integers, can trip over them.
        orjson.loads(text)
        value = json.loads(text, object_pairs_hook=_without_duplicates, parse_int=_int64)
    except JsonInvalid:
        raise
    except RecursionError as error:
        raise JsonInvalid(f"nested deeper than {MAX_DEPTH}") from error
    except ValueError as error:
        raise JsonInvalid(str(error)) from error
    _check_depth(value)
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JsonInvalid("a key stands twice in one object")
    return found


def _int64(digits: str) -> int:
    value = int(digits) if len(digits) <= 20 else INT64_MAX + 1
    if not -INT64_MAX - 1 <= value <= INT64_MAX:
        raise JsonInvalid("a number is out of range")
    return value


def _check_depth(value: Any) -> None:
    """Walk level by level: the stack stays flat whatever the nesting."""
    level = _containers([value])
    for _ in range(MAX_DEPTH):
        if not level:
            return
        level = [
            inner
            for outer in level
            for inner in _containers(outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise JsonInvalid(f"nested deeper than {MAX_DEPTH}")


def _containers(values: Iterable[Any]) -> list[dict[str, Any] | list[Any]]:
    return [value for value in values if isinstance(value, (dict, list))]
