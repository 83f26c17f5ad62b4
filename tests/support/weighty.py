"""GGUF files whose tensors hold numbers: what quantizing and joining are tried on."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.core.gguf import Entry, Kind, Tensor
from registry.core.gguf.writer import Pair, layout, padded
from registry.tensors.files import File

_NUMBERS = {"F32": 0, "F16": 1, "BF16": 32}

Floats = NDArray[np.float32]


def entry(value: object) -> Entry:
    """A value as it is usually typed: u32, f32, bool or string."""
    match value:
        case bool():
            return Entry(Kind.BOOL, value)
        case int():
            return Entry(Kind.U32, value)
        case float():
            return Entry(Kind.F32, value)
    return Entry(Kind.STRING, str(value))


def stored(numbers: Floats, kind: str) -> bytes:
    """The bytes of numbers in one of the plain types."""
    if kind == "BF16":
        bits = numbers.astype("<f4").view("<u4").astype(np.uint64)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()
    return numbers.astype({"F32": "<f4", "F16": "<f2"}[kind]).tobytes()


def gguf_of(pairs: list[Pair], tensors: Mapping[str, tuple[str, Floats]]) -> bytes:
    """A file with these values and tensors; arrays are as in numpy, slowest dimension first."""
    listed = [Tensor(name, kind, array.shape[::-1]) for name, (kind, array) in tensors.items()]
    laid = layout(pairs, listed)
    parts = [laid.header]
    for kind, array in tensors.values():
        data = stored(array, kind)
        parts.append(data.ljust(padded(len(data), laid.alignment), b"\0"))
    return b"".join(parts)


Tensors = dict[str, tuple[str, Floats]]


def parts(
    kind: str = "F16",
    *,
    layers: int = 2,
    width: int = 256,
    seed: int = 1,
    file_type: int | None = None,
) -> tuple[list[Pair], Tensors]:
    """Values and tensors of a small llama of noise, stored as `kind` but for the norms."""
    numbers = np.random.default_rng(seed)
    told: dict[str, object] = {
        "general.architecture": "llama",
        "llama.block_count": layers,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "general.quantization_version": 2,
        "general.file_type": _NUMBERS[kind] if file_type is None else file_type,
    }
    shapes = {"output.weight": (32, width), "token_embd.weight": (32, width)}
    for layer in range(layers):
        shapes |= {f"blk.{layer}.attn_{part}.weight": (width, width) for part in "kqv"}
        shapes[f"blk.{layer}.ffn_down.weight"] = (width, 2 * width)
    tensors = {
        name: (kind, numbers.standard_normal(shape, np.float32)) for name, shape in shapes.items()
    }
    tensors["output_norm.weight"] = ("F32", numbers.standard_normal(width, np.float32))
    return [(key, entry(value)) for key, value in told.items()], tensors


def model(kind: str = "F16", **ask: Any) -> bytes:
    """The file of `parts`."""
    return gguf_of(*parts(kind, **ask))


def shards(count: int = 2, kind: str = "F16", **ask: Any) -> list[bytes]:
    """The same model in several files, as llama.cpp's tool splits it: its values in the first."""
    pairs, tensors = parts(kind, **ask)
    names = list(tensors)
    step = -(-len(names) // count)
    made = []
    for index in range(count):
        split: list[Pair] = [
            ("split.no", Entry(Kind.U16, index)),
            ("split.count", Entry(Kind.U16, count)),
            ("split.tensors.count", Entry(Kind.I32, len(names))),
        ]
        some = names[index * step : (index + 1) * step]
        own = (pairs if index == 0 else []) + split
        made.append(gguf_of(own, {name: tensors[name] for name in some}))
    return made


@contextmanager
def file_of(data: bytes, name: str = "model.gguf") -> Iterator[File]:
    """Bytes as a source file."""
    descriptor = os.memfd_create("test")
    try:
        os.write(descriptor, data)
        yield File(name, descriptor, len(data))
    finally:
        os.close(descriptor)
