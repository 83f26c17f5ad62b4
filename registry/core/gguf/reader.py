"""The reader of whole headers, and the list of tensors.

Source: spec inference-and-gguf 6.2, 6.3; wording as in `metadata.py`.
"""

import struct
from array import array
from math import prod

from registry.core.errors import GgufInvalid
from registry.core.ggml import TENSOR_TYPES, TensorType
from registry.core.gguf.header import Header, Tensor
from registry.core.gguf.metadata import MAX_KEYS, Metadata, fault, quoted
from registry.core.gguf.values import U32, U64
from registry.core.gguf.window import Need, Reading, Window

MAX_TENSORS = 131_072
MAX_NAME = 63
MAX_DIMENSIONS = 4
MAX_DIMENSION = (1 << 40) - 1
MAX_TENSOR_ELEMENTS = 1 << 60

_U64_MAX = (1 << 64) - 1
_COUNTS = struct.Struct("<QQ")
_SHAPES = [struct.Struct(f"<{count}Q") for count in range(MAX_DIMENSIONS + 1)]
_TENSOR_ROOM = 8 + MAX_NAME + 4 + 8 * MAX_DIMENSIONS + 4 + 8
_NOT_GGUF = "supplied file was not in GGUF format"
_VERSIONS = (2, 3)
_PREFIXES = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"version https://git-lfs.github.com/", "a Git LFS pointer, not the file it stands for"),
    (b"GGML", "a GGML file"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
)


class HeaderReader:
    """Reads the header of a file of `file_size` bytes from the ranges that it asks for.

    `need` is the offset and length of the bytes to feed next, at most 9 MiB and always inside the
    file; None when `header` is there.
    """

    def __init__(self, file_size: int) -> None:
        """Begin.

        Raises:
            GgufInvalid: the file is empty.
        """
        self.header: Header | None = None
        self.need: Need | None = None
        self._steps = _read(Window(file_size))
        self._go_on(None)

    def feed(self, data: bytes) -> None:
        """Take the bytes that `need` asked for, or the first part of them.

        Raises:
            GgufInvalid: the header breaks a rule; the reader is of no more use.
            ValueError: no bytes, more than asked for, or nothing was asked for.
        """
        if self.need is None or not 0 < len(data) <= self.need[1]:
            raise ValueError("not the bytes that were asked for")
        self._go_on(data)

    def _go_on(self, data: bytes | None) -> None:
        self.need = None
        try:
            self.need = next(self._steps) if data is None else self._steps.send(data)
        except StopIteration as end:
            self.header = end.value


def _read(window: Window) -> Reading[Header]:
    yield from window.fill(64)
    _check_magic(window)
    version = _version(window)
    counted_at = window.offset
    tensor_count, key_count = window.unpack(_COUNTS)
    _check_counts(window, tensor_count, key_count, counted_at)
    metadata = Metadata(window)
    yield from metadata.read(key_count)
    listed = _Tensors(window)
    yield from listed.read(tensor_count)
    alignment = metadata.alignment()
    start = _padded(window.offset, alignment)
    stop = listed.layout(alignment, start)
    metadata.check_architecture()
    return Header(version, metadata.entries, tuple(listed.tensors), alignment, start, stop)


def _check_magic(window: Window) -> None:
    begin = window.peek(64)
    if begin[:4] == b"GGUF":
        window.take(4)
        return
    words = _NOT_GGUF
    for prefix, name in _PREFIXES:
        if begin.lstrip().lower().startswith(prefix.lower()):
            words = f"{_NOT_GGUF}: it is {name}"
    if begin[8:10] == b'{"' and U64.unpack_from(begin)[0] < window.size:
        words = f"{_NOT_GGUF}: it is a safetensors file"
    raise GgufInvalid(words, 0, not_gguf=True)


def _version(window: Window) -> int:
    at = window.offset
    (version,) = window.unpack(U32)
    if version in _VERSIONS:
        return int(version)
    if int.from_bytes(version.to_bytes(4, "little"), "big") in (1, *_VERSIONS):
        raise fault("big-endian GGUF files are not supported", at)
    raise fault(f"GGUF version {version} is not supported, only 2 and 3", at)


