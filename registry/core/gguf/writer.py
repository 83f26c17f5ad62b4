"""Writes GGUF headers: everything before the tensor data, and where each tensor's data will lie.

Sizes follow from names, types and shapes alone, so the header can be written first and the data
after it in one pass.

Source: spec inference-and-gguf 6.2. Files are version 3.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from registry.core.errors import GgufInvalid
from registry.core.ggml import TYPE_NUMBERS, data_size, tensor_type
from registry.core.gguf.header import Tensor
from registry.core.gguf.metadata import quoted
from registry.core.gguf.reader import MAX_DIMENSION, MAX_DIMENSIONS, MAX_NAME
from registry.core.gguf.values import CODES, U32, U64, Array, Entry, Kind, Scalar

_VERSION = 3
_COUNTS = struct.Struct("<4sIQQ")
_ARRAY = struct.Struct("<IQ")
DEFAULT_ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"


class Encoded(NamedTuple):
    """A value that stands in a file already: its type, and its bytes without that."""

    kind: Kind
    data: bytes | memoryview


Pair = tuple[str, Entry | Encoded]
"""A key and its typed value. An `Entry` to be written has a value: no span, no None."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A file as it will be: `header`, padded, then each tensor's data, padded to `alignment`."""

    header: bytes
    lengths: tuple[int, ...]
    alignment: int

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + sum(padded(length, self.alignment) for length in self.lengths)

    @property
    def data_size(self) -> int:
        """Bytes of all tensors, without what lies between them."""
        return sum(self.lengths)


def layout(pairs: Sequence[Pair], tensors: Sequence[Tensor]) -> Layout:
    """Lay out a file of these values and tensors, in this order.

    Raises:
        GgufInvalid: a file so made would break a rule: a key twice, a name that is too long, rows
            that are no whole blocks.
    """
    keys = _unique(key for key, _ in pairs)
    _unique(tensor.name for tensor in tensors)
    alignment = _alignment(dict(pairs).get(ALIGNMENT_KEY))
    parts: list[bytes | memoryview] = [_COUNTS.pack(b"GGUF", _VERSION, len(tensors), len(keys))]
    for key, value in pairs:
        parts += [_text(key), *_value(key, value)]
    offset, lengths = 0, []
    for tensor in tensors:
        parts.append(_info(tensor, offset))
        lengths.append(data_size(tensor.type, tensor.shape))
        offset += padded(lengths[-1], alignment)
    header = b"".join(parts)
    filler = bytes(padded(len(header), alignment) - len(header))
    return Layout(header + filler, tuple(lengths), alignment)


def padded(length: int, alignment: int) -> int:
    """`length` rounded up to a multiple of `alignment`."""
    return -(-length // alignment) * alignment


def _unique(names: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise GgufInvalid(f"{quoted(name)} would be written twice")
        seen.add(name)
    return seen


def _alignment(value: Entry | Encoded | None) -> int:
    if value is None:
        return DEFAULT_ALIGNMENT
    number = U32.unpack(value.data)[0] if isinstance(value, Encoded) else value.value
    if not isinstance(number, int) or number < 8 or number & (number - 1):
        raise GgufInvalid(f"invalid GGUF alignment: {number}")
    return number


def _text(text: str) -> bytes:
    data = text.encode()
    return U64.pack(len(data)) + data


def _value(key: str, value: Entry | Encoded) -> list[bytes | memoryview]:
    kind = U32.pack(value.kind)
    if isinstance(value, Encoded):
        return [kind, value.data]
    try:
        return [kind, _entry(value)]
    except (struct.error, OverflowError, UnicodeEncodeError) as error:
        raise GgufInvalid(f"the value of {quoted(key)} does not fit its type") from error


def _entry(entry: Entry) -> bytes:
    value = entry.value
    if isinstance(value, Array):
        head = _ARRAY.pack(value.kind, len(value.values))
        if value.kind is Kind.STRING:
            return head + b"".join([_text(str(item)) for item in value.values])
        return head + struct.pack(f"<{len(value.values)}{CODES[value.kind]}", *value.values)
    if isinstance(value, Scalar):
        return _text(str(value)) if entry.kind is Kind.STRING else _number(entry.kind, value)
    raise GgufInvalid("a value that is not there cannot be written")


def _number(kind: Kind, value: Scalar) -> bytes:
    return struct.pack(f"<{CODES[kind]}", value)


def _info(tensor: Tensor, offset: int) -> bytes:
    name = tensor.name.encode()
    shape = tensor.shape
    if not 0 < len(name) <= MAX_NAME:
        raise GgufInvalid(f"the tensor name {quoted(tensor.name)} is empty or too long")
    if not 0 < len(shape) <= MAX_DIMENSIONS or not 0 < min(shape) <= max(shape) <= MAX_DIMENSION:
        raise GgufInvalid(f"tensor {quoted(tensor.name)} cannot have the shape {list(shape)}")
    block = tensor_type(tensor.type).block
    if shape[0] % block:
        raise GgufInvalid(
            f"tensor {quoted(tensor.name)} has rows of {shape[0]} values, "
            f"not whole blocks of {block} as in {tensor.type}"
        )
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return _text(tensor.name) + dimensions + _ARRAY.pack(TYPE_NUMBERS[tensor.type], offset)
