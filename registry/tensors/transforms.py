"""Does with numbers what a conversion's plan says: reads rows, moves them, changes their type.

Everything goes in pieces of a few MiB of whole rows. What is read is checked: a number that is not
finite ends the work, since a model with one answers nonsense.

Source: spec inference-and-gguf 8.2, 8.3, 8.6, 9.3.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from registry.core.convert.documents import shown
from registry.core.convert.plan import (
    AddOne,
    Columns,
    Output,
    Packed4,
    Pairs,
    Part,
    Plain,
    Scaled,
    Step,
    Turned,
)
from registry.core.convert.safetensors import Stored
from registry.core.errors import CheckpointInvalid
from registry.tensors.files import File
from registry.tensors.sources import CHUNK_ELEMENTS, Chunk

_NATIVE: dict[str, np.dtype[np.generic]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "F8_E4M3": np.dtype("u1"),
}
_INFINITE = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}
"""The bits of infinity; NaNs lie above them."""

_GROUP = 32
_PACKED_GROUP = 17

Files = Mapping[str, File]


def pieces(files: Files, output: Output) -> Iterator[Chunk]:
    """The data of a tensor in pieces of whole rows, in its own type.

    Raises:
        CheckpointInvalid: a number that is not finite, or too large for the type.
        OperationFailed: the file ends too early.
    """
    if output.values:
        yield np.array(output.values, "<f4").reshape(1, -1)
        return
    for part in output.parts:
        one = AddOne() in part.steps
        for chunk in _rows(files, part):
            made = _typed(_moved(chunk, part.steps), _type(part), output.type, part.stored)
            yield made + np.float32(1) if one else made


def _type(part: Part) -> str:
    """The type of a part's numbers as `_rows` gives them."""
    match part.view:
        case Scaled():
            return "BF16"
        case Packed4():
            return "MXFP4"
    return part.stored.dtype


def _rows(files: Files, part: Part) -> Iterator[Chunk]:
    """The rows of a part, unchanged but for the view."""
    match part.view:
        case Plain():
            yield from _plain(files, part)
        case Turned(matrix):
            yield from _turned(files, part, matrix)
        case Scaled(scales, block):
            yield from _scaled(files, part, scales, block)
        case Packed4(scales):
            yield from _packed(files, part, scales)


