"""The key-value part of a header.

Source: spec inference-and-gguf 6.2, 6.3 (the limits); the wording of faults that Ollama's own
decoder finds is Ollama's, the rest is ours and names the byte.
"""

import struct
from typing import Any

from registry.core.errors import GgufInvalid
from registry.core.gguf.values import (
    CODES,
    SCALARS,
    U32,
    U64,
    Array,
    Entry,
    Kind,
    Scalar,
    Span,
    decode_text,
)
from registry.core.gguf.window import Reading, Window

MAX_KEYS = 65_536
MAX_KEY = 65_535
MAX_ALL_KEYS = 4 << 20
MAX_KEPT_STRING = 1 << 20
MAX_KEPT_ELEMENTS = 1024
MAX_KEPT = 4 << 20
"""Rough memory, in bytes, of all values kept; what comes after it is noted like a long array."""
MAX_ELEMENTS = 16 << 20
MAX_STRINGS = 4 << 20
MAX_ALL_STRINGS = 8 << 20
"""Stepping over a string takes 60 ns or more, and there is a second for the whole header."""

_OLLAMA_MAX_ELEMENTS = 64 << 20
_ELEMENT_COST = 48  # a Python object and the reference to it
_ROOM = MAX_KEY + 32  # a key, its type, and what stands before a value
_VOCABULARY = frozenset({"tokenizer.ggml.tokens", "tokenizer.ggml.merges"})
_ALIGNMENT = "general.alignment"
_ARCHITECTURE = "general.architecture"
_SPLIT = "split.count"


def fault(text: str, at: int) -> GgufInvalid:
    """An error in our own words, with the place of the fault."""
    return GgufInvalid(f"{text} (at byte {at})", at)


def quoted(name: str) -> str:
    """A name from the file for a message: quoted, on one line, not too long."""
    text = name if len(name) <= 80 else name[:77] + "..."
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else repr(character)[1:-1]


