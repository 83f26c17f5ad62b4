"""Numbers from one type to another, by ggml's own code where it is there, by numpy where that does.

The kernels come out of the engine's shared library, which exports all of ggml. They are plain C on
the memory handed in and let go of the interpreter's lock, so threads scale. Without the library
F32, F16, BF16 and Q8_0 are still complete, bytes equal.

Source: spec inference-and-gguf 7.2, 7.4.
"""

import ctypes
import threading
from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.core.errors import OperationFailed
from registry.core.ggml import TYPE_NUMBERS, data_size
from registry.core.gguf import Tensor
from registry.core.gguf.metadata import quoted
from registry.tensors.sources import ELEMENTS, Chunk

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

_STEP = 1 << 16
"""About how many numbers are converted at a time: as float32 they stay in a core's own cache."""
_NUMPY = frozenset({"F32", "F16", "BF16", "Q8_0"})
_LARGEST = {"F16": 65_520.0, "BF16": 3.3961775e38, "Q8_0": 65_520.0 * 127}
"""From here on rounding gives infinity, in the numbers or in a block's scale."""
_P, _L, _I = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


class Kernels:
    """Conversions between tensor types; safe for threads."""

    def __init__(self, library: ctypes.CDLL | None) -> None:
        self._library = library
        self._own = threading.local()
        self._widening: dict[str, Any] = {}
        if library is not None:
            library.ggml_quantize_init.argtypes = [_I]
            library.ggml_quantize_init.restype = None
            library.ggml_quantize_chunk.argtypes = [_I, _P, _P, _L, _L, _L, _P]
            library.ggml_quantize_chunk.restype = ctypes.c_size_t
            library.ggml_validate_row_data.argtypes = [_I, _P, ctypes.c_size_t]
            library.ggml_validate_row_data.restype = ctypes.c_bool
            self._widening["F16"] = _f16_reader(library)

    def can_make(self, kind: str) -> bool:
        """Whether numbers can be written as `kind`."""
        return kind in _NUMPY or self._library is not None

    def prepare(self, wanted: Iterable[str], sources: Iterable[str]) -> None:
        """Get ready to make and to read these types: not safe for threads, so done before.

        Raises:
            OperationFailed: one of the sources cannot be read as numbers.
        """
        for kind in set(sources) - set(ELEMENTS):
            self._widening[kind] = self._reader(kind)
        for kind in set(wanted) - _NUMPY if self._library else ():
            assert self._library is not None
            self._library.ggml_quantize_init(TYPE_NUMBERS[kind])

    def _reader(self, kind: str) -> Any:
        name = kind.lower().replace("_k", "_K")
        found = getattr(self._library, f"dequantize_row_{name}", None)
        if found is None:
            raise OperationFailed(f"tensors of type {kind} cannot be converted")
        return _reading(found)

    def convert(
        self, chunk: Chunk, given: Tensor, wanted: str, advance: Callable[[int], None]
    ) -> Bytes:
        """Rows of the tensor `given`, as bytes of the type `wanted`.

        `advance` hears of source bytes that are done, in any thread.

        Raises:
            OperationFailed: a number that is not finite, or too large; names the tensor.
        """
        rows, width, name = len(chunk), given.shape[0], given.name
        length = data_size(wanted, (width,))
        made = np.empty(rows * length, np.uint8)
        step = max(1, _STEP // width)
        for first in range(0, rows, step):
            part = chunk[first : first + step]
            numbers = self._widened(part, given.type, width)
            low, high = float(numbers.min()), float(numbers.max())
            _check(name, wanted, low, high)
            out = made[first * length : (first + len(part)) * length]
            self._write(numbers, wanted, width, out, name)
            advance(part.nbytes)
        return made

    def _widened(self, part: Chunk, given: str, width: int) -> Floats:
        """The numbers as float32, in this thread's own memory."""
        if given == "F32":
            return part.reshape(-1)
        source = part.reshape(-1)
        numbers = self._scratch(len(part) * width)
        read = self._widening.get(given)
        if read is not None:
            read(*_pointers(source, numbers), len(numbers))
        elif given == "BF16":
            whole = numbers.view(np.uint32)
            np.copyto(whole, source)
            np.left_shift(whole, 16, out=whole)
        else:
            np.copyto(numbers, source)
        return numbers

    def _scratch(self, count: int) -> Floats:
        found: Floats | None = getattr(self._own, "numbers", None)
        if found is None or len(found) < count:
            found = self._own.numbers = np.empty(count, np.float32)
        return found[:count]

    def _write(self, numbers: Floats, wanted: str, width: int, out: Bytes, name: str) -> None:
        if wanted == "F32":
            out.view(np.float32)[:] = numbers
        elif wanted == "F16":
            out.view(np.float16)[:] = numbers
        elif wanted == "BF16":
            out.view(np.uint16)[:] = _bf16(numbers)
        elif self._library is None:
            out[:] = _q8_0(numbers)
        else:
            self._quantize(numbers, wanted, width, out, name)

    def _quantize(self, numbers: Floats, wanted: str, width: int, out: Bytes, name: str) -> None:
        library, number = self._library, TYPE_NUMBERS[wanted]
        assert library is not None
        source, target = _pointers(numbers, out)
        rows = len(numbers) // width
        written = library.ggml_quantize_chunk(number, source, target, 0, rows, width, None)
        if written != len(out) or not library.ggml_validate_row_data(number, target, written):
            raise OperationFailed(f"tensor {quoted(name)} cannot be quantized to {wanted}")


def _f16_reader(library: ctypes.CDLL) -> Any:
    """The vector code for F16 if it is there and right, eight times as fast as the plain one."""
    fast = getattr(library, "ggml_cpu_fp16_to_fp32", None)
    if fast is not None and hasattr(library, "ggml_cpu_init"):
        library.ggml_cpu_init()  # fills a table that the ends of rows are read by
        given = np.linspace(-7, 7, 77, dtype=np.float16)
        found = np.empty(77, np.float32)
        _reading(fast)(*_pointers(given, found), 77)
        if np.array_equal(found, given.astype(np.float32)):
            return fast
    return _reading(library.ggml_fp16_to_fp32_row)


def _reading(function: Any) -> Any:
    """A function of ggml that reads numbers: from, to, how many."""
    function.argtypes, function.restype = [_P, _P, _L], None
    return function


def _pointers(source: Chunk, target: Chunk) -> tuple[int, int]:
    return source.ctypes.data, target.ctypes.data


def _check(name: str, wanted: str, low: float, high: float) -> None:
    if not (isfinite(low) and isfinite(high)):
        raise OperationFailed(f"tensor {quoted(name)} has values that are not finite")
    limit = _LARGEST.get(wanted)
    if limit is not None and max(-low, high) >= limit:
        value = high if high >= -low else low
        raise OperationFailed(f"tensor {quoted(name)} has {value:g}, too large for {wanted}")


def _bf16(numbers: Floats) -> NDArray[np.uint16]:
    """Rounded to nearest, ties to even. The numbers are finite."""
    bits = numbers.view(np.uint32)
    odd = (bits >> 16) & 1
    return ((bits + (odd + 0x7FFF)) >> 16).astype(np.uint16)


def _q8_0(numbers: Floats) -> Bytes:
    """Blocks of 32: a scale as float16 and 32 signed bytes, rounded half away from zero."""
    blocks = numbers.reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore"):
        factor = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
    scaled = blocks * factor
    size = np.abs(scaled)
    whole = np.floor(size)
    rounded = np.copysign(whole + np.floor(2 * (size - whole)), scaled)
    packed = np.empty((len(blocks), 34), np.uint8)
    packed[:, :2] = scale.astype(np.float16).view(np.uint8)
    packed[:, 2:] = rounded.astype(np.int8).view(np.uint8)
    return packed.reshape(-1)
