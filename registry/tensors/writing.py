"""Writes a source as one GGUF, in one pass: header first, tensors quantized on the way.

What is read, converted and written is bounded by the number of threads, not by the tensors: rows go
through a queue of chunks that crosses from one tensor to the next.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from registry.core.errors import OperationFailed, Unsupported
from registry.core.facts import Value
from registry.core.ggml import data_size
from registry.core.gguf import Entry, Kind, Tensor
from registry.core.gguf.metadata import quoted
from registry.core.gguf.pairs import plain_value
from registry.core.gguf.writer import Encoded, Layout, Pair, layout, padded
from registry.core.quantize import Hyper, Target, in_file_order, plan
from registry.core.quantize.targets import PLAIN
from registry.tensors.kernels import Bytes, Kernels
from registry.tensors.sources import Chunk, Source

Out = Callable[[memoryview], None]
"""Takes bytes in order."""

_VERSION = "general.quantization_version"
_FILE_TYPE = "general.file_type"


@dataclass(frozen=True, slots=True)
class Draft:
    """The file as it will be: what stands before the data, and its tensors in order."""

    layout: Layout
    given: tuple[Tensor, ...]  # as the source has them
    wanted: tuple[Tensor, ...]  # as they are written

    @property
    def to_read(self) -> int:
        """Bytes of all source tensors, which progress is measured by."""
        return sum(data_size(tensor.type, tensor.shape) for tensor in self.given)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A chunk on its way: its bytes, now or later, and what of the source is then done."""

    made: Future[Bytes] | Chunk
    done: int = 0

    def bytes(self) -> memoryview:
        chunk = self.made.result() if isinstance(self.made, Future) else self.made
        return chunk.reshape(-1).view("u1").data


def draft(source: Source, target: Target | None, *, canonical: bool) -> Draft:
    """Plan a file. Without a target tensors stay as they are.

    `canonical` puts tensors and values of a file that is not quantized in the same order as those
    of one that is.

    Raises:
        GgufInvalid: the file would break a rule.
    """
    given = in_file_order(source.tensors) if target or canonical else list(source.tensors)
    wanted, pairs = given, list(source.pairs)
    if target:
        wanted = plan(given, Hyper.of(values_of(pairs)), target)
    if target or canonical:
        pairs = _stamped(pairs, target)
    return Draft(layout(pairs, wanted), tuple(given), tuple(wanted))


def values_of(pairs: Sequence[Pair]) -> dict[str, Value]:
    """The values that may be asked for: all but the vocabulary's, long arrays cut."""
    return {key: plain_value(value) for key, value in pairs if not key.startswith("tokenizer.")}


def _stamped(pairs: list[Pair], target: Target | None) -> list[Pair]:
    """The pairs with what was done to the tensors at their end."""
    stamps: dict[str, Entry | Encoded] = {_VERSION: Entry(Kind.U32, 2)}
    told = dict(pairs).get(_FILE_TYPE)
    if target is not None:
        stamps[_FILE_TYPE] = Entry(Kind.U32, target.number)
    elif told is not None:
        stamps[_FILE_TYPE] = told
    return [pair for pair in pairs if pair[0] not in stamps] + list(stamps.items())


def check(draft: Draft, target: Target | None, kernels: Kernels, fault: str) -> None:
    """Make sure that the kernels can do what the draft wants.

    Raises:
        Unsupported: they cannot, and why.
        OperationFailed: a source tensor cannot be read as numbers.
    """
    pairs = [
        (old.type, new.type)
        for old, new in zip(draft.given, draft.wanted, strict=True)
        if old.type != new.type
    ]
    needed = {kind for pair in pairs for kind in pair if kind not in PLAIN}
    if not all(kernels.can_make(kind) for kind in needed):
        name = target.name if target else ""
        raise Unsupported(f"quantization {name} needs the engine{fault}")
    kernels.prepare({new for _, new in pairs}, {old for old, _ in pairs})


class Writer:
    """Writes a draft to `out`; `advance` hears of source bytes that are done, in any thread."""

    def __init__(self, source: Source, kernels: Kernels, threads: int) -> None:
        self._source = source
        self._kernels = kernels
        self._threads = threads

    def write(self, made: Draft, out: Out, advance: Callable[[int], None]) -> None:
        """Write the whole file.

        Raises:
            OperationFailed: a tensor cannot be read or converted.
        """
        out(memoryview(made.layout.header))
        waiting: deque[_Piece] = deque()
        with ThreadPoolExecutor(self._threads) as pool:
            try:
                for piece in self._pieces(made, pool, advance):
                    waiting.append(piece)
                    if len(waiting) > self._threads + 1:
                        _finish(waiting.popleft(), out, advance)
                while waiting:
                    _finish(waiting.popleft(), out, advance)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _pieces(
        self, made: Draft, pool: ThreadPoolExecutor, advance: Callable[[int], None]
    ) -> Iterator[_Piece]:
        """All chunks of all tensors in order, each begun."""
        alignment = made.layout.alignment
        convert = self._kernels.convert
        for given, wanted, length in zip(made.given, made.wanted, made.layout.lengths, strict=True):
            total = 0
            for chunk in self._source.chunks(given):
                total += chunk.nbytes
                if given.type == wanted.type:
                    yield _Piece(chunk, chunk.nbytes)
                else:
                    yield _Piece(pool.submit(convert, chunk, given, wanted.type, advance))
            if total != data_size(given.type, given.shape):
                raise OperationFailed(f"tensor {quoted(given.name)} has another size than planned")
            filler = padded(length, alignment) - length
            if filler:
                yield _Piece(np.zeros(filler, np.uint8))


def _finish(piece: _Piece, out: Out, advance: Callable[[int], None]) -> None:
    out(piece.bytes())
    advance(piece.done)
