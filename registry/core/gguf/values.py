"""Values of GGUF metadata: their types, and how their bytes are read.

Source: spec inference-and-gguf 6.2.
"""

import re
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
_ESCAPED = re.compile("[\udc80-\udcff]")


class Kind(IntEnum):
    """The type number of a value or of an array's elements."""

    U8 = 0
    I8 = 1
    U16 = 2
    I16 = 3
    U32 = 4
    I32 = 5
    F32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    U64 = 10
    I64 = 11
    F64 = 12


CODES = {  # of the kinds of fixed size: the code of the struct module
    Kind.U8: "B",
    Kind.I8: "b",
    Kind.U16: "H",
    Kind.I16: "h",
    Kind.U32: "I",
    Kind.I32: "i",
    Kind.F32: "f",
    Kind.BOOL: "?",  # any byte but 0 is true
    Kind.U64: "Q",
    Kind.I64: "q",
    Kind.F64: "d",
}
SCALARS = {int(kind): struct.Struct(f"<{code}") for kind, code in CODES.items()}
"""How a value of a kind of fixed size is unpacked, by type number."""

Scalar = int | float | bool | str


@dataclass(frozen=True, slots=True)
class Span:
    """An array left in the file: `count` elements in the bytes `[offset, offset + length)`."""

    kind: Kind
    count: int
    offset: int
    length: int


class Array(NamedTuple):
    """An array short enough to be kept."""

    kind: Kind
    values: tuple[Scalar, ...]


class Entry(NamedTuple):
    """A value with its type. None stands for a string that was too long to be kept."""

    kind: Kind
    value: Scalar | Array | Span | None


def decode_text(data: bytes) -> str:
    """UTF-8 to text; each bad byte becomes one U+FFFD, as Go's JSON encoder writes it."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _ESCAPED.sub("\ufffd", data.decode(errors="surrogateescape"))


def decode_array(span: Span, data: bytes) -> list[Scalar]:
    """The elements of an array from its bytes, which a `HeaderReader` has stepped over before.

    Raises:
        ValueError: `data` is not as long as the span, or not what was there when it was noted.
    """
    if len(data) != span.length:
        raise ValueError("not the bytes of the array")
    if span.kind is not Kind.STRING:
        return list(struct.unpack(f"<{span.count}{CODES[span.kind]}", data))
    values: list[Scalar] = []
    at = 0
    try:
        for _ in range(span.count):
            start = at + 8
            at = start + U64.unpack_from(data, at)[0]
            values.append(decode_text(data[start:at]))
    except (struct.error, OverflowError) as error:
        raise ValueError("not the bytes of the array") from error
    if at != len(data):
        raise ValueError("not the bytes of the array")
    return values
