"""The header reader: files it takes, what it keeps of them, and its contract."""

import hashlib
from pathlib import Path
from typing import Any

import gguf as reference
import pytest

from registry.core.gguf import Array, Entry, HeaderReader, Kind, Span, decode_array
from tests.support.gguf import (
    ARCHITECTURE,
    SMALLEST,
    TensorSpec,
    array,
    array_head,
    field,
    gguf,
    pair,
    preamble,
    text,
)
from tests.support.gguf_source import Sparse, read

INPUTS = Path(__file__).parents[2] / "golden/inputs"
GOOD = sorted(path for path in INPUTS.glob("**/*.gguf") if path.parent.name != "malformed")


# Good files


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.name)
def test_reads_what_the_gguf_package_reads(path: Path) -> None:
    header = read(path.read_bytes())
    theirs = reference.GGUFReader(path)
    fields = {name: field for name, field in theirs.fields.items() if name[:5] != "GGUF."}
    assert list(header.entries) == list(fields)
    for name, entry in header.entries.items():
        assert int(entry.kind) == fields[name].types[0]
        expected = fields[name].contents()
        if isinstance(entry.value, Array):
            assert list(entry.value.values) == expected
            assert int(entry.value.kind) == fields[name].types[-1]
        else:
            assert entry.value == expected
    assert [(tensor.name, tensor.type, list(tensor.shape)) for tensor in header.tensors] == [
        (tensor.name, tensor.tensor_type.name, tensor.shape.tolist()) for tensor in theirs.tensors
    ]
    assert header.data_start == theirs.data_offset
    last = theirs.tensors[-1]
    assert header.data_stop == last.data_offset + last.n_bytes


@pytest.mark.parametrize("step", [1, 7, 4096])
@pytest.mark.parametrize("name", ["kinds.gguf", "clip-mlp.gguf"])
def test_the_size_of_the_pieces_does_not_matter(name: str, step: int) -> None:
    data = (INPUTS / name).read_bytes()
    assert read(data, step) == read(data)


def test_the_smallest_file_is_taken() -> None:
    assert len(SMALLEST) == 68
    digest = "89a2116c3a82d6a97f59f748d86ed4417214353fd178ee54df418fde32495fad"
    assert hashlib.sha256(SMALLEST).hexdigest() == digest
    header = read(SMALLEST)
    assert header.entries == {"general.architecture": Entry(Kind.STRING, "test")}
    assert (header.version, header.tensors, header.alignment) == (3, (), 32)
    assert header.data_start == header.data_stop == 96


@pytest.mark.parametrize("version", [2, 3])
def test_versions_2_and_3_are_taken(version: int) -> None:
    assert read(gguf(ARCHITECTURE, version=version)).version == version


def test_bytes_after_the_data_are_ignored() -> None:
    data = gguf(ARCHITECTURE, tensors=[TensorSpec("t")])
    assert read(data + b"anything") == read(data)


@pytest.mark.parametrize("alignment", [8, 64, 65_536])
def test_data_follow_the_alignment(alignment: int) -> None:
    said = field("general.alignment", Kind.U32, alignment)
    tensors = [TensorSpec("a", (3,)), TensorSpec("b", (256, 2), 12), TensorSpec("c", (1,))]
    data = gguf(ARCHITECTURE, said, tensors=tensors, alignment=alignment)
    header = read(data)
    assert header.alignment == alignment
    assert header.data_start % alignment == 0
    assert header.data_stop == len(data) - alignment + 4  # the last tensor has four bytes


def test_padding_after_the_last_tensor_may_be_missing() -> None:
    data = gguf(ARCHITECTURE, tensors=[TensorSpec("t", (1,))])
    assert read(data[:-28]).data_stop == len(data) - 28


def test_any_byte_but_zero_is_true() -> None:
    data = gguf(ARCHITECTURE, pair("a", Kind.BOOL, b"\2"), pair("b", Kind.BOOL, b"\0"))
    entries = read(data).entries
    assert (entries["a"].value, entries["b"].value) == (True, False)


def test_bad_utf8_in_a_value_becomes_one_mark_a_byte() -> None:
    data = gguf(ARCHITECTURE, field("k", Kind.STRING, b"a\xe2\x82b\xff\xc3\xa9"))
    assert read(data).entries["k"].value == "a\ufffd\ufffdb\ufffdé"


def test_later_files_of_a_split_model_need_no_architecture() -> None:
    data = gguf(field("split.no", Kind.U16, 1), field("split.count", Kind.U16, 2))
    assert list(read(data).entries) == ["split.no", "split.count"]


