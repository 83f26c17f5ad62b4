"""GGUF files as sources: one of them, or the shards of one model joined.

The header is checked by the same reader as everywhere, so the places of all tensors lie inside the
file; that files of one model fit together is checked here.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from registry.core.errors import GgufInvalid, OperationFailed
from registry.core.ggml import data_size
from registry.core.gguf import Header, HeaderReader, Tensor
from registry.core.gguf.pairs import encoded_pairs
from registry.core.gguf.writer import Pair, padded
from registry.tensors.files import File
from registry.tensors.sources import (
    CHUNK_ELEMENTS,
    ELEMENTS,
    Chunk,
    row_bytes,
    row_count,
)

_SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")


class GgufFile:
    """One GGUF file."""

    def __init__(self, file: File) -> None:
        """Read the header.

        Raises:
            GgufInvalid: it breaks a rule.
        """
        header = _read_header(file)
        self.tensors: Sequence[Tensor] = header.tensors
        self.pairs: Sequence[Pair] = encoded_pairs(header, file.read(0, header.data_start))
        self._file = file
        self._starts = _starts(header)

    def chunks(self, tensor: Tensor) -> Iterator[Chunk]:
        """The tensor's data; see `Source`."""
        rows, length = row_count(tensor), row_bytes(tensor)
        kind = ELEMENTS.get(tensor.type, np.dtype(np.uint8))
        width = length // kind.itemsize
        step = max(1, CHUNK_ELEMENTS // tensor.shape[0])
        start = self._starts[tensor.name]
        for first in range(0, rows, step):
            count = min(step, rows - first)
            numbers = self._file.array(start + first * length, count * width, kind)
            yield numbers.reshape(count, width)


class Joined:
    """The shards of one model as one file: the values of the first, the tensors of all."""

    def __init__(self, shards: Sequence[GgufFile]) -> None:
        """Join shards that are in order.

        Raises:
            OperationFailed: two of them have a tensor of the same name.
        """
        self.pairs: Sequence[Pair] = [pair for pair in shards[0].pairs if not _is_split(pair[0])]
        self._owners = {tensor.name: shard for shard in shards for tensor in shard.tensors}
        self.tensors: Sequence[Tensor] = [tensor for shard in shards for tensor in shard.tensors]
        if len(self._owners) != len(self.tensors):
            raise OperationFailed("split GGUF has the same tensor in two shards")

    def chunks(self, tensor: Tensor) -> Iterator[Chunk]:
        """The tensor's data; see `Source`."""
        return self._owners[tensor.name].chunks(tensor)


def _is_split(key: str) -> bool:
    return any(key == name or key.endswith(f".{name}") for name in _SPLIT_KEYS)


def _read_header(file: File) -> Header:
    try:
        reader = HeaderReader(file.size)
        while reader.need is not None:
            start, length = reader.need
            reader.feed(file.read(start, start + length))
    except GgufInvalid as error:
        raise GgufInvalid(f"{file.name}: {error}", error.offset) from error
    assert reader.header is not None
    return reader.header


def _starts(header: Header) -> dict[str, int]:
    """Where each tensor's data begins; the reader has made sure that it does."""
    starts, at = {}, header.data_start
    for tensor in header.tensors:
        starts[tensor.name] = at
        at += padded(data_size(tensor.type, tensor.shape), header.alignment)
    return starts
