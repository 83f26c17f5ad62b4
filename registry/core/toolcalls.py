"""Tool calls told from the answer in a stream of text.

A call begins where the template would print one (the marker), and is the name of a known tool with
a JSON object of arguments: `{"name": …, "arguments": {…}}` in any wrapping, `{"<name>": {…}}`, or
the name followed by the object. What follows the marker is not shown; if it turns out to hold no
call at all, it is content after all.

Source: spec inference-and-gguf 12.2, ollama-api 17.5.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

from registry.core.thinking import overlap
from registry.core.wishes import ToolCall

_JSON_MARKERS = ("{", "[")
_LARGEST = 1 << 20
"""Characters of a call; longer text behind a marker is content."""
_DEEPEST = 20
_SIGNS = re.compile(r'["\\{}\[\]]')
_ARGUMENTS = ("arguments", "parameters")


class _State(Enum):
    MARKER = 1
    CALL = 2
    CONTENT = 3


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a piece of text added."""

    content: str = ""
    calls: tuple[ToolCall, ...] = ()


class ToolCallParser:
    """`names` are those of the tools offered; `make_id` gives each call an id of its own.

    A marker that is only a bracket is one at the very beginning of the answer, not later: JSON
    within a text is no call.
    """

    def __init__(self, marker: str, names: Iterable[str], make_id: Callable[[], str]) -> None:
        self._marker = marker
        self._names = frozenset(name for name in names if name)
        longest_first = sorted(self._names, key=lambda name: (-len(name), name))
        self._named = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._make_id = make_id
        self._state = _State.MARKER
        self._buffer = ""
        self._scan = _Scan(quotes_outside=marker in _JSON_MARKERS)
        self._count = 0

    def feed(self, text: str) -> Parsed:
        """Take the next piece; content to be shown by now, and calls that it completed."""
        if self._state is _State.CONTENT:
            return Parsed(text)
        self._buffer += text
        before = ""
        if self._state is _State.MARKER:
            at = self._buffer.find(self._marker)
            stop = at if at >= 0 else len(self._buffer) - overlap(self._buffer, self._marker)
            before, self._buffer = self._buffer[:stop], self._buffer[stop:]
            if self._marker in _JSON_MARKERS and before.strip():
                return Parsed(before + self._give_up())
            if at < 0:
                return Parsed(before)
            self._state = _State.CALL
        calls = tuple(self._calls())
        no_call = self._scan.is_balanced and not self._count and self._marker in _JSON_MARKERS
        if no_call or len(self._buffer) > _LARGEST:
            return Parsed(before + self._give_up(), calls)
        return Parsed(before, calls)

    def finish(self) -> Parsed:
        """What was held back when the text ended."""
        rest = self._give_up()
        return Parsed("" if self._count else rest)

    def _give_up(self) -> str:
        self._state = _State.CONTENT
        rest, self._buffer = self._buffer, ""
        return rest

    def _calls(self) -> Iterator[ToolCall]:
        done = 0
        for start, stop in self._scan.objects(self._buffer):
            found = list(self._read(self._buffer[done:start], self._buffer[start:stop]))
            for name, arguments in found:
                yield ToolCall(name, arguments, self._make_id(), self._count)
                self._count += 1
            done = stop if found else done
        self._buffer = self._buffer[done:]
        self._scan.forget(done)

    def _read(self, before: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The calls in an object, or the one whose name stands before it."""
        try:
            value = orjson.loads(text)
        except ValueError:  # braces that are no JSON, or numbers and nesting beyond it
            return
        inside = list(self._search(value, 0))
        if inside:
            yield from inside
            return
        named = None if "name" in value else [*self._named.finditer(before)][-1:]
        if named:
            yield named[0][0], value

    def _search(self, value: Any, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
        if depth > _DEEPEST:
            return
        if isinstance(value, list):
            for item in value:
                yield from self._search(item, depth + 1)
        if not isinstance(value, dict):
            return
        name = value.get("name")
        if isinstance(name, str) and name in self._names:
            yield name, next(filter(None, (_object(value.get(key)) for key in _ARGUMENTS)), {})
            return
        for key, item in value.items():
            arguments = _object(item) if key in self._names else None
            if arguments is None:
                yield from self._search(item, depth + 1)
            else:
                yield key, arguments


def _object(value: Any) -> dict[str, Any] | None:
    """An object, or one written in a string; None for anything else."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, dict) else None


class _Scan:
    """Finds outermost objects in a growing text; looks at each character once."""

    def __init__(self, *, quotes_outside: bool) -> None:
        self._quotes_outside = quotes_outside  # the text is JSON from its beginning
        self._position = 0
        self._start = 0
        self._depth = 0
        self._lists = 0
        self._quoted = False
        self._closed = False

    @property
    def is_balanced(self) -> bool:
        """Whether a value was closed and none is open."""
        return self._closed and not (self._depth or self._lists or self._quoted)

    def forget(self, length: int) -> None:
        """So many characters were cut off the text's beginning."""
        self._position -= length
        self._start -= length

    def objects(self, text: str) -> Iterator[tuple[int, int]]:
        """Start and stop of each object that has become complete."""
        while sign := _SIGNS.search(text, self._position):
            if sign[0] == "\\" and sign.end() == len(text):
                return  # what it escapes is still to come
            self._position = sign.end() + (sign[0] == "\\")
            if self._take(sign[0], sign.start()):
                yield self._start, sign.end()
        self._position = len(text)

    def _take(self, sign: str, at: int) -> bool:
        """Count a sign; whether it closed an outermost object."""
        if sign == '"' and (self._depth or self._quotes_outside):
            self._quoted = not self._quoted
        elif self._quoted or sign in '\\"':
            return False
        elif sign == "{":
            self._start = self._start if self._depth else at
            self._depth += 1
        elif sign == "}" and self._depth:
            self._depth -= 1
            self._closed = True
            return not self._depth
        elif sign in "[]" and not self._depth:
            self._lists = max(0, self._lists + (1 if sign == "[" else -1))
            self._closed = self._closed or sign == "]"
        return False
