"""How values print, beyond what the vectors of `test_interpreter.py` show."""

import pytest

from registry.core.gotemplate.printing import concatenated, formatted, plain, text_of
from registry.core.gotemplate.values import Map, Slice, Struct, Style, Value

TOOL = Struct("tool", {"Name": "<f>"}, {"Name": "name"})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "<nil>"),
        (True, "true"),
        (-3, "-3"),
        (1e6, "1e+06"),
        (1 - 2.5j, "(1-2.5i)"),
        (2j, "(0+2i)"),
        (TOOL, '{"name":"\\u003cf\\u003e"}'),
        (Map({"b": None, "a": Slice(("x",))}), "map[a:[x] b:<nil>]"),
        (Map({}, Style.JSON), "{}"),
        (Slice((TOOL,), Style.JSON), '[{"name":"\\u003cf\\u003e"}]'),
    ],
)
def test_a_value_prints_in_its_style(value: Value, text: str) -> None:
    assert plain(value) == text


def test_nothing_prints_as_no_value_in_an_action() -> None:
    assert text_of(None) == "<no value>"
    assert text_of("x") == "x"


def test_spaces_stand_between_neighbours_that_are_no_texts() -> None:
    assert concatenated([1, 2, "a", "b", 3, None]) == "1 2ab3 <nil>"


@pytest.mark.parametrize(
    ("form", "values", "text"),
    [
        ("%1000001d|", (1,), "%!d(BADWIDTH)|"),
        ("%.1000001f|", (1.0,), "%!f(BADWIDTH)|"),
        ("%5T|", (1,), "  int|"),
        ("%T %T", (1j, None), "complex128 <nil>"),
        (
            "%s %d",
            (TOOL, TOOL),
            '{"name":"\\u003cf\\u003e"} %!d(map[string]interface {}={"name":"\\u003cf\\u003e"})',
        ),
        ("%x", (2.5,), "%!x(float64=2.5)"),
        ("%c|%c", (0xD800, 0x110000), "\ufffd|\ufffd"),
        ("%U %#U", (65, 65), "U+0041 U+0041 'A'"),
        ("%.3d", ("abcdef",), "%!d(string=abc)"),
        ("%d", (), "%!d(MISSING)"),
        ("%", (), "%!(NOVERB)"),
    ],
)
def test_forms_are_filled_in(form: str, values: tuple[Value, ...], text: str) -> None:
    assert formatted(form, values) == text
