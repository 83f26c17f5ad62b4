"""Every key and value of a header as it stands there, to be written into another file.

What `HeaderReader` keeps is for showing: it leaves long values in the file and repairs text. A copy
must have the very bytes.
"""

import struct

from registry.core.errors import GgufInvalid
from registry.core.gguf.header import Header
from registry.core.gguf.metadata import MAX_KEPT_ELEMENTS
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
from registry.core.gguf.writer import Encoded, Pair

_FIRST = 24  # after magic, version and the two counts
_ARRAY = struct.Struct("<IQ")


def encoded_pairs(header: Header, data: bytes | memoryview) -> list[Pair]:
    """The pairs of `header`, which was read from a file that begins with `data`.

    Raises:
        GgufInvalid: `data` is not what the header was read from.
    """
    view, at = memoryview(data), _FIRST
    pairs: list[Pair] = []
    try:
        for key in header.entries:
            start = _after_string(view, at)
            kind = Kind(U32.unpack_from(view, start)[0])
            at = _after_value(view, start + U32.size, kind)
            pairs.append((key, Encoded(kind, view[start + U32.size : at])))
    except (struct.error, OverflowError, ValueError) as error:
        raise GgufInvalid("the header changed while it was read") from error
    if at > len(view):
        raise GgufInvalid("the header changed while it was read")
    return pairs


def plain_value(value: Entry | Encoded) -> Scalar | tuple[Scalar, ...] | None:
    """What a value says: of an array of numbers the first elements, of one of strings nothing."""
    if isinstance(value, Entry):
        found = value.value
        if isinstance(found, Array):
            return found.values
        return None if isinstance(found, Span) else found
    if value.kind is Kind.STRING:
        return decode_text(bytes(value.data[U64.size :]))
    if value.kind is not Kind.ARRAY:
        number: Scalar = SCALARS[value.kind].unpack(value.data)[0]
        return number
    kind, count = _ARRAY.unpack_from(value.data)
    if kind == Kind.STRING:
        return None
    return struct.unpack_from(
        f"<{min(count, MAX_KEPT_ELEMENTS)}{CODES[Kind(kind)]}", value.data, _ARRAY.size
    )


def _after_string(view: memoryview, at: int) -> int:
    return int(at + U64.size + U64.unpack_from(view, at)[0])


def _after_value(view: memoryview, at: int, kind: Kind) -> int:
    """Where the value ends that begins at `at`."""
    if kind is Kind.STRING:
        return _after_string(view, at)
    if kind is not Kind.ARRAY:
        return at + SCALARS[kind].size
    number, count = _ARRAY.unpack_from(view, at)
    at += _ARRAY.size
    if number != Kind.STRING:
        return int(at + count * SCALARS[number].size)
    unpack, step = U64.unpack_from, U64.size
    for _ in range(count):
        at += step + unpack(view, at)[0]
    return int(at)
