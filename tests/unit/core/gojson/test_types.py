"""Descriptions of Go types; recorded texts are in `tests/unit/web/test_go_json_vectors.py`."""

from dataclasses import dataclass
from typing import Any

import pytest

from registry.core.gojson import (
    Any as AnyType,
)
from registry.core.gojson import (
    Bool,
    Bytes,
    Custom,
    Field,
    Float,
    Int,
    JsonInvalid,
    Map,
    Node,
    Ptr,
    RawMessage,
    Schema,
    Slice,
    String,
    Struct,
    TypeFault,
    decode,
    unmarshal,
)
from registry.core.gojson.types import UNSET, Context


@dataclass(frozen=True)
class Inner:
    text: str = "unset"
    count: int = 7


@dataclass(frozen=True)
class Outer:
    name: str = ""
    inner: Inner | None = None
    inners: tuple[Inner, ...] | None = None
    values: dict[str, Any] | None = None
    raw: bytes | None = None
    maybe: bool | None = None
    data: bytes | None = None


INNER = Struct("api.Inner", Inner, Field("text", String()), Field("count", Int()))
OUTER = Struct(
    "api.Outer",
    Outer,
    Field("name", String()),
    Field("inner", INNER),
    Field("inners", Slice(INNER)),
    Field("values", Map(AnyType())),
    Field("format", RawMessage(), "raw"),
    Field("maybe", Ptr(Bool())),
    Field("data", Bytes()),
)


def read(text: str) -> Outer:
    value: Outer = decode(text.encode(), OUTER)
    return value


def fault(text: str, schema: Schema = OUTER) -> str:
    with pytest.raises(JsonInvalid) as caught:
        decode(text.encode(), schema)
    return str(caught.value)


def test_keys_match_ignoring_case_with_the_letters_go_takes_for_ascii() -> None:
    assert read('{"NAME":"a"}').name == "a"
    assert decode('{"ſize":1,"\u212aeep":2}'.encode(), _SIZES) == {"size": 1, "keep": 2}


_SIZES = Struct("api.Sizes", dict, Field("size", Int()), Field("keep", Int()))


def test_an_exact_key_is_not_taken_for_another() -> None:
    schema = Struct("x.T", dict, Field("a", Int()), Field("A", Int(), "big"))
    assert decode(b'{"A":1,"a":2}', schema) == {"big": 1, "a": 2}


def test_missing_keys_and_nulls_leave_what_was_there() -> None:
    assert read("{}") == Outer()
    assert read("null") == Outer()
    assert read('{"name":"a","name":null}').name == "a"
    assert read('{"name":null}').name == ""
    assert read('{"inner":null}').inner == Inner()
    assert read('{"inner":{"text":"x"},"inner":null}').inner == Inner("x")
    assert read('{"maybe":true,"maybe":null}').maybe is None
    assert read('{"maybe":true,"maybe":false}').maybe is False
    assert read('{"values":null,"inners":null,"data":null}') == Outer()


def test_of_doubles_the_last_wins_and_maps_are_filled_on() -> None:
    assert read('{"name":"a","name":"b"}').name == "b"
    assert read('{"values":{"a":1},"values":{"b":2}}').values == {"a": 1.0, "b": 2.0}
    assert read('{"inner":{"text":"x"},"inner":{"count":1}}').inner == Inner("unset", 1)


def test_values_of_any_type_become_python_values_with_float_numbers() -> None:
    found = read('{"values":{"a":[1,{"b":[]}],"c":"x","d":null,"d":true}}').values
    assert found == {"a": [1.0, {"b": []}], "c": "x", "d": True}


