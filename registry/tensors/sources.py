"""What a model file is made from: metadata and tensors in the order of the file to be written.

A GGUF file is a source (`gguf_file.py`), a converted checkpoint is another (`checkpoint.py`). Who
writes takes the numbers as they come, or quantizes them on the way, so that a checkpoint becomes a
quantized file in one pass.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from registry.core.ggml import data_size
from registry.core.gguf import Tensor
from registry.core.gguf.writer import Pair

CHUNK_ELEMENTS = 1 << 20
"""About how many numbers a chunk of rows has: 4 MiB as float32."""

Chunk = NDArray[Any]

ELEMENTS: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
"""How chunks hold the numbers of these types; those of all others are bytes, `uint8`."""


class Source(Protocol):
    """A model in the making. `pairs` are its typed values, `tensors` what `chunks` is asked for."""

    @property
    def pairs(self) -> Sequence[Pair]:
        """Keys and typed values, in the order of the file."""

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The tensors in the order of the file, each with the type that its chunks have."""

    def chunks(self, tensor: Tensor) -> Iterator[Chunk]:
        """The data of a tensor in order, in the tensor's own type, a few MiB of whole rows each.

        Every chunk is C-contiguous, its data nobody else's, of shape `(rows, width)`: `width` is
        `shape[0]` for the types in `ELEMENTS`, and the bytes of a row for the others. A tensor may
        be asked for in any order, but one at a time.

        Raises:
            OperationFailed: the data cannot be read or are not what they should be.
        """


def rows_per_chunk(tensor: Tensor) -> int:
    """How many rows of a tensor make a chunk."""
    return max(1, CHUNK_ELEMENTS // tensor.shape[0])


def row_count(tensor: Tensor) -> int:
    """How many rows a tensor has, over all its dimensions but the first."""
    return data_size(tensor.type, tensor.shape) // row_bytes(tensor)


def row_bytes(tensor: Tensor) -> int:
    """The bytes of one row."""
    return data_size(tensor.type, tensor.shape[:1])