def _spans(part: Part, columns: int) -> Iterator[tuple[int, int]]:
    """The row numbers, cut where a piece may end: between heads, and on the part's stride."""
    unit = part.step
    for step in part.steps:
        if isinstance(step, Pairs) and part.stop - part.start > 1:
            unit *= step.size
    count = max(1, CHUNK_ELEMENTS // max(1, columns) // unit) * unit
    for first in range(part.start, part.stop, count):
        yield first, min(first + count, part.stop)


def _read(files: Files, stored: Stored, first: int, last: int, columns: int) -> Chunk:
    """The stored rows `[first, last)` of so many elements each."""
    start = stored.start + first * columns * stored.width
    count = (last - first) * columns
    array = files[stored.file].array(start, count, _NATIVE[stored.dtype])
    return array.reshape(last - first, columns)


def _plain(files: Files, part: Part) -> Iterator[Chunk]:
    columns = part.stored.columns
    for first, last in _spans(part, columns):
        chunk = _read(files, part.stored, first, last, columns)
        yield chunk if part.step == 1 else chunk[:: part.step]


def _turned(files: Files, part: Part, matrix: int) -> Iterator[Chunk]:
    """Needs the matrix whole; its columns are the rows."""
    rows, columns = part.stored.shape[-2:]
    whole = _read(files, part.stored, matrix * rows, (matrix + 1) * rows, columns)
    for first, last in _spans(part, rows):
        yield whole[:, first : last : part.step].T


def _scaled(files: Files, part: Part, scales: Stored, block: tuple[int, int]) -> Iterator[Chunk]:
    high, wide = block
    columns, across = part.stored.columns, scales.columns
    for first, last in _spans(part, columns):
        numbers = _E4M3[_read(files, part.stored, first, last, columns)]
        above = _read(files, scales, first // high, (last - 1) // high + 1, across)
        factors = _floats(above, scales.dtype)[np.arange(first, last) // high - first // high]
        with np.errstate(over="ignore", invalid="ignore"):
            numbers *= np.repeat(factors, wide, axis=1)[:, :columns]
        _check_finite(numbers, "F32", part.stored)  # rounding could hide it
        yield _to_bf16(numbers)[:: part.step]


def _packed(files: Files, part: Part, scales: Stored) -> Iterator[Chunk]:
    """A block of the GGUF is its scale and 16 bytes, whose nibbles lie in another order."""
    groups = part.stored.shape[-2]
    for first, last in _spans(part, groups * _GROUP):
        blocks = _read(files, part.stored, first, last, groups * 16)[:: part.step]
        powers = _read(files, scales, first, last, groups)[:: part.step]
        pairs = blocks.reshape(len(blocks), groups, 16)
        low, high = pairs & 0x0F, pairs >> 4
        ordered = np.stack([low, high], axis=-1).reshape(len(blocks), groups, _GROUP)
        made = np.empty((len(blocks), groups, _PACKED_GROUP), np.uint8)
        made[:, :, 0] = powers
        made[:, :, 1:] = ordered[:, :, :16] | (ordered[:, :, 16:] << 4)
        yield made.reshape(len(blocks), groups * _PACKED_GROUP)


def _moved(chunk: Chunk, steps: tuple[Step, ...]) -> Chunk:
    """The steps that move numbers, whatever their type: 1 is added later, to floats."""
    for step in steps:
        if isinstance(step, Columns):
            chunk = chunk[:, step.start :: step.step]
        elif isinstance(step, Pairs):
            chunk = _paired(chunk, step.size)
    return chunk


def _paired(chunk: Chunk, size: int) -> Chunk:
    """Rows of each head reordered; of a vector, which is one row, the numbers."""
    if len(chunk) == 1:
        return chunk.reshape(-1, 2, size // 2).swapaxes(1, 2).reshape(1, -1)
    rows, columns = chunk.shape
    heads = chunk.reshape(rows // size, 2, size // 2, columns)
    return heads.swapaxes(1, 2).reshape(rows, columns)


def _typed(chunk: Chunk, given: str, wanted: str, stored: Stored) -> Chunk:
    """The numbers in another type, all of them finite."""
    if given != "MXFP4":
        _check_finite(chunk, given, stored)
    if given == wanted:
        return np.ascontiguousarray(chunk)
    numbers = _floats(chunk, given)
    if wanted == "F32":
        return np.ascontiguousarray(numbers)
    with np.errstate(over="ignore"):
        made = np.ascontiguousarray(numbers.astype("<f2"))
    if not _is_finite(made, "F16"):
        raise CheckpointInvalid(
            f"{shown(stored.file)}: tensor {shown(stored.name)} has numbers too large for F16"
        )
    return made


def _check_finite(chunk: Chunk, kind: str, stored: Stored) -> None:
    if not _is_finite(chunk, kind):
        raise CheckpointInvalid(
            f"{shown(stored.file)}: tensor {shown(stored.name)} has numbers that are not finite"
        )


def _is_finite(chunk: Chunk, kind: str) -> bool:
    """Whether no number is infinite or none, by two comparisons of its bits as integers.

    Positive ones that are not finite are the largest signed integers, negative ones the largest
    unsigned ones.
    """
    width = chunk.dtype.itemsize
    infinite = _INFINITE[kind]
    signed, unsigned = chunk.view(f"<i{width}"), chunk.view(f"<u{width}")
    sign = 1 << (8 * width - 1)
    return bool(signed.max() < infinite and unsigned.max() < infinite + sign)


def _floats(chunk: Chunk, kind: str) -> NDArray[np.float32]:
    """The numbers as float32, in memory of their own unless they are that."""
    if kind == "BF16":
        wide = chunk.astype("<u4")
        wide <<= 16
        return wide.view("<f4")
    return chunk.astype("<f4", copy=False)


def _to_bf16(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to the nearest, of two equally near to the even one."""
    bits: NDArray[np.uint32] = np.ascontiguousarray(numbers).view("<u4")
    lowest = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + (lowest + np.uint32(0x7FFF))) >> np.uint32(16)).astype(np.uint16)


def _e4m3_table() -> NDArray[np.float32]:
    """The value of each of the 256 bytes: 4 bits of exponent, 3 of fraction, no infinities."""
    table = np.empty(256, "<f4")
    for byte in range(256):
        exponent, fraction = byte >> 3 & 15, byte & 7
        if exponent == 15 and fraction == 7:
            value = np.nan
        elif exponent:
            value = (1 + fraction / 8) * 2.0 ** (exponent - 7)
        else:
            value = fraction / 8 * 2.0**-6
        table[byte] = -value if byte & 0x80 else value
    return table


_E4M3 = _e4m3_table()
