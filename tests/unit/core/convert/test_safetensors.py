"""registry/core/convert/safetensors.py: headers, good ones and hostile ones."""

import json
import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.core.convert import safetensors
from registry.core.convert.safetensors import (
    PREFIX,
    Stored,
    check_index,
    header_length,
    parse_header,
    unite,
    weight_files,
)
from registry.core.errors import CheckpointInvalid


def parse(header: Any, data: int = 0, name: str = "m.safetensors") -> tuple[Stored, ...]:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return parse_header(raw, PREFIX.size + len(raw) + data, name)


def entry(dtype: str = "F32", shape: Any = (2, 2), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_tensors_come_in_the_order_of_their_bytes() -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "b": entry("BF16", [3], [16, 22]),
        "a": entry(),
        "scalar": entry("I64", [], [22, 30]),
    }
    found = parse(header, 30)
    assert [(one.name, one.dtype, one.shape) for one in found] == [
        ("a", "F32", (2, 2)), ("b", "BF16", (3,)), ("scalar", "I64", ()),
    ]  # fmt: skip
    first = found[0]
    assert (first.rows, first.columns, first.width) == (2, 2, 4)
    assert (found[1].rows, found[1].columns) == (1, 3)
    assert (found[2].rows, found[2].columns) == (1, 1)
    assert first.stop - first.start == 16


def test_an_empty_tensor_takes_no_bytes() -> None:
    assert parse({"a": entry("F32", [0, 4], [0, 0])})[0].shape == (0, 4)


LENGTHS = [
    (b"", 0, "too short"),
    (b"\x01\0\0", 3, "too short"),
    (struct.pack("<Q", 100), 50, "truncated, or not a safetensors file"),
    (struct.pack("<Q", 1 << 63), 1 << 40, "truncated, or not a safetensors file"),
    (struct.pack("<Q", 1), 100, "a header of 1 bytes is not accepted"),
    (struct.pack("<Q", 80 << 20), 1 << 40, "is not accepted"),
    (b"GGUF\x03\0\0\0", 100, "this is a GGUF file"),
    (b"PK\x03\x04\0\0\0\0", 100, "this is a ZIP archive or a pickle file"),
    (b"\x80\x02}q\0X\0\0", 100, "this is a pickle file"),
    (b"version ", 130, "a Git LFS pointer"),
    (b"<!DOCTYPE html>"[:8], 130, "an HTML page"),
]


@pytest.mark.parametrize(("prefix", "size", "words"), LENGTHS)
def test_a_file_that_is_none_is_told_by_its_first_bytes(
    prefix: bytes, size: int, words: str
) -> None:
    with pytest.raises(CheckpointInvalid, match=words) as caught:
        header_length(prefix, size, "bad.safetensors")
    assert "bad.safetensors" in str(caught.value)


def test_the_header_may_fill_the_file() -> None:
    assert header_length(struct.pack("<Q", 92), 100, "m.safetensors") == 92


