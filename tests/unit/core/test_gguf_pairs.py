"""Values of a header taken over into another file: byte for byte, and readable where asked."""

import pytest

from registry.core.errors import GgufInvalid
from registry.core.gguf import Array, Entry, Kind, Span
from registry.core.gguf.pairs import encoded_pairs, plain_value
from registry.core.gguf.writer import Encoded, layout
from tests.support.gguf import array, field, gguf
from tests.support.gguf_source import read

FIELDS = [
    field("general.architecture", Kind.STRING, "llama"),
    field("odd", Kind.STRING, b"\xff\x00\xfe"),
    field("count", Kind.U32, 7),
    field("ratio", Kind.F64, 0.1),
    field("yes", Kind.BOOL, True),
    array("heads", Kind.I32, [4, 2]),
    array("words", Kind.STRING, ["a", "bc", ""]),
    array("none", Kind.U8, []),
    array("long", Kind.U16, range(5000)),
    array("tokens", Kind.STRING, [f"t{n}" for n in range(3000)]),
]


def test_a_copied_header_has_the_same_bytes() -> None:
    data = gguf(*FIELDS)
    header = read(data)
    assert layout(encoded_pairs(header, data), []).header.startswith(data)


def test_values_can_be_read_whatever_form_they_have() -> None:
    data = gguf(*FIELDS)
    told = {key: plain_value(value) for key, value in encoded_pairs(read(data), data)}
    assert told["general.architecture"] == "llama"
    assert told["odd"] == "\N{REPLACEMENT CHARACTER}\x00\N{REPLACEMENT CHARACTER}"
    assert (told["count"], told["ratio"], told["yes"]) == (7, 0.1, True)
    assert (told["heads"], told["none"], told["words"]) == ((4, 2), (), None)
    assert told["long"] == tuple(range(1024))


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Entry(Kind.U32, 5), 5),
        (Entry(Kind.STRING, "x"), "x"),
        (Entry(Kind.STRING, None), None),
        (Entry(Kind.ARRAY, Array(Kind.U8, (1, 2))), (1, 2)),
        (Entry(Kind.ARRAY, Span(Kind.U8, 5000, 0, 5000)), None),
        (Encoded(Kind.I8, b"\xff"), -1),
    ],
)
def test_plain_values(value: Entry | Encoded, plain: object) -> None:
    assert plain_value(value) == plain


@pytest.mark.parametrize("cut", [8, 30, 60, 200])
def test_bytes_that_are_not_those_of_the_header_are_noticed(cut: int) -> None:
    data = gguf(*FIELDS)
    with pytest.raises(GgufInvalid, match="the header changed"):
        encoded_pairs(read(data), data[:cut])


def test_a_string_that_grew_beyond_the_end_is_noticed() -> None:
    data = gguf(field("general.architecture", Kind.STRING, "llama"))
    changed = data[:-13] + b"\xff" + data[-12:]
    with pytest.raises(GgufInvalid, match="the header changed"):
        encoded_pairs(read(data), changed)
