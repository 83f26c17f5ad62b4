"""GGUF files as sources: every byte of every tensor, shards joined, faults named."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest

from registry.core.errors import GgufInvalid, OperationFailed
from registry.core.gguf import Entry, Kind, Tensor
from registry.tensors.files import File
from registry.tensors.gguf_file import GgufFile, Joined
from tests.support.gguf import ARCHITECTURE, TensorSpec, gguf
from tests.support.gguf_source import read
from tests.support.weighty import file_of, gguf_of, model, parts, shards, stored


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.mark.parametrize("kind", ["F16", "F32", "BF16"])
def test_chunks_are_the_tensors_numbers_in_their_own_type(kind: str, stack: ExitStack) -> None:
    pairs, tensors = parts(kind)
    source = GgufFile(stack.enter_context(file_of(gguf_of(pairs, tensors))))
    assert [tensor.name for tensor in source.tensors] == list(tensors)
    assert [key for key, _ in source.pairs] == [key for key, _ in pairs]
    for tensor in source.tensors:
        stored_kind, numbers = tensors[tensor.name]
        chunks = list(source.chunks(tensor))
        assert b"".join(chunk.tobytes() for chunk in chunks) == stored(numbers, stored_kind)
        assert all(chunk.shape[1] == tensor.shape[0] for chunk in chunks)


def test_large_tensors_come_in_chunks_of_whole_rows_that_do_not_share_memory(
    stack: ExitStack,
) -> None:
    numbers = np.zeros((2500, 1000), np.float32)
    source = GgufFile(
        stack.enter_context(file_of(gguf_of([parts()[0][0]], {"t": ("F16", numbers)})))
    )
    chunks = list(source.chunks(source.tensors[0]))
    assert [chunk.shape for chunk in chunks] == [(1048, 1000), (1048, 1000), (404, 1000)]
    assert not any(np.shares_memory(one, two) for one in chunks for two in chunks if one is not two)


def test_quantized_tensors_come_as_the_bytes_of_rows(stack: ExitStack) -> None:
    data = gguf(ARCHITECTURE, tensors=[TensorSpec("t", (256, 6), 12)])
    source = GgufFile(stack.enter_context(file_of(data)))
    (chunk,) = source.chunks(Tensor("t", "Q4_K", (256, 6)))
    assert chunk.shape == (6, 144)
    assert chunk.dtype == np.uint8


@pytest.mark.parametrize("count", [2, 3, 5])
def test_shards_are_one_model_again(count: int, stack: ExitStack) -> None:
    pairs, tensors = parts()
    files = [stack.enter_context(file_of(shard)) for shard in shards(count)]
    joined = Joined([GgufFile(file) for file in files])
    assert [key for key, _ in joined.pairs] == [key for key, _ in pairs]
    for tensor in joined.tensors:
        data = b"".join(chunk.tobytes() for chunk in joined.chunks(tensor))
        kind, numbers = tensors[tensor.name]
        assert data == stored(numbers, kind)


def test_shards_with_a_tensor_twice_are_refused(stack: ExitStack) -> None:
    sources = [GgufFile(stack.enter_context(file_of(model()))) for _ in range(2)]
    with pytest.raises(OperationFailed, match="the same tensor in two shards"):
        Joined(sources)


def test_a_broken_file_is_named_with_its_fault(stack: ExitStack) -> None:
    with pytest.raises(GgufInvalid, match=r"odd\.gguf: .*unexpected EOF"):
        GgufFile(stack.enter_context(file_of(model()[:50], "odd.gguf")))


def test_a_file_that_becomes_shorter_is_noticed(stack: ExitStack) -> None:
    data = model()
    file = stack.enter_context(file_of(data))
    source = GgufFile(file)
    os.truncate(file.descriptor, read(data).data_start + 100)
    with pytest.raises(OperationFailed, match=r"model.gguf ends at byte \d+"):
        for tensor in source.tensors:
            list(source.chunks(tensor))


def test_reading_beyond_what_was_said_to_be_there_is_refused(stack: ExitStack) -> None:
    file = stack.enter_context(file_of(b"12345"))
    assert (file.read(1, 3), file.read(5, 5)) == (b"23", b"")
    for start, stop in ((0, 6), (-1, 2)):
        with pytest.raises(OperationFailed, match="ends at byte 5"):
            file.read(start, stop)


def test_a_descriptor_that_cannot_be_read_is_an_error_without_a_path(stack: ExitStack) -> None:
    with pytest.raises(OperationFailed, match="m cannot be read: Bad file descriptor"):
        File("m", 987, 10).read(0, 5)


def test_split_keys_of_the_architecture_go_too(stack: ExitStack) -> None:
    pairs, tensors = parts()
    own = [*pairs, ("llama.split.count", Entry(Kind.U16, 1))]
    joined = Joined([GgufFile(stack.enter_context(file_of(gguf_of(own, tensors))))])
    assert [key for key, _ in joined.pairs] == [key for key, _ in pairs]