HEADERS: list[tuple[Any, int, str]] = [
    (b"{", 0, "bad safetensors header"),
    (b"\xff\xfe{}", 0, "bad safetensors header"),
    (b"[]", 0, "no object"),
    (b'{"a":{"dtype":"F32"},"a":{}}', 0, "a key stands twice"),
    (b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", 0, "nested deeper"),
    ({"": entry()}, 16, "a name has 1 to 512"),
    ({"n" * 513: entry()}, 16, "a name has 1 to 512"),
    ({"a": []}, 16, "no object"),
    ({"a": entry("F31")}, 16, "unknown dtype F31"),
    ({"a": entry(None)}, 16, "unknown dtype"),  # type: ignore[arg-type]
    ({"a": entry("F32", "22")}, 16, "bad shape"),
    ({"a": entry("F32", [2, -2])}, 16, "bad shape"),
    ({"a": entry("F32", [2.0, 2])}, 16, "bad shape"),
    ({"a": entry("F32", [True, 4])}, 16, "bad shape"),
    ({"a": entry("F32", [1] * 9)}, 16, "bad shape"),
    ({"a": entry(offsets=[0])}, 16, "bad data_offsets"),
    ({"a": entry(offsets=[0, 8, 16])}, 16, "bad data_offsets"),
    ({"a": entry(offsets=None)}, 16, "bad data_offsets"),
    ({"a": entry(offsets=[-16, 0])}, 16, "bad data_offsets"),
    ({"a": entry(offsets=[16, 0])}, 16, "its data ends at byte"),
    ({"a": entry()}, 15, "its data ends at byte"),
    ({"a": entry(offsets=[0, 2**62])}, 16, "its data ends at byte"),
    ({"a": entry("F32", [2, 3])}, 16, "16 bytes are not those of F32"),
    ({"a": entry("F32", [2**40, 2**40])}, 16, "16 bytes are not those of F32"),
    ({"a": entry(), "b": entry("F32", [2], [8, 16])}, 16, "tensors a and b overlap"),
    ({"a": entry(), "b": entry()}, 16, "overlap"),
]


@pytest.mark.parametrize(("header", "data", "words"), HEADERS)
def test_a_header_that_is_wrong_is_one_clear_error(header: Any, data: int, words: str) -> None:
    with pytest.raises(CheckpointInvalid, match=words) as caught:
        parse(header, data, "x.safetensors")
    assert str(caught.value).startswith("x.safetensors: ")


def test_too_many_tensors_are_refused_before_and_after_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(safetensors, "MAX_TENSORS", 2)
    empty = entry("F32", [0], [0, 0])
    with pytest.raises(CheckpointInvalid, match="more than 2 tensors"):
        parse({"a": empty, "b": empty, "c": empty})
    with pytest.raises(CheckpointInvalid, match="more than 2 tensors"):
        parse(b"{" * 5)
    with pytest.raises(CheckpointInvalid, match="more than 2 tensors"):
        parse(b"[" * 9)
    one, two = parse({"a": empty, "b": empty}), parse({"c": empty})
    with pytest.raises(CheckpointInvalid, match="more than 2 tensors"):
        unite([one, two])


def test_a_tensor_in_two_files_is_refused() -> None:
    one, two = (
        parse({"a": entry()}, 16, "1.safetensors"),
        parse({"a": entry()}, 16, "2.safetensors"),
    )
    with pytest.raises(CheckpointInvalid, match=r"tensor a is in 1\.safetensors and in 2"):
        unite([one, two])
    assert list(unite([one])) == ["a"]


def index(**tensors: str) -> bytes:
    return json.dumps({"weight_map": tensors}).encode()


def test_the_index_says_which_files_hold_weights() -> None:
    names = ["a.safetensors", "b.safetensors", "config.json"]
    assert weight_files(names, index(x="b.safetensors"), "i.json") == ["b.safetensors"]
    assert weight_files(names, None, "i.json") == ["a.safetensors", "b.safetensors"]


def test_the_other_spelling_of_the_same_weights_is_left_out() -> None:
    names = ["consolidated.safetensors", "model.safetensors", "onnx/model.safetensors"]
    assert weight_files(names, None, "i.json") == ["model.safetensors"]
    assert weight_files(names[:1], None, "i.json") == ["consolidated.safetensors"]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (index(x="absent.safetensors"), "names absent.safetensors, which is not among the files"),
        (index(x="../../etc/passwd"), "not among the files"),
        (index(), "no weight_map"),
        (b"{}", "no weight_map"),
        (b"[]", "no weight_map"),
        (b'{"weight_map": {"x": 1}}', "no weight_map"),
        (b"{", "i.json: "),
    ],
)
def test_an_index_that_leads_nowhere_is_refused(found: bytes, words: str) -> None:
    with pytest.raises(CheckpointInvalid, match=words):
        weight_files(["m.safetensors"], found, "i.json")


def test_there_must_be_weights() -> None:
    with pytest.raises(CheckpointInvalid, match=r"no \.safetensors file"):
        weight_files(["config.json", "sub/m.safetensors"], None, "i.json")


def test_what_the_index_promises_must_be_in_that_file() -> None:
    tensors = unite([parse({"a": entry()}, 16, "m.safetensors")])
    check_index(index(a="m.safetensors"), "i.json", tensors)
    for promised in (index(b="m.safetensors"), index(a="n.safetensors")):
        with pytest.raises(CheckpointInvalid, match="which does not have it"):
            check_index(promised, "i.json", tensors)


@given(st.binary(max_size=200), st.integers(0, 1 << 66))
def test_any_bytes_are_a_header_or_one_error(data: bytes, size: int) -> None:
    try:
        header_length(data[:8], size, "x")
        for one in parse_header(data[8:], size, "x"):
            assert 0 <= one.start <= one.stop <= size
    except CheckpointInvalid as error:
        assert len(str(error)) < 1000


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
ENTRIES = st.dictionaries(
    st.text(max_size=4),
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from([*safetensors.WIDTHS, "X"]) | VALUES,
            "shape": st.lists(st.integers(-1, 5), max_size=3) | VALUES,
            "data_offsets": st.lists(st.integers(-1, 80), min_size=2, max_size=2) | VALUES,
        }
    ),
    max_size=3,
)


@given(ENTRIES, st.integers(0, 100))
def test_any_entries_are_tensors_inside_the_file_or_one_error(header: Any, data: int) -> None:
    try:
        found = parse(header, data)
    except CheckpointInvalid as error:
        assert len(str(error)) < 1000
        return
    ends = [(one.start, one.stop) for one in found if one.start < one.stop]
    assert all(before[1] <= after[0] for before, after in pairwise(ends))
