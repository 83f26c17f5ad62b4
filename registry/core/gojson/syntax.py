"""Reading, first half: the first JSON value of a body as a tree, or the error Go's scanner gives.

Nodes keep what Go's decoder looks at later: the text of numbers, the order and doubles of keys.
Well-formed input goes through the standard library's C scanner; whatever it refuses, and the few
things it reads otherwise than Go (lone surrogates, bytes that are no UTF-8, NaN), goes through the
exact scanner below, which keeps its own stack and so reads any depth that Go reads.
"""

import json
import re
from typing import Final, NoReturn, TypeAlias

from registry.core.errors import RequestInvalid


class JsonInvalid(RequestInvalid):
    """A body that Go's decoder would refuse; the message is its own."""


class JsonMissing(JsonInvalid):
    """A body without any value; the message is Go's `EOF`, which most endpoints reword."""


class Number(str):
    """A number as it was written."""

    __slots__ = ()


Node: TypeAlias = "bool | str | Number | list[Node] | tuple[tuple[str, Node], ...] | None"
"""An object is a tuple of its (key, value) pairs, in order, doubles included."""

MAX_DEPTH: Final = 10_000
MAX_VALUES: Final = 300_000
"""A value may cost 3 bytes of body and some 250 of memory, hence a limit of our own: 75 MB."""

_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+')
_HEX = re.compile(r"[0-9a-fA-F]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACED = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_HARMLESS_ESCAPE = re.compile(
    rb"\\(?:[^u]|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u(?![dD][89a-fA-F]))",
    re.DOTALL,
)
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_LITERALS: Final = {"t": ("true", True), "f": ("false", False), "n": ("null", None)}
_MORE: Final = object()


def parse(data: bytes) -> Node:
    """The first value of `data`; what follows it is not looked at.

    Raises:
        JsonMissing: nothing but white space.
        JsonInvalid: broken syntax, nesting deeper than `MAX_DEPTH`, more than `MAX_VALUES` values.
    """
    _check_count(data)
    start = len(data) - len(data.lstrip(b" \t\r\n"))
    if start == len(data):
        raise JsonMissing("EOF")
    if data[start] in b"{[" and not _has_half_pairs(data):
        try:
            node, _ = _DECODER.raw_decode(data.decode("utf-8"), start)
        except (ValueError, RecursionError):
            pass
        else:
            shallow = data.count(b"{") + data.count(b"[") <= MAX_DEPTH or _depth(node) <= MAX_DEPTH
            if shallow:  # pragma: no branch - Python 3.11 has refused what is deep
                return node  # type: ignore[no-any-return]  # made of the hooks below
    return _Scanner(data.decode("utf-8", "surrogateescape")).run(start)


def _has_half_pairs(data: bytes) -> bool:
    """Whether an escape of a surrogate may lack its other half, which Go replaces."""
    return bool(_SURROGATE_ESCAPE.search(data) and b"\\" in _HARMLESS_ESCAPE.sub(b"", data))


def _depth(node: Node) -> int:
    """How deep a tree is nested; the C scanner of some Python versions knows no limit."""
    depth, level = 0, [node]
    while level:
        depth += 1
        inner = [
            child
            for item in level
            if isinstance(item, list | tuple)
            for child in (item if isinstance(item, list) else [value for _, value in item])
        ]
        level = [item for item in inner if isinstance(item, list | tuple)]
    return depth


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


_DECODER = json.JSONDecoder(
    object_pairs_hook=tuple,
    parse_int=Number,
    parse_float=Number,
    parse_constant=_refuse_constant,
)


def _check_count(data: bytes) -> None:
    """Refuse bodies of very many values before any of them is built."""
    if len(data) <= 2 * MAX_VALUES:
        return
    bare = data
    for strings_dropped in (False, True):
        if bare.count(b",") + bare.count(b"[") + bare.count(b"{") <= MAX_VALUES:
            return
        if not strings_dropped:
            bare = _STRINGS.sub(b"", data)
    raise JsonInvalid(f"request body holds more than {MAX_VALUES} values")


