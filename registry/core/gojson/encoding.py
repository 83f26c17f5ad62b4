"""Writing: Python values to the bytes that Go's encoder would write.

What differs from other encoders: `<`, `>`, `&`, U+2028 and U+2029 are escaped; floats print as
ECMAScript numbers do (`10`, `0.6`, `1e-7`, `1e+21`); a float32 prints its own shortest digits.
"""

import re
import struct
from collections.abc import Iterator
from decimal import Decimal
from json import JSONEncoder
from typing import Any

import orjson

from registry.core.float32 import shortest

_SPECIAL = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_DOUBTFUL = tuple(re.compile(rb"%b(?:-?[0-9]+[.e]|null)" % lead) for lead in (b'":', b",", rb"\["))
"""What orjson writes differently: a float; null, which may be a NaN. (Or such a text in a string.)

Three patterns, each with a literal beginning: as one they take four times as long.
"""

_OPTIONS = (
    orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_quoted = JSONEncoder(ensure_ascii=False).encode
_FLOAT32 = struct.Struct("<f")
_INFINITY = float("inf")


class UnsupportedValue(ValueError):
    """A value that JSON cannot carry: NaN, an infinity, a key that is no string, a foreign type."""


class Float32(float):
    """A number that Go holds as float32: it prints the fewest digits that identify that float32."""

    __slots__ = ()


class Raw(bytes):
    """JSON text to be written as it is; the caller vouches for it."""

    __slots__ = ()


def dumps(value: Any, *, sort: bool = False) -> bytes:
    """Compact JSON of None, bool, int, float, `Float32`, str, `Raw`, lists, tuples and dicts.

    `sort` orders the keys of every object bytewise, as Go does for maps; otherwise they keep the
    order of the dict, as Go does for structs. No final newline. Nesting may have any depth.

    Raises:
        UnsupportedValue: see there.
    """
    data = _fast(value, sort)
    if data is None:
        text = "".join(_pieces(value, sort))
        data = text.encode("utf-8")
    for plain, escaped in _SPECIAL:
        if plain in data:
            data = data.replace(plain, escaped)
    return data


def _fast(value: Any, sort: bool) -> bytes | None:
    """The bytes by orjson, or None where they might not be Go's."""
    try:
        data = orjson.dumps(value, option=_OPTIONS | (orjson.OPT_SORT_KEYS if sort else 0))
    except TypeError:
        return None
    if type(value) is not str and _is_doubtful(data) and _is_doubtful(_STRINGS.sub(b'""', data)):
        return None
    return data


def _is_doubtful(data: bytes) -> bool:
    return data[:1] not in b'{["' or any(pattern.search(data) for pattern in _DOUBTFUL)


def _pieces(value: Any, sort: bool) -> Iterator[str]:
    """The text of `value` in pieces. Keeps its own stack: hostile nesting must not exhaust ours."""
    stack: list[Iterator[tuple[str, Any]]] = []
    closers: list[str] = []
    lead, item = "", value
    while True:
        if isinstance(item, dict | list | tuple):
            yield lead + ("{" if isinstance(item, dict) else "[")
            closers.append("}" if isinstance(item, dict) else "]")
            stack.append(_members(item, sort))
        else:
            yield lead + _scalar(item)
        while stack and (member := next(stack[-1], None)) is None:
            stack.pop()
            yield closers.pop()
        if not stack:
            return
        assert member is not None
        lead, item = member


def _members(
    value: dict[Any, Any] | list[Any] | tuple[Any, ...], sort: bool
) -> Iterator[tuple[str, Any]]:
    """Each member with the text that goes before it."""
    comma = ""
    if not isinstance(value, dict):
        for item in value:
            yield comma, item
            comma = ","
        return
    for key in sorted(value) if sort else value:
        if not isinstance(key, str):
            raise UnsupportedValue(f"unsupported key type: {type(key).__name__}")
        yield f"{comma}{_string(key)}:", value[key]
        comma = ","


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Raw):
        return value.decode("utf-8")
    raise UnsupportedValue(f"unsupported type: {type(value).__name__}")


def _string(text: str) -> str:
    """Quote `text`; lone surrogates become the six characters that Go writes for bad UTF-8."""
    quoted = _quoted(text)
    try:
        quoted.encode("utf-8")
    except UnicodeEncodeError:
        return _SURROGATE.sub(r"\\ufffd", quoted)
    return quoted


def _float(value: float) -> str:
    if value != value or value in (_INFINITY, -_INFINITY):
        name = "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
        raise UnsupportedValue(f"json: unsupported value: {name}")
    if isinstance(value, Float32):
        value = shortest(_rounded(value))
    text = float.__repr__(value)
    if value and not 1e-6 <= abs(value) < 1e21:
        return text.replace("e-0", "e-")
    if "e" in text:
        text = format(Decimal(text), "f")
    return text.removesuffix(".0")


def _rounded(value: float) -> float:
    """The float32 nearest to `value`."""
    try:
        rounded: float = _FLOAT32.unpack(_FLOAT32.pack(value))[0]
    except OverflowError as error:
        raise UnsupportedValue(f"json: unsupported value: {value!r} as float32") from error
    return rounded
