"""The header reader: files it takes, files it refuses, and in which words."""

import base64
import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf as reference
import numpy as np
import pytest

from registry.core.errors import GgufInvalid
from registry.core.gguf import (
    Array,
    Entry,
    Header,
    HeaderReader,
    Kind,
    Span,
    decode_array,
    shortest_float,
)
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
    tensor_info,
    text,
)

TESTS = Path(__file__).parents[2]
INPUTS = TESTS / "golden/inputs"
GOOD = sorted(path for path in INPUTS.glob("**/*.gguf") if path.parent.name != "malformed")
BAD = json.loads((TESTS / "data/gguf-bad-inputs.json").read_text())["files"]
CASES = json.loads((TESTS / "golden/cases/07-malformed.json").read_text())["cases"]
NOT_GGUF = "supplied file was not in GGUF format"


class Sparse:
    """A file of any size: zeros, but for the pieces given by offset."""

    def __init__(self, size: int, pieces: Mapping[int, bytes]) -> None:
        self.size = size
        self.pieces = pieces
        self.asked: list[tuple[int, int]] = []

    def range(self, start: int, length: int) -> bytes:
        self.asked.append((start, length))
        data = bytearray(length)
        for offset, piece in self.pieces.items():
            low, high = max(start, offset), min(start + length, offset + len(piece))
            if low < high:
                data[low - start : high - start] = piece[low - offset : high - offset]
        return bytes(data)


def read(source: bytes | Sparse, step: int = 1 << 30) -> Header:
    """Read a header, `step` bytes at a time."""
    file = Sparse(len(source), {0: source}) if isinstance(source, bytes) else source
    reader = HeaderReader(file.size)
    while reader.need is not None:
        start, length = reader.need
        assert 0 <= start < start + length <= file.size
        assert length <= 9 << 20
        reader.feed(file.range(start, min(length, step)))
    assert reader.header is not None
    return reader.header


def refusal(source: bytes | Sparse) -> GgufInvalid:
    with pytest.raises(GgufInvalid) as caught:
        read(source)
    return caught.value


def content(spec: dict[str, Any]) -> bytes:
    parts = spec["hex"] + spec.get("repeat", "") * spec.get("times", 0) + spec.get("tail", "")
    return bytes.fromhex(parts) + bytes(spec["pad"])


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


# Refusals that were recorded from the real server


def recorded() -> list[Any]:
    found = []
    for case in CASES:
        if "needs" in case:
            continue
        step = next(step for step in case["steps"] if step.get("json", {}).get("stream") is False)
        found.append(
            pytest.param(
                case["setup"][0]["file"],
                step["expect"]["body"]["error"],
                step["expect"]["status"] == 400,
                id=case["name"],
            )
        )
    return found


@pytest.mark.parametrize(("name", "message", "not_gguf"), recorded())
def test_recorded_refusals_come_out_word_for_word(name: str, message: str, not_gguf: bool) -> None:
    error = refusal((INPUTS / name).read_bytes())
    assert (str(error), error.not_gguf) == (message, not_gguf)


@pytest.mark.parametrize(
    ("name", "message", "not_gguf"),
    [
        ("bad-magic", NOT_GGUF, True),
        ("huge-tensor-count", "failed to read tensor name: EOF", False),
        (
            "truncated-data",
            'tensor "token_embd.weight" offset+size (42880) exceeds file size (40000)',
            False,
        ),
        (
            "truncated-last-byte",
            'tensor "blk.0.ffn_up.weight" offset+size (80000) exceeds file size (79999)',
            False,
        ),
        ("truncated-kv", "unexpected EOF", False),
        ("zero-alignment", "invalid GGUF alignment: 0", False),
        # these three the real server hands to its converter, which fails without a reason
        ("header-only", "GGUF key general.architecture is missing (at byte 24)", False),
        ("no-architecture", "GGUF key general.architecture is missing (at byte 62)", False),
        ("version-99", "GGUF version 99 is not supported, only 2 and 3 (at byte 4)", False),
    ],
)
def test_other_broken_files_are_refused(name: str, message: str, not_gguf: bool) -> None:
    error = refusal((INPUTS / f"malformed/{name}.gguf").read_bytes())
    assert (str(error), error.not_gguf) == (message, not_gguf)