class Metadata:
    """Reads the key-value pairs."""

    def __init__(self, window: Window) -> None:
        self.entries: dict[str, Entry] = {}
        self._window = window
        self._key_bytes = 0
        self._kept = 0
        self._strings = 0
        self._places: dict[str, int] = {}  # of the keys with rules of their own

    def read(self, count: int) -> Reading[None]:
        """Read `count` pairs.

        Raises:
            GgufInvalid: any rule about keys and values is broken.
        """
        window = self._window
        for _ in range(count):
            if not window.has(_ROOM):
                yield from window.fill(_ROOM)
            at = window.offset
            key = self._key()
            if key in self.entries:
                raise fault(f"GGUF key {quoted(key)} appears twice", at)
            if key in {_ALIGNMENT, _ARCHITECTURE}:
                self._places[key] = at
            self.entries[key] = yield from self._entry(key)

    def alignment(self) -> int:
        """`general.alignment`, 32 if it is not given.

        Raises:
            GgufInvalid: it is no power of two from 8 to 65,536.
        """
        entry = self.entries.get(_ALIGNMENT, Entry(Kind.U32, 32))
        at = self._places.get(_ALIGNMENT, 0)
        value = entry.value
        if entry.kind is not Kind.U32 or not isinstance(value, int):
            raise fault("GGUF alignment is not a 32-bit number", at)
        if value == 0:
            raise GgufInvalid("invalid GGUF alignment: 0", at)
        if not 8 <= value <= 65_536 or value & (value - 1):
            raise fault(f"invalid GGUF alignment: {value}", at)
        return value

    def check_architecture(self) -> None:
        """Make sure that the model says what it is.

        Raises:
            GgufInvalid: `general.architecture` is no string, or missing. The later files of a split
                model leave it to the first.
        """
        entry = self.entries.get(_ARCHITECTURE)
        if entry is None and _SPLIT in self.entries:
            return
        if entry is None:
            raise fault("GGUF key general.architecture is missing", self._window.offset)
        if not isinstance(entry.value, str):
            raise fault(
                "GGUF key general.architecture is not a string", self._places[_ARCHITECTURE]
            )

    def _key(self) -> str:
        window = self._window
        at = window.offset
        length = window.string_length()
        if length == 0:
            raise fault("GGUF key is empty", at)
        if length > MAX_KEY:
            if length > window.left:
                raise window.cut(length)
            raise fault(f"GGUF key of {length} bytes exceeds maximum {MAX_KEY}", at)
        self._key_bytes += length
        if self._key_bytes > MAX_ALL_KEYS:
            raise fault(f"GGUF keys take more than {MAX_ALL_KEYS} bytes", at)
        try:
            return window.take(length).decode()
        except UnicodeDecodeError as error:
            raise fault("GGUF key is not UTF-8", at) from error

    def _entry(self, key: str) -> Reading[Entry]:
        window = self._window
        at = window.offset
        (number,) = window.unpack(U32)
        form = SCALARS.get(number)
        if form is not None:
            return Entry(Kind(number), window.unpack(form)[0])
        if number == Kind.STRING:
            text = yield from self._string(f" (value of {quoted(key)}, at byte {window.offset})")
            return Entry(Kind.STRING, text)
        if number == Kind.ARRAY:
            return Entry(Kind.ARRAY, (yield from self._array(key)))
        raise GgufInvalid(f"invalid type: {number}", at)

    def _keep(self, cost: int) -> bool:
        """Whether a value may be kept that takes about `cost` bytes."""
        if self._kept + cost > MAX_KEPT:
            return False
        self._kept += cost
        return True

    def _string(self, where: str) -> Reading[str | None]:
        window = self._window
        length = window.string_length(where)
        if length > MAX_KEPT_STRING or not self._keep(length + _ELEMENT_COST):
            window.skip(length)
            return None
        yield from window.fill(length)
        return decode_text(window.take(length))

    def _array(self, key: str) -> Reading[Array | Span]:
        window = self._window
        at = window.offset
        (number,) = window.unpack(U32)
        (count,) = window.unpack(U64)
        if number == Kind.STRING:
            self._check_count(key, count, at)
            self._check_strings(key, count, at)
            return (yield from self._strings_of(count))
        form = SCALARS.get(number)
        if form is None:
            raise fault(f"invalid array type: {number}", at)
        self._check_count(key, count, at)
        return (yield from self._numbers(Kind(number), form.size, count))

    @staticmethod
    def _check_count(key: str, count: int, at: int) -> None:
        if count > _OLLAMA_MAX_ELEMENTS:
            words = f"GGUF array size {count} exceeds maximum {_OLLAMA_MAX_ELEMENTS}"
            raise GgufInvalid(words, at)
        if count > MAX_ELEMENTS:
            words = f"GGUF array {quoted(key)} has {count} elements, more than {MAX_ELEMENTS}"
            raise fault(words, at)

    def _check_strings(self, key: str, count: int, at: int) -> None:
        if count > MAX_STRINGS and key not in _VOCABULARY:
            words = f"GGUF array {quoted(key)} has {count} strings, more than {MAX_STRINGS}"
            raise fault(words, at)
        self._strings += count
        if self._strings > MAX_ALL_STRINGS:
            words = f"GGUF arrays up to {quoted(key)} have {self._strings} strings"
            raise fault(f"{words}, more than {MAX_ALL_STRINGS}", at)

    def _numbers(self, kind: Kind, size: int, count: int) -> Reading[Array | Span]:
        window = self._window
        span = Span(kind, count, window.offset, count * size)
        if count > MAX_KEPT_ELEMENTS or not self._keep(count * _ELEMENT_COST):
            window.skip(span.length, size)
            return span
        yield from window.fill(span.length)
        form = struct.Struct(f"<{count}{CODES[kind]}")
        return Array(kind, window.unpack(form, size))

    def _strings_of(self, count: int) -> Reading[Array | Span]:
        window = self._window
        start = window.offset
        if count <= MAX_KEPT_ELEMENTS:
            values = yield from self._short_strings(count)
            if values is not None:
                return Array(Kind.STRING, values)
        else:
            yield from window.skip_strings(count)
        return Span(Kind.STRING, count, start, window.offset - start)

    def _short_strings(self, count: int) -> Reading[tuple[Scalar, ...] | None]:
        """The strings of a short array; None, behind them, if one is too long to be kept."""
        window = self._window
        values: list[Any] = []
        for done in range(count):
            yield from window.fill(U64.size)
            text = yield from self._string("")
            if text is None:
                yield from window.skip_strings(count - done - 1)
                return None
            values.append(text)
        return tuple(values)
