"""Parts of reading that know no Go types: whole trees as Python values, base64 as Go reads it."""

import binascii
import re
from collections.abc import Callable
from typing import Any

from registry.core.gojson.syntax import JsonInvalid, Node, Number

_BASE64_RUN = re.compile(r"[A-Za-z0-9+/\r\n]*")
_NEWLINES = re.compile(r"[\r\n]*")


def build(node: Node, number: Callable[[Number], Any]) -> Any:
    """A tree as dicts and lists, each number by `number`; the last double of a key wins.

    Works without recursion: a body may nest 10,000 deep.
    """
    root: list[Any] = [None]
    todo: list[tuple[Node, Any, Any]] = [(node, root, 0)]
    while todo:
        item, holder, slot = todo.pop()
        if isinstance(item, tuple):
            merged: dict[str, Any] = dict(item)
            holder[slot] = merged
            todo.extend((value, merged, key) for key, value in merged.items())
        elif isinstance(item, list):
            values: list[Any] = [None] * len(item)
            holder[slot] = values
            todo.extend((value, values, index) for index, value in enumerate(item))
        else:
            holder[slot] = number(item) if isinstance(item, Number) else item
    return root[0]


def base64_bytes(text: str) -> bytes:
    """Decode standard, padded base64; line breaks are skipped.

    Raises:
        JsonInvalid: with Go's text, which names the offset of the first bad byte.
    """
    plain = text.replace("\r", "").replace("\n", "")
    fault: Exception | None = None
    try:
        padding = len(plain) - len(plain.rstrip("="))
        if len(plain) % 4 == 0 and padding <= 2:  # Python lets more padding pass
            return binascii.a2b_base64(plain.encode("utf-8"), strict_mode=True)
    except binascii.Error as error:
        fault = error
    raise JsonInvalid(f"illegal base64 data at input byte {_corrupt_at(text)}") from fault


def _corrupt_at(text: str) -> int:
    """Where Go's decoder stops in text that is not base64."""
    at = _after(_BASE64_RUN, text, 0)
    pending = (at - text.count("\r", 0, at) - text.count("\n", 0, at)) % 4
    if at == len(text):
        return at - pending
    if text[at] != "=" or pending < 2:
        return at
    at = _after(_NEWLINES, text, at + 1)
    if pending == 2:
        if at == len(text):
            return at
        if text[at] != "=":
            return at - 1
        at = _after(_NEWLINES, text, at + 1)
    return at


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    assert found is not None
    return found.end()
