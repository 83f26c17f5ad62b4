"""Parameters: read from Modelfiles, merged, stored as bytes, shown."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from registry.core.errors import ModelfileInvalid, RequestInvalid
from registry.core.gojson import dumps
from registry.core.parameters import (
    DEPRECATED,
    PARAMETERS,
    Type,
    format_parameters,
    format_value,
    merge,
    modelfile_values,
    params_blob,
    read,
)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("num_ctx", "4096", 4096),
        ("seed", "-1", -1),
        ("top_k", "+40", 40),
        ("temperature", "0.7", 0.7),
        ("top_p", "1e-3", 0.001),
        ("min_p", ".5", 0.5),
        ("use_mmap", "true", True),
        ("use_mmap", "0", False),
        ("stop", "<|end|>", ["<|end|>"]),
        ("main_gpu", "1", 1),
    ],
)
def test_a_text_becomes_a_value_of_the_parameters_type(name: str, text: str, value: object) -> None:
    values, warnings = read([(name, text)])
    assert values == {name: value}
    assert warnings == ()


def test_a_float_is_sent_with_the_digits_of_single_precision() -> None:
    values, _ = read([("temperature", "0.123456789")])
    assert dumps(values) == b'{"temperature":0.12345679}'


def test_the_last_value_counts_and_stops_add_up() -> None:
    values, _ = read([("stop", "b"), ("seed", "1"), ("stop", "a"), ("seed", "2")])
    assert list(values.items()) == [("seed", 2), ("stop", ["b", "a"])]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nosuch", "5", "unknown parameter 'nosuch'"),
        ("Temperature", "5", "unknown parameter 'Temperature'"),
        ("num_ctx", "4k", "invalid int value [4k]"),
        ("num_ctx", "1.0", "invalid int value [1.0]"),
        ("num_ctx", "1_0", "invalid int value [1_0]"),
        ("num_ctx", "9223372036854775808", "invalid int value [9223372036854775808]"),
        ("num_ctx", "9" * 5000, f"invalid int value [{'9' * 5000}]"),
        ("temperature", "hot", "invalid float value [hot]"),
        ("temperature", "1_0", "invalid float value [1_0]"),
        ("temperature", "1e39", "invalid float value [1e39]"),
        ("temperature", "inf", "invalid float value [inf]"),
        ("use_mmap", "yes", "invalid bool value [yes]"),
    ],
)
def test_a_bad_parameter_is_refused_in_the_words_of_the_stock_client(
    name: str, text: str, message: str
) -> None:
    with pytest.raises(ModelfileInvalid) as raised:
        read([(name, text)])
    assert str(raised.value) == message


def test_deprecated_names_are_dropped_with_a_warning() -> None:
    values, warnings = read((name, "x") for name in sorted(DEPRECATED))
    assert values == {}
    assert warnings[0] == "warning: parameter f16_kv is deprecated"
    assert len(warnings) == 9


def test_the_table_has_the_documented_defaults() -> None:
    assert PARAMETERS["temperature"].default == 0.8
    assert PARAMETERS["stop"].type is Type.STRINGS
    assert all(name == parameter.name for name, parameter in PARAMETERS.items())
    assert not PARAMETERS.keys() & DEPRECATED


def test_the_childs_values_replace_the_parents() -> None:
    parent = {"stop": ["a", "b"], "seed": 1.0}
    assert merge(parent, {"stop": ["c"], "top_k": 2}) == {"stop": ["c"], "seed": 1.0, "top_k": 2}
    assert parent == {"stop": ["a", "b"], "seed": 1.0}


@pytest.mark.parametrize(
    ("values", "sha256"),
    [
        (
            {"top_k": 10, "temperature": 1, "stop": ["USER:", "ASSISTANT:"]},
            "1d0ad71299d48c2fb7ae2b98e683643e771f8a5b72be34942af90d97a91c1e37",
        ),
        (
            {"top_k": 10, "temperature": 0.6, "top_p": 0.7, "stop": ("USER:", "ASSISTANT:")},
            "e29a7b3c47287a2489c895d21fe413c20f859a85d20e749492f52a838e36e1ba",
        ),
        (
            {"top_k": 10, "temperature": 0.6, "top_p": 0.7, "stop": ["<|endoftext|>"]},
            "12f58bb75cb3042d69a7e013ab87fb3c3c7088f50ddc62f0c77bd332f0d44d35",
        ),
        (
            {"stop": ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]},
            "0d79f567714c62c048378f2107fb332dabee0135d080c302d884317da9433cc5",
        ),
    ],
)
def test_stored_bytes_have_the_digest_of_the_ollama_servers(
    values: dict[str, Any], sha256: str
) -> None:
    assert hashlib.sha256(params_blob(values)).hexdigest() == sha256


def test_integers_are_stored_with_the_precision_of_a_float() -> None:
    values = {"b": 2**53 + 1, "a": [1 << 70, True, None, {"z": 1, "y": 1e-7}]}
    assert params_blob(values) == (
        b'{"a":[1.1805916207174113e+21,true,null,{"y":1e-7,"z":1}],"b":9007199254740992}\n'
    )


def nested(depth: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return {"x": value}


def test_values_nested_without_end_are_refused_and_still_shown() -> None:
    assert params_blob(nested(90)).startswith(b'{"x":[[')
    with pytest.raises(RequestInvalid, match="nested deeper than 100 levels"):
        params_blob(nested(5000))
    assert "…" in format_parameters(nested(5000))
    assert "…" in format_value(nested(5000))


@pytest.mark.parametrize(
    ("value", "shown", "bare"),
    [
        ("many", '"many"', "many"),
        ('a"b\u2028', '"a\\"b\\u2028"', 'a"b\u2028'),
        (2048, "2048", "2048"),
        (1e6, "1e+06", "1e+06"),
        (2**53 + 1, "9.007199254740992e+15", "9.007199254740992e+15"),
        (-0.0, "-0", "-0"),
        (10**400, "+Inf", "+Inf"),
        (-(10**400), "-Inf", "-Inf"),
        (math.inf, "+Inf", "+Inf"),
        (True, "true", "true"),
        (False, "false", "false"),
        (None, "<nil>", "<nil>"),
        (
            {"b": [1, None], "a": "x"},
            'map[string]interface {}{"a":"x", "b":[]interface {}{1, interface {}(nil)}}',
            "map[a:x b:[1 <nil>]]",
        ),
    ],
)
def test_a_value_is_shown_as_go_prints_it(value: object, shown: str, bare: str) -> None:
    assert format_parameters({"k": value}) == "k".ljust(30) + " " + shown
    assert modelfile_values({"k": [value]}) == [("k", bare)]


def test_names_are_sorted_and_lists_take_a_line_per_item() -> None:
    assert format_parameters({"top_p": 0.9, "stop": ["foo", "bar"], "seed": 42}) == (
        "seed                           42\n"
        'stop                           "foo"\n'
        'stop                           "bar"\n'
        "top_p                          0.9"
    )
    assert format_parameters({}) == ""
    assert format_parameters({"stop": []}) == ""


def test_recorded_parameter_texts_are_printed_again() -> None:
    golden = Path(__file__).parents[2] / "golden" / "cases" / "04-create.json"
    checked = 0
    for case in json.loads(golden.read_text(encoding="utf-8"))["cases"]:
        sent = [s["json"]["parameters"] for s in case["steps"] if "parameters" in s.get("json", {})]
        shown = [s["expect"].get("body") for s in case["steps"] if s["path"] == "/api/show"]
        if len(sent) != 1 or len(shown) != 1 or "autodetect" in case["name"]:
            continue  # more than the request's own parameters are shown
        assert format_parameters(sent[0]) == shown[0].get("parameters", "")
        checked += 1
    assert checked >= 5