def test_raw_messages_keep_the_text_of_numbers_and_the_order_of_keys() -> None:
    assert read('{"format": {"b": 1.50, "a": [1e2]} }').raw == b'{"b":1.50,"a":[1e2]}'
    assert read('{"format":null}').raw == b"null"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "array into Go value of type api.Outer"),
        ('{"name":1}', "number into Go struct field Outer.name of type string"),
        (
            '{"inner":{"count":1.5}}',
            "number 1.5 into Go struct field Inner.inner.count of type int",
        ),
        (
            '{"inners":[{},{"text":{}}]}',
            "object into Go struct field Inner.inners.text of type string",
        ),
        ('{"inners":{}}', "object into Go struct field Outer.inners of type []api.Inner"),
        ('{"inner":[]}', "array into Go struct field Outer.inner of type api.Inner"),
        (
            '{"values":[]}',
            "array into Go struct field Outer.values of type map[string]interface {}",
        ),
        (
            '{"values":{"a":1e999}}',
            "number 1e999 into Go struct field Outer.values of type float64",
        ),
        ('{"maybe":"x"}', "string into Go struct field Outer.maybe of type bool"),
        ('{"data":[256]}', "number 256 into Go struct field Outer.data of type uint8"),
        ('{"data":["x"]}', "string into Go struct field Outer.data of type uint8"),
        ('{"data":true}', "bool into Go struct field Outer.data of type []uint8"),
    ],
)
def test_wrong_types_are_told_with_their_place(text: str, message: str) -> None:
    assert fault(text) == f"json: cannot unmarshal {message}"


def test_the_first_wrong_value_is_told_and_reading_goes_on_to_the_end() -> None:
    assert "Outer.name" in fault('{"name":1,"maybe":2}')


def test_the_fault_of_a_type_that_reads_itself_wins_over_earlier_ones() -> None:
    def refuse(node: Node) -> None:
        raise JsonInvalid("no such thing")

    schema = Struct("x.T", dict, Field("a", String()), Field("b", Custom("x.B", refuse)))
    assert fault('{"a":1,"b":2}', schema) == "no such thing"


def test_a_type_that_reads_itself_has_its_faults_placed() -> None:
    schema = Struct("x.T", dict, Field("b", Custom("x.B", lambda node: unmarshal(node, INNER))))
    assert fault('{"b":{"text":1}}', schema).endswith("Go struct field T.b.text of type string")


def test_structs_without_a_name_are_told_without_one() -> None:
    schema = Struct("struct { A int }", dict, Field("a", Int()))
    assert fault('{"a":""}', schema).endswith("into Go struct field .a of type int")


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("9223372036854775807", Int(), (1 << 63) - 1),
        ("-9223372036854775808", Int(), -(1 << 63)),
        ("0.1", Float(), 0.1),
        ("0.1", Float("float32"), 0.10000000149011612),
        ('"AAEC"', Bytes(), b"\0\1\2"),
        ("[0,1,null]", Bytes(), b"\0\1\0"),
        ("null", String(), ""),
    ],
)
def test_scalars_are_read_in_their_range(text: str, schema: Schema, value: object) -> None:
    assert decode(text.encode(), schema) == value


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("9223372036854775808", Int("int64")),
        ("1" * 30, Int("int64")),
        ("1e2", Int("int64")),
        ("1e309", Float()),
        ("1e39", Float("float32")),
        ('"x"', Float("float32")),
        ('"x"', Float()),
    ],
)
def test_scalars_outside_their_range_are_refused(text: str, schema: Schema) -> None:
    assert f"of type {schema.go}" in fault(text, schema)


def test_a_very_long_number_is_not_echoed_whole() -> None:
    assert len(fault("1" * 100_000, Int())) < 400


def test_names_of_composed_types() -> None:
    assert Ptr(Int()).go == "*int"
    assert Slice(Map(String()), "api.Names").go == "api.Names"
    assert Slice(Map(String())).go == "[]map[string]string"


def test_a_schema_is_to_be_subclassed() -> None:
    with pytest.raises(NotImplementedError):
        Schema().read(None, Context(), UNSET)


def test_faults_carry_what_they_say() -> None:
    with pytest.raises(TypeFault) as caught:
        decode(b'{"inner":{"count":"x"}}', OUTER)
    assert (caught.value.value, caught.value.go) == ("string", "int")
    assert caught.value.path == ("inner", "count")
