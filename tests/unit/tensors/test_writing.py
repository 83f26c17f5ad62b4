"""Whole files written in one pass: planned sizes kept, order and stamps as llama.cpp has them."""

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest

from registry.core.errors import OperationFailed, Unsupported
from registry.core.gguf import Header, Tensor
from registry.core.quantize import TARGETS, target
from registry.tensors.engine import find_engine
from registry.tensors.gguf_file import GgufFile, Joined
from registry.tensors.kernels import Kernels
from registry.tensors.sources import Chunk, Source
from registry.tensors.writing import Writer, check, draft
from tests.support.gguf_source import read
from tests.support.weighty import file_of, gguf_of, model, parts, shards

ENGINE = find_engine()
needs_engine = pytest.mark.skipif(ENGINE.library is None, reason="the engine is not installed")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def written(
    source: Source, name: str, threads: int = 2, *, engine: bool = True, canonical: bool = False
) -> bytes:
    wanted = target(name) if name else None
    kernels = Kernels(ENGINE.library if engine else None)
    made = draft(source, wanted, canonical=canonical)
    check(made, wanted, kernels, ": no engine")
    parts: list[bytes] = []
    done: list[int] = []
    Writer(source, kernels, threads).write(
        made, lambda data: parts.append(bytes(data)), done.append
    )
    data = b"".join(parts)
    assert len(data) == made.layout.size
    assert sum(done) == made.to_read
    return data


def types(header: Header) -> dict[str, str]:
    return {tensor.name: tensor.type for tensor in header.tensors}


def test_a_file_that_is_only_copied_is_the_same(stack: ExitStack) -> None:
    data = model()
    assert written(GgufFile(stack.enter_context(file_of(data))), "") == data


@needs_engine
@pytest.mark.parametrize("name", TARGETS)
def test_every_type_makes_a_file_that_says_so(name: str, stack: ExitStack) -> None:
    source = GgufFile(stack.enter_context(file_of(model("F32"))))
    header = read(written(source, name))
    assert list(header.entries)[-2:] == ["general.quantization_version", "general.file_type"]
    assert header.entries["general.file_type"].value == TARGETS[name].number
    found = types(header)
    assert found["output_norm.weight"] == "F32"
    assert found["blk.0.attn_q.weight"] == TARGETS[name].base
    assert list(found)[:3] == ["output.weight", "output_norm.weight", "token_embd.weight"]


@needs_engine
@pytest.mark.parametrize("name", ["Q4_K_M", "Q8_0", "BF16"])
def test_threads_change_nothing(name: str, stack: ExitStack) -> None:
    source = GgufFile(stack.enter_context(file_of(model(layers=3))))
    assert written(source, name, 1) == written(source, name, 7)


@needs_engine
def test_with_and_without_the_engine_the_bytes_are_the_same(stack: ExitStack) -> None:
    source = GgufFile(stack.enter_context(file_of(model())))
    for name in ("F32", "F16", "BF16", "Q8_0"):
        assert written(source, name, engine=False) == written(source, name)


@pytest.mark.parametrize("name", ["Q4_K_M", "Q4_0", "Q2_K"])
def test_what_needs_the_engine_says_so_before_anything_is_written(
    name: str, stack: ExitStack
) -> None:
    source = GgufFile(stack.enter_context(file_of(model())))
    with pytest.raises(Unsupported, match=f"^quantization {name} needs the engine: no engine$"):
        written(source, name, engine=False)


@needs_engine
@pytest.mark.parametrize("name", ["", "Q4_K_M"])
def test_shards_give_the_bytes_of_the_whole_file(name: str, stack: ExitStack) -> None:
    pairs, tensors = parts()
    whole = GgufFile(stack.enter_context(file_of(gguf_of(pairs, tensors))))
    files = [stack.enter_context(file_of(shard)) for shard in shards(3)]
    joined = Joined([GgufFile(file) for file in files])
    assert written(joined, name, canonical=True) == written(whole, name, canonical=True)


def test_a_file_without_a_type_is_not_given_one_by_copying(stack: ExitStack) -> None:
    pairs, tensors = parts()
    pairs = [pair for pair in pairs if pair[0] != "general.file_type"]
    source = GgufFile(stack.enter_context(file_of(gguf_of(pairs, tensors))))
    header = read(written(source, "", canonical=True))
    assert list(header.entries)[-1] == "general.quantization_version"
    assert "general.file_type" not in header.entries


class Liar:
    """A source whose tensor has another size than it says."""

    pairs = ()
    tensors = (Tensor("t", "F32", (8, 8)),)

    def chunks(self, tensor: Tensor) -> Iterator[Chunk]:
        yield np.zeros((3, 8), np.float32)


def test_a_source_that_gives_too_little_is_an_error() -> None:
    with pytest.raises(OperationFailed, match='tensor "t" has another size than planned'):
        written(Liar(), "")


def test_an_error_in_a_thread_ends_the_writing(stack: ExitStack) -> None:
    pairs, tensors = parts("F32", layers=4)
    _, numbers = tensors["blk.1.attn_q.weight"]
    numbers[3, 3] = np.nan
    source = GgufFile(stack.enter_context(file_of(gguf_of(pairs, tensors))))
    with pytest.raises(OperationFailed, match=r'"blk\.1\.attn_q\.weight" has values that are not'):
        written(source, "Q8_0")
