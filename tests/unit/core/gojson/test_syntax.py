"""The scanner; texts recorded from Go are in `tests/unit/web/test_go_json_vectors.py`."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.core.gojson import JsonInvalid, JsonMissing, Number, kind, parse
from registry.core.gojson.syntax import MAX_VALUES, _Scanner


@pytest.mark.parametrize("data", [b"", b" \t\r\n"])
def test_no_value_at_all_has_an_error_of_its_own(data: bytes) -> None:
    with pytest.raises(JsonMissing, match="EOF"):
        parse(data)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"{", "unexpected EOF"),
        (b'{"a"', "unexpected EOF"),
        (b'{"a":1', "unexpected EOF"),
        (b'{"a":"x\\', "unexpected EOF"),
        (b'["\\u00', "unexpected EOF"),
        (b"[tru", "unexpected EOF"),
        (b"[-", "unexpected EOF"),
        (b"[1.", "unexpected EOF"),
        (b"[1e+", "unexpected EOF"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 2}', "invalid character '2' after object key:value pair"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b"[1,]", "invalid character ']' looking for beginning of value"),
        (b'["\x01"]', r"invalid character '\x01' in string literal"),
        (b'["\\x"]', "invalid character 'x' in string escape code"),
        (b'["\\u12g4"]', r"invalid character 'g' in \u hexadecimal character escape"),
        (b"[-x]", "invalid character 'x' in numeric literal"),
        (b"[1.x]", "invalid character 'x' after decimal point in numeric literal"),
        (b"[1ex]", "invalid character 'x' in exponent of numeric literal"),
        (b"[1e-x]", "invalid character 'x' in exponent of numeric literal"),
        (b"[nul]", "invalid character ']' in literal null (expecting 'l')"),
        (b"'", r"invalid character '\'' looking for beginning of value"),
        (b"\\", r"invalid character '\\' looking for beginning of value"),
        (b"\n\x07", r"invalid character '\a' looking for beginning of value"),
        (b"\xef\xbb\xbf{}", "invalid character 'ï' looking for beginning of value"),
        (b"\x80", r"invalid character '\u0080' looking for beginning of value"),
        (b"[1e5.3]", "invalid character '.' after array element"),
    ],
)
def test_broken_syntax_is_told_in_gos_words(data: bytes, error: str) -> None:
    with pytest.raises(JsonInvalid) as caught:
        parse(data)
    assert str(caught.value) == error


def test_only_the_first_value_counts() -> None:
    assert parse(b' {"a":[1]} {"b"') == (("a", [Number("1")]),)
    assert parse(b"5x") == Number("5")
    assert parse(b'"a"b') == "a"


def test_numbers_keep_their_text_and_objects_their_doubles() -> None:
    node = parse(b'{"a":1.50,"a":[true,false,null],"b":{}}')
    assert node == (("a", Number("1.50")), ("a", [True, False, None]), ("b", ()))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'["\\ud83d\\ude00"]', "😀"),
        (b'["\\ud83d"]', "\ufffd"),
        (b'["\\ud800\\ud83d\\ude00\\udc00"]', "\ufffd😀\ufffd"),
        (b'["a\xff\xe2\x82b"]', "a\ufffd\ufffd\ufffdb"),
        (b'["\\u0041\\n"]', "A\n"),
        (b'["\\\\ud83d"]', "\\ud83d"),
    ],
)
def test_text_that_is_no_unicode_becomes_replacement_characters(data: bytes, text: str) -> None:
    assert parse(data) == [text]


def test_a_body_of_very_many_values_is_refused_before_it_is_built() -> None:
    with pytest.raises(JsonInvalid, match="more than 300000 values"):
        parse(b"[" + b"[]," * (MAX_VALUES + 1))


@pytest.mark.parametrize("ends", [b"[]", b"{}", b'{"a":[1]}'])
def test_many_containers_side_by_side_are_not_deep(ends: bytes) -> None:
    node = parse(b"[" + b",".join([ends] * 11_000) + b"]")
    assert node == [parse(ends)] * 11_000


def test_commas_within_texts_are_not_counted_as_values() -> None:
    text = "," * (2 * MAX_VALUES + 10)
    assert parse(json.dumps([text]).encode()) == [text]
    assert parse(b"[" + b" " * (2 * MAX_VALUES + 1) + b"1]") == [Number("1")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(JSON.filter(lambda value: isinstance(value, list | dict)))
def test_the_fast_scanner_reads_what_the_exact_one_reads(value: object) -> None:
    text = json.dumps(value).replace("Infinity", "1")
    assert parse(text.encode()) == _Scanner(text).run(0)


@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_one_error(data: bytes) -> None:
    try:
        parse(data)
    except JsonInvalid as error:
        assert str(error)


@given(st.text('{}[]",:\\ntrue019.eE+- u', max_size=40))
def test_the_two_scanners_agree_on_near_json(text: str) -> None:
    data = text.encode()

    def outcome(exact: bool) -> object:
        try:
            if exact and text.strip(" "):
                return _Scanner(text).run(len(text) - len(text.lstrip(" ")))
            return parse(data)
        except JsonInvalid as error:
            return str(error)

    assert outcome(exact=True) == outcome(exact=False)


def test_kinds_have_gos_names() -> None:
    node = parse(b'[null,true,1,"x",[],{}]')
    assert isinstance(node, list)
    assert [kind(item) for item in node] == ["null", "bool", "number", "string", "array", "object"]