class _Scanner:
    """The exact scanner: one pass over `text`, whose bad bytes are lone surrogates."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._open: list[list[Node]] = []
        self._keys: list[list[str] | None] = []  # of each open object; None for an array

    def run(self, start: int) -> Node:
        """The value that begins at `start`."""
        self._at = start
        while True:
            node = self._begin()
            while node is not _MORE:
                if not self._open:
                    return node  # type: ignore[return-value]  # object only for _MORE
                node = self._after(node)  # type: ignore[arg-type]  # likewise

    def _begin(self) -> object:
        """Read a scalar or an empty container, or open one and return `_MORE`."""
        mark = self._peek()
        if mark == "{":
            return self._enter([], "}", ())
        if mark == "[":
            return self._enter(None, "]", [])
        if mark == '"':
            return self._string()
        if mark == "-" or "0" <= mark <= "9":
            return self._number()
        if mark in _LITERALS:
            return self._literal(*_LITERALS[mark])
        return self._fail("looking for beginning of value")

    def _enter(self, keys: list[str] | None, closer: str, empty: Node) -> object:
        if len(self._open) >= MAX_DEPTH:
            self._fail("exceeded max depth")
        self._at += 1
        if self._peek() == closer:
            self._at += 1
            return empty
        self._open.append([])
        self._keys.append(keys)
        if keys is not None:
            self._key(keys)
        return _MORE

    def _after(self, node: Node) -> object:
        """Put `node` into the innermost container; return that if it ends here, else `_MORE`."""
        values, keys = self._open[-1], self._keys[-1]
        values.append(node)
        mark = self._peek()
        if mark == ",":
            self._at += 1
            if keys is not None:
                self._key(keys)
            return _MORE
        if mark != ("]" if keys is None else "}"):
            self._fail("after array element" if keys is None else "after object key:value pair")
        self._at += 1
        self._open.pop()
        self._keys.pop()
        return values if keys is None else tuple(zip(keys, values, strict=True))

    def _key(self, keys: list[str]) -> None:
        if self._peek() != '"':
            self._fail("looking for beginning of object key string")
        keys.append(self._string())
        if self._peek() != ":":
            self._fail("after object key")
        self._at += 1

    def _string(self) -> str:
        start = self._at
        found = _STRING.match(self._text, start)
        assert found is not None
        self._at = found.end()
        mark = self._char()
        if mark != '"':
            self._bad_string(mark)
        self._at += 1
        literal = self._text[start : self._at]
        text: str = json.loads(literal) if "\\" in literal else literal[1:-1]
        return text.translate(_REPLACED) if _SURROGATE.search(text) else text

    def _bad_string(self, mark: str) -> NoReturn:
        if mark != "\\":
            self._fail("in string literal")
        self._at += 1
        if self._char() != "u":
            self._fail("in string escape code")
        found = _HEX.match(self._text, self._at + 1)
        assert found is not None
        self._at = found.end()
        self._char()
        self._fail("in \\u hexadecimal character escape")

    def _number(self) -> Number:
        start = self._at
        found = _NUMBER.match(self._text, start)
        if found is None:
            self._at += 1
            self._char()
            self._fail("in numeric literal")
        self._at = found.end()
        mark = self._text[self._at : self._at + 1]
        if mark == "." and found[1] is None and found[2] is None:
            self._at += 1
            self._char()
            self._fail("after decimal point in numeric literal")
        if mark in {"e", "E"} and found[2] is None:
            self._at += 1
            if self._char() in "+-":
                self._at += 1
                self._char()
            self._fail("in exponent of numeric literal")
        return Number(found[0])

    def _literal(self, word: str, value: bool | None) -> bool | None:
        for expected in word:
            if self._char() != expected:
                self._fail(f"in literal {word} (expecting '{expected}')")
            self._at += 1
        return value

    def _peek(self) -> str:
        """The next character that is not white space."""
        found = _SPACE.match(self._text, self._at)
        assert found is not None
        self._at = found.end()
        return self._char()

    def _char(self) -> str:
        """The character here.

        Raises:
            JsonInvalid: the text ends here.
        """
        if self._at >= len(self._text):
            raise JsonInvalid("unexpected EOF")
        return self._text[self._at]

    def _fail(self, where: str) -> NoReturn:
        byte = self._text[self._at].encode("utf-8", "surrogateescape")[0]
        raise JsonInvalid(f"invalid character {_quote(byte)} {where}")


def _quote(byte: int) -> str:
    """A byte as Go's scanner names it: the character of that code point, in single quotes."""
    char = chr(byte)
    if char == "'":
        return r"'\''"
    if char == "\\":
        return r"'\\'"
    if char in _GO_ESCAPES:
        return f"'{_GO_ESCAPES[char]}'"
    if byte < 0x20 or byte == 0x7F:
        return f"'\\x{byte:02x}'"
    if 0x80 <= byte <= 0xA0 or byte == 0xAD:
        return f"'\\u{byte:04x}'"
    return f"'{char}'"


_GO_ESCAPES: Final = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
}