def test_unknown_architectures_are_taken() -> None:
    header = read((INPUTS / "malformed/unknown-architecture.gguf").read_bytes())
    assert header.entries["general.architecture"].value == "nosucharch"


# The 49 bad files


@pytest.mark.parametrize("spec", BAD, ids=lambda spec: spec["name"])
def test_bad_files_are_refused(spec: dict[str, Any]) -> None:
    if spec["expect"] == "reject" or "no architecture" in spec["why"]:
        assert refusal(content(spec)).offset is not None
    else:
        assert read(content(spec)).entries["general.architecture"].kind is Kind.STRING


def test_every_bad_file_has_a_sentence_of_its_own() -> None:
    messages = {}
    for spec in BAD:
        if spec["expect"] == "reject":
            messages[spec["name"]] = str(refusal(content(spec)))
    # the real server's answer to a file that is too short for the magic is recorded
    assert messages.pop("3bytes") == messages["empty"] == NOT_GGUF
    # one rule broken twice: the place, or the number found, tells them apart
    assert len(set(messages.values())) == len(messages)


# One fault each, in our words


def kv(*fields: bytes) -> bytes:
    return preamble(0, len(fields) + 1) + ARCHITECTURE + b"".join(fields)


def tensors(*infos: bytes) -> bytes:
    return preamble(len(infos), 1) + ARCHITECTURE + b"".join(infos) + bytes(1 << 12)


