"""Bytes as Go writes them; values that Go itself wrote are in `test_go_json_vectors.py`."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.core.gojson import Float32, Raw, UnsupportedValue, dumps, parse
from registry.core.gojson.encoding import _fast, _pieces
from registry.core.gojson.leaves import build


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (12, "12"),
        (1 << 70, str(1 << 70)),
        (10.0, "10"),
        (-0.0, "-0"),
        (0.6, "0.6"),
        (1e-6, "0.000001"),
        (9.5e-7, "9.5e-7"),
        (1e-10, "1e-10"),
        (1e16, "10000000000000000"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (Float32(0.1), "0.1"),
        (Float32(1e-6), "0.000001"),
        (Float32(3.4028234663852886e38), "3.4028235e+38"),
        (Float32(1 / 3), "0.33333334"),
        ("<a> & b", r'"\u003ca\u003e \u0026 b"'),
        ("\u2028\u2029é😀\x7f", '"\\u2028\\u2029é😀\x7f"'),
        ('"\\/\b\f\n\r\t\x01\x1f', r'"\"\\/\b\f\n\r\t\u0001\u001f"'),
        ("a\ud800b", r'"a\ufffdb"'),
        ([], "[]"),
        ({}, "{}"),
        (((), [1, "x"], {"b": 1.5, "a": None}), '[[],[1,"x"],{"b":1.5,"a":null}]'),
        ({"x": Raw(b'{"kept": 1.0}')}, '{"x":{"kept": 1.0}}'),
        ({"a": "null", "b": ":1.5,2.5"}, '{"a":"null","b":":1.5,2.5"}'),
        ({"t": '",null'}, r'{"t":"\",null"}'),
    ],
)
def test_each_value_is_written_as_go_writes_it(value: Any, text: str) -> None:
    assert dumps(value) == text.encode()


def test_keys_keep_their_order_or_are_sorted_by_bytes_at_every_depth() -> None:
    value = {"b": 1, "a": {"é": 1, "Z": 2.5}, "B": [{"y": 1, "x": 2}]}
    assert dumps(value) == '{"b":1,"a":{"é":1,"Z":2.5},"B":[{"y":1,"x":2}]}'.encode()
    assert dumps(value, sort=True) == '{"B":[{"x":2,"y":1}],"a":{"Z":2.5,"é":1},"b":1}'.encode()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "json: unsupported value: NaN"),
        ({"a": [math.inf]}, r"json: unsupported value: \+Inf"),
        (-math.inf, "json: unsupported value: -Inf"),
        (Float32(1e39), "as float32"),
        ({1: 2}, "unsupported key type: int"),
        ({"a": object()}, "unsupported type: object"),
        ({"a": {1, 2}}, "unsupported type: set"),
    ],
)
def test_what_json_cannot_carry_is_refused(value: Any, message: str) -> None:
    with pytest.raises(UnsupportedValue, match=message):
        dumps(value)


def test_depth_has_no_limit() -> None:
    value: list[Any] = []
    for _ in range(50_000):
        value = [value]
    assert dumps(value) == b"[" * 50_001 + b"]" * 50_001


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.booleans())
def test_the_fast_way_writes_what_the_exact_way_writes(value: Any, sort: bool) -> None:
    fast = _fast(value, sort)
    assert fast is None or fast == "".join(_pieces(value, sort)).encode()


@given(JSON)
def test_what_is_written_reads_back(value: Any) -> None:
    read = build(parse(dumps(value)), lambda number: float(number))
    assert read == build(parse(dumps(read)), lambda number: float(number))
    assert dumps(read) == dumps(build(parse(dumps(value)), lambda number: float(number)))
