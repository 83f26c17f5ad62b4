"""Headers of safetensors files: which tensor lies where, read without I/O and within bounds.

    length = header_length(first_8_bytes, file_size, name)
    tensors = parse_header(next_length_bytes, file_size, name)

Every number is compared with the bytes that exist before it means anything.

Source: safetensors format description (u64 length, JSON header, data); spec inference-and-gguf 8.2.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import orjson

from registry.core.convert.documents import shown
from registry.core.errors import CheckpointInvalid
from registry.core.strict_json import JsonInvalid, parse

PREFIX = struct.Struct("<Q")
MAX_TENSORS = 131_072
MAX_HEADER = 64 << 20
"""Bytes; the format allows 100 MB, but so many tensors need less than half of this."""

_MAX_DIMENSIONS = 8
_MAX_NAME = 512
_METADATA = "__metadata__"

WIDTHS = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}
"""Bytes of an element, by dtype."""

_OTHER_FORMATS = (
    (b"GGUF", "a GGUF file"),
    (b"PK\x03\x04", "a ZIP archive or a pickle file"),
    (b"\x80\x02", "a pickle file"),
    (b"\x80\x03", "a pickle file"),
    (b"\x80\x04", "a pickle file"),
    (b"\x80\x05", "a pickle file"),
    (b"version ", "a Git LFS pointer, not the file itself"),
    (b"<!DOCTYP", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89HDF", "an HDF5 file"),
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as a file holds it: row-major, in the file's bytes `[start, stop)`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    start: int
    stop: int

    @property
    def width(self) -> int:
        """Bytes of an element."""
        return WIDTHS[self.dtype]

    @property
    def columns(self) -> int:
        """Elements of a row; a vector is one row, a scalar a row of one."""
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self) -> int:
        """Rows, counted over all dimensions but the last."""
        return prod(self.shape[:-1])


def header_length(prefix: bytes, size: int, file: str) -> int:
    """The length in bytes of the JSON that follows the first eight bytes of a file.

    Raises:
        CheckpointInvalid: the file is too short, or no safetensors file.
    """
    other = next((words for magic, words in _OTHER_FORMATS if prefix.startswith(magic)), "")
    if other:
        raise CheckpointInvalid(f"{shown(file)}: this is {other}")
    if len(prefix) < PREFIX.size or size < PREFIX.size:
        raise CheckpointInvalid(f"{shown(file)}: not a safetensors file: too short")
    length = int(PREFIX.unpack(prefix[: PREFIX.size])[0])
    if length > size - PREFIX.size:
        raise CheckpointInvalid(
            f"{shown(file)}: truncated, or not a safetensors file: "
            f"its header would have {length} bytes, the file has {size}"
        )
    if not 2 <= length <= MAX_HEADER:
        raise CheckpointInvalid(f"{shown(file)}: a header of {length} bytes is not accepted")
    return length


def parse_header(header: bytes, size: int, file: str) -> tuple[Stored, ...]:
    """The tensors of a file of `size` bytes, in the order of their bytes.

    Raises:
        CheckpointInvalid: anything about the header is wrong; the message names file and tensor.
    """
    name = shown(file)
    if header.count(b"{") > 2 * MAX_TENSORS or header.count(b"[") > 4 * MAX_TENSORS:
        raise CheckpointInvalid(f"{name}: more than {MAX_TENSORS} tensors")
    try:
        found = parse(header)
    except JsonInvalid as error:
        raise CheckpointInvalid(f"{name}: bad safetensors header: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointInvalid(f"{name}: bad safetensors header: no object")
    found.pop(_METADATA, None)
    if len(found) > MAX_TENSORS:
        raise CheckpointInvalid(f"{name}: more than {MAX_TENSORS} tensors")
    base = PREFIX.size + len(header)
    tensors = sorted(
        (_stored(key, entry, file, base, size) for key, entry in found.items()),
        key=lambda tensor: (tensor.start, tensor.stop),
    )
    for before, after in pairwise(tensors):
        if after.start < before.stop:
            raise CheckpointInvalid(
                f"{name}: tensors {shown(before.name)} and {shown(after.name)} overlap"
            )
    return tuple(tensors)


def _stored(key: str, entry: Any, file: str, base: int, size: int) -> Stored:
    where = f"{shown(file)}: tensor {shown(key)}"
    if not key or len(key) > _MAX_NAME:
        raise CheckpointInvalid(f"{where}: a name has 1 to {_MAX_NAME} characters")
    if not isinstance(entry, dict):
        raise CheckpointInvalid(f"{where}: no object")
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise CheckpointInvalid(f"{where}: unknown dtype {shown(str(dtype))}")
    shape = _numbers(entry.get("shape"), _MAX_DIMENSIONS)
    if shape is None:
        raise CheckpointInvalid(f"{where}: bad shape")
    offsets = _numbers(entry.get("data_offsets"), 2)
    if offsets is None or len(offsets) != 2:
        raise CheckpointInvalid(f"{where}: bad data_offsets")
    start, stop = base + offsets[0], base + offsets[1]
    if not start <= stop <= size:
        raise CheckpointInvalid(f"{where}: its data ends at byte {stop}, the file has {size} bytes")
    if prod(shape) * WIDTHS[dtype] != stop - start:
        raise CheckpointInvalid(
            f"{where}: {stop - start} bytes are not those of {dtype} {list(shape)}"
        )
    return Stored(key, dtype, shape, file, start, stop)


def _numbers(value: Any, most: int) -> tuple[int, ...] | None:
    if not isinstance(value, list) or len(value) > most:
        return None
    if any(type(item) is not int or item < 0 for item in value):
        return None
    return tuple(value)


def unite(headers: Iterable[Iterable[Stored]]) -> dict[str, Stored]:
    """The tensors of all files by name.

    Raises:
        CheckpointInvalid: one name twice, or too many of them.
    """
    found: dict[str, Stored] = {}
    for tensors in headers:
        for tensor in tensors:
            other = found.setdefault(tensor.name, tensor)
            if other is not tensor:
                raise CheckpointInvalid(
                    f"tensor {shown(tensor.name)} is in {shown(other.file)} "
                    f"and in {shown(tensor.file)}"
                )
            if len(found) > MAX_TENSORS:
                raise CheckpointInvalid(f"more than {MAX_TENSORS} tensors")
    return found


def weight_files(names: Iterable[str], index: bytes | None, index_name: str) -> list[str]:
    """The files that hold the model's weights, out of all file names, in order.

    An index decides; without one it is every `.safetensors` file beside config.json, but for
    `consolidated…`, the other spelling of the same weights, when there are others.

    Raises:
        CheckpointInvalid: no such file, or the index names files that are not there.
    """
    here = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    if index is not None:
        return _indexed(index, index_name, set(here))
    plain = [name for name in here if not name.startswith("consolidated")]
    if plain or here:
        return plain or here
    raise CheckpointInvalid("no .safetensors file beside config.json")


def _indexed(index: bytes, name: str, here: set[str]) -> list[str]:
    wanted = sorted(set(_weight_map(index, name).values()))
    if not wanted:
        raise CheckpointInvalid(f"{name}: no weight_map")
    for file in wanted:
        if file not in here:
            raise CheckpointInvalid(f"{name} names {shown(file)}, which is not among the files")
    return wanted


def check_index(index: bytes, name: str, tensors: Mapping[str, Stored]) -> None:
    """Compare an index with what the files hold.

    Raises:
        CheckpointInvalid: a tensor it promises is not in the file it names.
    """
    for tensor, file in _weight_map(index, name).items():
        stored = tensors.get(tensor)
        if stored is None or stored.file != file:
            raise CheckpointInvalid(
                f"{name} names tensor {shown(tensor)} in {shown(file)}, which does not have it"
            )


def _weight_map(index: bytes, name: str) -> dict[str, str]:
    try:
        found = orjson.loads(index)
    except orjson.JSONDecodeError as error:
        raise CheckpointInvalid(f"{name}: {error}") from error
    listed = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(listed, dict) or not all(isinstance(file, str) for file in listed.values()):
        raise CheckpointInvalid(f"{name}: no weight_map")
    return listed
