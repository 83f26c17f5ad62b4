"""Writes GGUF files for tests, good ones and broken ones: each part is a function to bytes."""

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from registry.core.ggml import TENSOR_TYPES
from registry.core.gguf import Kind

_CODES = "BbHhIif?"
_WIDE = {Kind.U64: "Q", Kind.I64: "q", Kind.F64: "d"}


class TensorSpec(NamedTuple):
    """A tensor to be written; its data are zeros."""

    name: str
    shape: tuple[int, ...] = (32,)
    type: int = 0

    @property
    def length(self) -> int:
        """Bytes of its data."""
        kind = TENSOR_TYPES[self.type]
        count = 1
        for size in self.shape:
            count *= size
        return count // kind.block * kind.size


def text(value: str | bytes) -> bytes:
    """A string: its length, its bytes."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def scalar(kind: int, value: object) -> bytes:
    """A value without its type."""
    if kind == Kind.STRING:
        assert isinstance(value, str | bytes)
        return text(value)
    code = _WIDE[Kind(kind)] if kind in _WIDE else _CODES[kind]
    return struct.pack(f"<{code}", value)


def pair(key: str | bytes, kind: int, payload: bytes) -> bytes:
    """A key, a type number, and whatever is to follow."""
    return text(key) + struct.pack("<I", kind) + payload


def field(key: str, kind: int, value: object) -> bytes:
    """A key with a value that is no array."""
    return pair(key, kind, scalar(kind, value))


def array_head(kind: int, count: int) -> bytes:
    """Type and number of an array's elements."""
    return struct.pack("<IQ", kind, count)


def array(key: str, kind: int, values: Iterable[object]) -> bytes:
    """A key with an array."""
    items = [scalar(kind, value) for value in values]
    return pair(key, Kind.ARRAY, array_head(kind, len(items)) + b"".join(items))


def preamble(tensors: int, keys: int, version: int = 3) -> bytes:
    """Magic, version, counts."""
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def tensor_info(
    name: str | bytes, shape: Sequence[int] = (32,), kind: int = 0, offset: int = 0
) -> bytes:
    """One entry of the list of tensors."""
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dims + struct.pack("<IQ", kind, offset)


def gguf(
    *fields: bytes, tensors: Sequence[TensorSpec] = (), alignment: int = 32, version: int = 3
) -> bytes:
    """A whole file. `alignment` has to agree with the fields."""
    head = preamble(len(tensors), len(fields), version) + b"".join(fields)
    offset = 0
    for tensor in tensors:
        head += tensor_info(tensor.name, tensor.shape, tensor.type, offset)
        offset += _padded(tensor.length, alignment)
    if not tensors:
        return head
    return head + bytes(_padded(len(head), alignment) - len(head) + offset)


def _padded(length: int, alignment: int) -> int:
    return -(-length // alignment) * alignment


ARCHITECTURE = field("general.architecture", Kind.STRING, "llama")
SMALLEST = gguf(field("general.architecture", Kind.STRING, "test"))
"""The test file of spec ollama-api 25: 68 bytes, no tensors."""