AT = len(kv())  # where the first field after the architecture begins
FAULTS = {
    "zip": (b"PK\3\4" + bytes(60), f"{NOT_GGUF}: it is a ZIP archive"),
    "html": (b"\n<!DOCTYPE html><p>", f"{NOT_GGUF}: it is an HTML page"),
    "safetensors": (
        struct.pack("<Q", 2) + b'{"a":1}  ',
        f"{NOT_GGUF}: it is a safetensors file",
    ),
    "not quite safetensors": (struct.pack("<Q", 1 << 40) + b'{"a":1}', NOT_GGUF),
    "big-endian magic": (b"FUGG" + bytes(60), NOT_GGUF),
    "half a version": (b"GGUF\3", "unexpected EOF"),
    "no counts": (preamble(0, 0)[:8], "EOF"),
    "half the counts": (preamble(0, 0)[:20], "unexpected EOF"),
    "no key": (preamble(0, 1), "EOF"),
    "half a key's length": (preamble(0, 1) + b"\1", "unexpected EOF"),
    "a key's text missing": (preamble(0, 1) + text("abc")[:8], "EOF"),
    "half a key": (preamble(0, 1) + text("abc")[:-1], "unexpected EOF"),
    "no type": (preamble(0, 1) + text("abc"), "EOF"),
    "no value": (preamble(0, 1) + pair("abc", Kind.U8, b""), "EOF"),
    "a string missing": (preamble(0, 1) + pair("abc", Kind.STRING, text("x")[:8]), "EOF"),
    "half an array's head": (kv(pair("a", Kind.ARRAY, b"\4\0\0\0")), "EOF"),
    "two of three numbers": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.U32, 3) + bytes(8))),
        "EOF",
    ),
    "two and a half of three numbers": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.U32, 3) + bytes(10))),
        "unexpected EOF",
    ),
    "two of 2000 numbers": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.U32, 2000) + bytes(8))),
        "EOF",
    ),
    "a string array cut between strings": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.STRING, 2000) + text("x") * 1999)),
        "EOF",
    ),
    "a string array cut inside a length": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.STRING, 2000) + text("x") * 1999 + b"\1")),
        "unexpected EOF",
    ),
    "a string array cut after a length": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.STRING, 2000) + (text("x") * 2000)[:-1])),
        "EOF",
    ),
    "a string array cut inside a string": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.STRING, 1 << 20) + (text("xyz") * 2000)[:-1])),
        "unexpected EOF",
    ),
    "a short string array cut": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.STRING, 3) + text("x"))),
        "EOF",
    ),
    "a huge string in a long array": (
        kv(
            pair("a", Kind.ARRAY, array_head(Kind.STRING, 2000) + text("x") * 9),
            struct.pack("<Q", 1 << 63) + bytes(1 << 17),
        ),
        f"GGUF string length {1 << 63} exceeds maximum 16777216",
    ),
    "strings whose lengths add up to more than 64 bits": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.STRING, 2000) + b"\xff" * (1 << 17))),
        f"GGUF string length {(1 << 64) - 1} exceeds maximum 16777216",
    ),
    "a string of 16 MiB and a byte": (
        kv(pair("a", Kind.STRING, struct.pack("<Q", (16 << 20) + 1))),
        f'GGUF string length 16777217 exceeds maximum 16777216 (value of "a", at byte {AT + 13})',
    ),
    "a key of 64 KiB": (
        kv(field("x" * 65_536, Kind.U8, 1)),
        f"GGUF key of 65536 bytes exceeds maximum 65535 (at byte {AT})",
    ),
    "a key of 64 KiB, cut": (kv(field("x" * 65_536, Kind.U8, 1))[:-9], "unexpected EOF"),
    "keys of 4 MiB": (
        kv(*(field(f"{i:03}" + "x" * 65_000, Kind.U8, 1) for i in range(70))),
        f"GGUF keys take more than 4194304 bytes (at byte {AT + 64 * (8 + 65_003 + 5)})",
    ),
    "a key twice": (
        kv(field("a\n" + "x" * 90, Kind.U8, 1), field("a\n" + "x" * 90, Kind.U8, 1)),
        f'GGUF key "a\\n{"x" * 75}..." appears twice (at byte {AT + 105})',
    ),
    "an array of 16 Mi elements and one": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.U8, (16 << 20) + 1))),
        f'GGUF array "a" has 16777217 elements, more than 16777216 (at byte {AT + 13})',
    ),
    "vocabularies of more than 8 Mi strings": (
        kv(
            pair(
                "tokenizer.ggml.tokens",
                Kind.ARRAY,
                array_head(Kind.STRING, (8 << 20) + 1) + bytes(8),
            )
        ),
        'GGUF arrays up to "tokenizer.ggml.tokens" have 8388609 strings, more than 8388608'
        f" (at byte {AT + 33})",
    ),
    "an alignment of 4": (
        kv(field("general.alignment", Kind.U32, 4)),
        f"invalid GGUF alignment: 4 (at byte {AT})",
    ),
    "an alignment of 128 Ki": (
        kv(field("general.alignment", Kind.U32, 1 << 17)),
        f"invalid GGUF alignment: 131072 (at byte {AT})",
    ),
    "an alignment of 64 bits": (
        kv(field("general.alignment", Kind.U64, 32)),
        f"GGUF alignment is not a 32-bit number (at byte {AT})",
    ),
    "an architecture too long to be kept": (
        gguf(field("general.architecture", Kind.STRING, "x" * (1 << 20) + "x")),
        "GGUF key general.architecture is not a string (at byte 24)",
    ),
    "no tensor name": (preamble(1, 1) + ARCHITECTURE, "failed to read tensor name: EOF"),
    "half a tensor name": (
        preamble(1, 1) + ARCHITECTURE + text("abc")[:-1],
        "failed to read tensor name: unexpected EOF",
    ),
    "half a long tensor name": (
        preamble(1, 1) + ARCHITECTURE + text("x" * 70)[:-1],
        "failed to read tensor name: unexpected EOF",
    ),
    "a huge tensor name": (
        preamble(1, 1) + ARCHITECTURE + struct.pack("<Q", 1 << 62),
        f"failed to read tensor name: GGUF string length {1 << 62} exceeds maximum 16777216",
    ),
    "no tensor dimensions": (
        preamble(1, 1) + ARCHITECTURE + text("abc"),
        "failed to read tensor dimensions: EOF",
    ),
    "one of two dimensions": (
        preamble(1, 1) + ARCHITECTURE + tensor_info("abc", (1, 1))[:-20],
        "failed to read tensor shape: EOF",
    ),
    "no tensor kind": (
        preamble(1, 1) + ARCHITECTURE + tensor_info("abc", (1, 1))[:-12],
        "failed to read tensor kind: EOF",
    ),
    "half a tensor offset": (
        preamble(1, 1) + ARCHITECTURE + tensor_info("abc", (1, 1))[:-1],
        "failed to read tensor offset: unexpected EOF",
    ),
    "a tensor without name": (
        tensors(tensor_info("")),
        f"a tensor's name is empty (at byte {AT})",
    ),
    "a tensor name of 64 bytes": (
        tensors(tensor_info("x" * 64)),
        f"a tensor's name has 64 bytes, more than 63 (at byte {AT})",
    ),
    "a tensor name that is no UTF-8": (
        tensors(tensor_info(b"\xff")),
        f"a tensor's name is not UTF-8 (at byte {AT})",
    ),
    "a tensor without dimensions": (
        tensors(tensor_info('a"\\', ())),
        f'tensor "a\\"\\\\" has no dimensions (at byte {AT})',
    ),
    "a tensor too wide": (
        tensors(tensor_info("t", (1 << 40,))),
        f'tensor "t" has a dimension of 1099511627776 (at byte {AT})',
    ),
    "a tensor too large": (
        tensors(tensor_info("t", (1 << 30, (1 << 30) + 1))),
        f'tensor "t" has {(1 << 30) * ((1 << 30) + 1)} elements, more than {1 << 60}'
        f" (at byte {AT})",
    ),
    "a tensor that exists in memory only": (
        tensors(tensor_info("t", (256,), 15)),
        f'tensor "t" has unknown type 15 (at byte {AT})',
    ),
    "a gap between tensors": (
        tensors(tensor_info("t"), tensor_info("u", offset=160)),
        f'tensor "u" begins at 160 of the data, not at 128 (at byte {160 + 160})',
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_sentence(name: str) -> None:
    data, message = FAULTS[name]
    error = refusal(data)
    assert str(error) == message
    assert error.not_gguf == message.startswith(NOT_GGUF)


def test_a_header_over_512_mib_is_refused() -> None:
    pieces, at = {0: preamble(0, 9) + ARCHITECTURE}, len(preamble(0, 9) + ARCHITECTURE)
    for index in range(8):
        head = pair(f"k{index}", Kind.ARRAY, array_head(Kind.U64, 16 << 20))
        pieces[at] = head
        at += len(head) + (128 << 20)
    assert str(refusal(Sparse(at + (1 << 20), pieces))) == (
        "GGUF header is longer than 536870912 bytes"
    )


def test_every_prefix_of_a_header_is_refused() -> None:
    data = (INPUTS / "clip-mlp.gguf").read_bytes()
    for length in range(read(data).data_start):
        message = str(refusal(data[:length]))
        assert message == NOT_GGUF or message.endswith("EOF") or "exceeds file size" in message


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


FLOATS = [
    0.0,
    -0.0,
    0.1,
    1e-5,
    1e-6,
    1e21,
    16_777_216.0,
    3.4028234663852886e38,
    2.0**-126,
    2.0**-149,
    1e-45,
    1.1754942e-38,
    0.3333333432674408,
]


@pytest.mark.parametrize("value", FLOATS)
def test_floats_show_the_digits_of_their_float32(value: float) -> None:
    single = np.float32(value)
    assert repr(shortest_float(float(single))) == repr(float(str(single)))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_floats_that_are_no_numbers_stay(value: float) -> None:
    assert repr(shortest_float(value)) == repr(value)


def test_all_powers_of_two_and_random_floats_are_shortest() -> None:
    powers = [2.0**exponent for exponent in range(-149, 128)]
    bits = np.random.default_rng(1).integers(0, 0x7F800000, 2000, dtype=np.uint32)
    for value in [*powers, *bits.view(np.float32).tolist()]:
        assert shortest_float(value) == float(str(np.float32(value)))
        assert shortest_float(-value) == -float(str(np.float32(value)))


def test_the_hex_files_are_what_they_say() -> None:
    assert len(BAD) == 49
    assert base64.b16decode(BAD[1]["hex"]) == b"GGU"