def _check_counts(window: Window, tensors: int, keys: int, at: int) -> None:
    """Refuse counts that no honest file has, unless the file ends here: then that is the fault."""
    if not window.left:
        return
    if tensors > MAX_TENSORS:
        raise fault(f"GGUF tensor count {tensors} exceeds maximum {MAX_TENSORS}", at)
    if keys > MAX_KEYS:
        raise fault(f"GGUF key count {keys} exceeds maximum {MAX_KEYS}", at + 8)


class _Tensors:
    """Reads the list of tensors."""

    def __init__(self, window: Window) -> None:
        self.tensors: list[Tensor] = []
        self._window = window
        self._names: set[str] = set()
        self._offsets = array("Q")  # as told; the tensors alone take most of the memory allowed
        self._lengths = array("Q")

    def read(self, count: int) -> Reading[None]:
        """Read `count` tensors.

        Raises:
            GgufInvalid: any rule about tensors is broken, but for where their data lies.
        """
        window = self._window
        for _ in range(count):
            if not window.has(_TENSOR_ROOM):
                yield from window.fill(_TENSOR_ROOM)
            self._tensor()
        window.context = ""
        self._names.clear()

    def _tensor(self) -> None:
        window = self._window
        at = window.offset
        window.context = "failed to read tensor name: "
        name = _name(window)
        if name in self._names:
            raise fault(f"tensor {quoted(name)} appears twice", at)
        self._names.add(name)
        window.context = "failed to read tensor dimensions: "
        dimensions_at = window.offset
        (dimensions,) = window.unpack(U32)
        if dimensions > MAX_DIMENSIONS:
            words = f"dimensions {dimensions} exceeds maximum {MAX_DIMENSIONS}"
            raise GgufInvalid(f"tensor {quoted(name)} {words}", dimensions_at)
        window.context = "failed to read tensor shape: "
        shape = window.unpack(_SHAPES[dimensions], U64.size)
        window.context = "failed to read tensor kind: "
        (number,) = window.unpack(U32)
        window.context = "failed to read tensor offset: "
        (offset,) = window.unpack(U64)
        kind = _checked_type(name, shape, number, at)
        self.tensors.append(Tensor(name, kind.name, shape))
        self._offsets.append(offset)
        self._lengths.append(prod(shape) // kind.block * kind.size)

    def layout(self, alignment: int, start: int) -> int:
        """Check that all data is there, one after the other from `start` on; return its end.

        Raises:
            GgufInvalid: it is not.
        """
        size = self._window.size
        expected = stop = 0
        for index, (offset, length) in enumerate(zip(self._offsets, self._lengths, strict=True)):
            stop = offset + length
            if start + stop > size:
                words = f"offset+size ({start + stop}) exceeds file size ({size})"
                raise GgufInvalid(f"{self._named(index)} {words}", start + offset)
            if offset != expected:
                words = f"begins at {offset} of the data, not at {expected}"
                raise fault(f"{self._named(index)} {words}", start + offset)
            expected = _padded(stop, alignment)
        return start + stop

    def _named(self, index: int) -> str:
        return f"tensor {quoted(self.tensors[index].name)}"


def _name(window: Window) -> str:
    at = window.offset
    length = window.string_length()
    if length == 0:
        raise fault("a tensor's name is empty", at)
    if length > MAX_NAME:
        if length > window.left:
            raise window.cut(length)
        raise fault(f"a tensor's name has {length} bytes, more than {MAX_NAME}", at)
    try:
        return window.take(length).decode()
    except UnicodeDecodeError as error:
        raise fault("a tensor's name is not UTF-8", at) from error


def _checked_type(name: str, shape: tuple[int, ...], number: int, at: int) -> TensorType:
    """The tensor's type, if type and shape are as they may be."""
    count = prod(shape)
    kind = TENSOR_TYPES.get(number)
    if count > _U64_MAX:
        raise GgufInvalid(f"tensor {quoted(name)} elements overflow", at)
    if not shape:
        words = "has no dimensions"
    elif not 0 < min(shape) <= max(shape) <= MAX_DIMENSION:
        words = f"has a dimension of {max(shape) if min(shape) else 0}"
    elif count > MAX_TENSOR_ELEMENTS:
        words = f"has {count} elements, more than {MAX_TENSOR_ELEMENTS}"
    elif kind is None:
        words = f"has unknown type {number}"
    elif shape[0] % kind.block:
        words = f"has rows of {shape[0]} values, not whole blocks of {kind.block} as in {kind.name}"
    else:
        return kind
    raise fault(f"tensor {quoted(name)} {words}", at)


def _padded(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
