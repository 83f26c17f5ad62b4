"""GGUF headers written: the reader finds in them what was put in, and nothing bad gets out."""

import struct

import pytest

from registry.core.errors import GgufInvalid
from registry.core.gguf import Array, Entry, Kind, Tensor
from registry.core.gguf.values import Scalar
from registry.core.gguf.writer import Encoded, Layout, Pair, layout
from tests.support.gguf import text
from tests.support.gguf_source import read

NAME: Pair = ("general.architecture", Entry(Kind.STRING, "llama"))
SCALARS: list[tuple[Kind, Scalar]] = [
    (Kind.U8, 255),
    (Kind.I8, -128),
    (Kind.U16, 65_535),
    (Kind.I16, -32_768),
    (Kind.U32, 1 << 31),
    (Kind.I32, -1),
    (Kind.F32, 0.5),
    (Kind.BOOL, True),
    (Kind.STRING, "grüße"),
    (Kind.U64, 1 << 63),
    (Kind.I64, -(1 << 63)),
    (Kind.F64, 1e300),
]


def file(laid: Layout) -> bytes:
    return laid.header + bytes(laid.size - len(laid.header))


def test_what_is_written_is_read_again_in_the_same_order() -> None:
    pairs: list[Pair] = [NAME]
    pairs += [(f"k.{kind.name}", Entry(kind, value)) for kind, value in SCALARS]
    pairs += [
        (f"a.{kind.name}", Entry(Kind.ARRAY, Array(kind, (value, value))))
        for kind, value in SCALARS
    ]
    tensors = [Tensor("b", "Q4_K", (256, 3)), Tensor("a", "F32", (5,)), Tensor("c", "F16", (2, 2))]
    header = read(file(layout(pairs, tensors)))
    assert list(header.entries.items()) == pairs
    assert header.tensors == tuple(tensors)


def test_sizes_are_known_before_any_data() -> None:
    laid = layout([NAME], [Tensor("b", "Q4_K", (256, 3)), Tensor("a", "F32", (5,))])
    assert laid.lengths == (432, 20)
    assert laid.data_size == 452
    assert laid.size == len(laid.header) + 448 + 32
    assert len(laid.header) % 32 == 0


def test_a_value_of_another_file_is_written_as_it_stands() -> None:
    odd = Encoded(Kind.STRING, text(b"\xff\xfe"))
    laid = layout([NAME, ("x", odd)], [])
    assert text("x") + struct.pack("<I", Kind.STRING) + text(b"\xff\xfe") in laid.header


@pytest.mark.parametrize(
    "value", [Entry(Kind.U32, 64), Encoded(Kind.U32, memoryview(struct.pack("<I", 64)))]
)
def test_the_alignment_is_that_of_the_key(value: Entry | Encoded) -> None:
    laid = layout([NAME, ("general.alignment", value)], [Tensor("a", "F32", (5,))])
    assert laid.alignment == 64
    assert len(laid.header) % 64 == 0
    assert laid.size == len(laid.header) + 64
    assert read(file(laid)).alignment == 64


@pytest.mark.parametrize(
    ("pairs", "tensors", "words"),
    [
        ([NAME, NAME], [], '"general.architecture" would be written twice'),
        ([NAME], [Tensor("a", "F32", (1,))] * 2, '"a" would be written twice'),
        ([("x", Entry(Kind.U8, 256))], [], 'the value of "x" does not fit its type'),
        ([("x", Entry(Kind.ARRAY, Array(Kind.U8, (-1,))))], [], 'value of "x" does not fit'),
        ([("x", Entry(Kind.STRING, "\ud800"))], [], 'the value of "x" does not fit its type'),
        ([("x", Entry(Kind.STRING, None))], [], "a value that is not there"),
        ([("general.alignment", Entry(Kind.U32, 12))], [], "invalid GGUF alignment: 12"),
        ([("general.alignment", Entry(Kind.STRING, "x"))], [], "invalid GGUF alignment: x"),
        ([], [Tensor("", "F32", (1,))], 'tensor name "" is empty or too long'),
        ([], [Tensor("n" * 64, "F32", (1,))], "is empty or too long"),
        ([], [Tensor("a", "F32", ())], "cannot have the shape []"),
        ([], [Tensor("a", "F32", (1, 0))], "cannot have the shape [1, 0]"),
        ([], [Tensor("a", "F32", (1,) * 5)], "cannot have the shape"),
        ([], [Tensor("a", "Q4_K", (128, 2))], "rows of 128 values, not whole blocks of 256"),
    ],
)
def test_what_no_reader_would_take_is_not_written(
    pairs: list[Pair], tensors: list[Tensor], words: str
) -> None:
    with pytest.raises(GgufInvalid) as caught:
        layout(pairs, tensors)
    assert words in str(caught.value)