# What is kept and what is left in the file


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Kind.U32, list(range(1025))),
        (Kind.BOOL, [True, False] * 600),
        (Kind.F64, [0.5] * 1025),
        (Kind.STRING, ["", "é", "token"] * 400),
    ],
)
def test_long_arrays_are_noted_and_can_be_fetched(kind: Kind, values: list[Any]) -> None:
    tail = field("after", Kind.U8, 7)
    data = gguf(ARCHITECTURE, array("k", kind, values), tail)
    entries = read(data).entries
    span = entries["k"].value
    assert isinstance(span, Span)
    assert (span.kind, span.count) == (kind, len(values))
    assert decode_array(span, data[span.offset : span.offset + span.length]) == values
    assert entries["after"] == Entry(Kind.U8, 7)


def test_1024_elements_are_kept() -> None:
    entries = read(gguf(ARCHITECTURE, array("k", Kind.STRING, ["x"] * 1024))).entries
    assert entries["k"].value == Array(Kind.STRING, ("x",) * 1024)


def test_strings_over_a_mebibyte_are_not_kept() -> None:
    data = gguf(
        field("long", Kind.STRING, "x" * (1 << 20) + "x"),
        array("mixed", Kind.STRING, ["a", "x" * (1 << 20) + "x", "b", "c"]),
        ARCHITECTURE,
    )
    entries = read(data).entries
    assert entries["long"] == Entry(Kind.STRING, None)
    span = entries["mixed"].value
    assert isinstance(span, Span)
    assert decode_array(span, data[span.offset : span.offset + span.length])[2:] == ["b", "c"]


def test_values_are_kept_up_to_a_budget() -> None:
    strings = [field(f"s{i}", Kind.STRING, "x" * 1_000_000) for i in range(6)]
    arrays = [array(f"a{i}", Kind.U8, [1] * 1024) for i in range(6)]
    entries = read(gguf(ARCHITECTURE, *strings, *arrays)).entries
    assert [entries[f"s{i}"].value is None for i in range(6)] == [False] * 4 + [True] * 2
    assert isinstance(entries["a0"].value, Array)
    assert isinstance(entries["a5"].value, Span)


def test_a_long_array_of_numbers_is_not_read() -> None:
    head = preamble(0, 2) + ARCHITECTURE + pair("k", Kind.ARRAY, array_head(Kind.U64, 16 << 20))
    file = Sparse(len(head) + (128 << 20), {0: head})
    read(file)
    assert sum(length for _, length in file.asked) <= 1 << 20


def test_a_vocabulary_across_many_reads_is_stepped_over() -> None:
    words = [f"{i:x}" * (i % 40) for i in range(100_000)]
    data = gguf(
        array("tokenizer.ggml.tokens", Kind.STRING, words),
        array("tokenizer.ggml.merges", Kind.STRING, words[::-1]),
        ARCHITECTURE,
    )
    assert len(data) > 15 << 20
    header = read(data)
    for key, expected in (("tokenizer.ggml.tokens", words), ("tokenizer.ggml.merges", words[::-1])):
        span = header.entries[key].value
        assert isinstance(span, Span)
        assert decode_array(span, data[span.offset : span.offset + span.length]) == expected


def test_strings_longer_than_what_is_at_hand_are_stepped_over() -> None:
    big = text("x" * (3 << 20)) * 3
    many = text("y") * 1500
    payload = many + big + many + big
    head = array_head(Kind.STRING, 3006)
    data = gguf(pair("k", Kind.ARRAY, head + payload), ARCHITECTURE)
    span = read(data).entries["k"].value
    assert isinstance(span, Span)
    assert span.length == len(payload)
    assert read(data, 100_000) == read(data)


@pytest.mark.parametrize(
    ("span", "data"),
    [
        (Span(Kind.U8, 2, 0, 2), b"abc"),
        (Span(Kind.STRING, 1, 0, 9), text("a")[:-1]),
        (Span(Kind.STRING, 2, 0, 9), text("a")),
        (Span(Kind.STRING, 2, 0, 16), b"\xff" * 16),
        (Span(Kind.STRING, 1, 0, 10), text("a") + b"b"),
    ],
)
def test_bytes_that_are_not_the_arrays_are_refused(span: Span, data: bytes) -> None:
    with pytest.raises(ValueError, match="not the bytes"):
        decode_array(span, data)


# The reader's own contract


def test_only_the_bytes_asked_for_are_taken() -> None:
    reader = HeaderReader(len(SMALLEST))
    assert reader.need == (0, 68)
    for data in (b"", SMALLEST + b"x"):
        with pytest.raises(ValueError, match="asked for"):
            reader.feed(data)
    reader.feed(SMALLEST[:10])
    assert reader.need == (10, 58)
    reader.feed(SMALLEST[10:])
    assert reader.need is None
    with pytest.raises(ValueError, match="asked for"):
        reader.feed(b"x")


def test_steps_grow_to_8_mib() -> None:
    words = pair("k", Kind.ARRAY, array_head(Kind.STRING, 3 << 20) + bytes(8) * (3 << 20))
    data = gguf(ARCHITECTURE, words)
    file = Sparse(len(data), {0: data})
    read(file)
    assert [length >> 20 for _, length in file.asked] == [1, 2, 4, 8, 8, 1]
