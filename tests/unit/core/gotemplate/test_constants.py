"""Numbers and characters by Go's rules."""

import pytest

from registry.core.errors import TemplateInvalid
from registry.core.gotemplate.constants import read_character, read_complex, read_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-0", 0),
        ("+5", 5),
        ("-12", -12),
        ("1_000", 1000),
        ("017", 15),
        ("0o17", 15),
        ("0b101", 5),
        ("0xFF", 255),
        ("0x_ff", 255),
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("08.5", 8.5),
        ("1_0.5", 10.5),
        ("0x1p4", 16.0),
        ("0x1.8p1", 3.0),
        ("2i", 2j),
        ("1.5i", 1.5j),
    ],
)
def test_a_number_is_read_as_go_reads_it(text: str, value: complex) -> None:
    number = read_number(text)
    assert number.value == value
    assert type(number.value) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("089", 'integer overflow: "089"'),
        ("18446744073709551616", 'integer overflow: "18446744073709551616"'),
        ("+9223372036854775808", 'integer overflow: "+9223372036854775808"'),
        ("9" * 5000, f'illegal number syntax: "{"9" * 5000}"'),
        ("1__0", 'illegal number syntax: "1__0"'),
        ("0x", 'illegal number syntax: "0x"'),
        ("0x1.8", 'illegal number syntax: "0x1.8"'),
        ("0xp1", 'illegal number syntax: "0xp1"'),
        ("0x1p9999", 'illegal number syntax: "0x1p9999"'),
        ("1e400", 'illegal number syntax: "1e400"'),
        (".", 'illegal number syntax: "."'),
        ("i", 'illegal number syntax: "i"'),
    ],
)
def test_what_is_no_number_of_go_is_refused(text: str, message: str) -> None:
    with pytest.raises(TemplateInvalid) as raised:
        read_number(text)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("text", "value"), [("1+2i", 1 + 2j), ("-1e3-2e-3i", -1000 - 0.002j), ("1e+3-1i", 1000 - 1j)]
)
def test_a_complex_constant_has_two_parts(text: str, value: complex) -> None:
    assert read_complex(text).value == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1+i", "syntax error scanning complex number"),
        ("-+2i", 'strconv.ParseFloat: parsing "-": invalid syntax'),
        ("1e999+2i", 'strconv.ParseFloat: parsing "1e999": value out of range'),
    ],
)
def test_a_bad_part_of_a_complex_constant_is_named(text: str, message: str) -> None:
    with pytest.raises(TemplateInvalid) as raised:
        read_complex(text)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("text", "code"),
    [("'a'", 97), ("'é'", 233), (r"'\''", 39), (r"'\n'", 10), (r"'\x41'", 65), (r"'\101'", 65)],
)
def test_a_character_is_its_code(text: str, code: int) -> None:
    assert read_character(text).value == code


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("''", "invalid syntax"),
        (r"'\q'", "invalid syntax"),
        (r"'\"'", "invalid syntax"),
        ("'ab'", "malformed character constant: 'ab'"),
    ],
)
def test_what_is_no_single_character_is_refused(text: str, message: str) -> None:
    with pytest.raises(TemplateInvalid) as raised:
        read_character(text)
    assert str(raised.value) == message
