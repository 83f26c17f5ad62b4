"""Go's spellings of strings and numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.core.gotext import code_point, format_float, quote, trim_space, unquote


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("plain", '"plain"'),
        ('a"b\\c', r'"a\"b\\c"'),
        ("\a\b\f\n\r\t\v", r'"\a\b\f\n\r\t\v"'),
        ("\x00\x1f\x7f", r'"\x00\x1f\x7f"'),
        ("é日🦙", '"é日🦙"'),
        ("\u00a0\u2028\u200b", r'"\u00a0\u2028\u200b"'),
        ("\U000e0001", r'"\U000e0001"'),
        ("\udcff", r'"\xff"'),
    ],
)
def test_quoting_escapes_what_does_not_print(text: str, quoted: str) -> None:
    assert quote(text) == quoted
    assert unquote(quoted) == text


@pytest.mark.parametrize(
    ("literal", "text"),
    [
        (r'"\101\x41\u0041\U00000041"', "AAAA"),
        (r'"\xc3\xa9"', "é"),
        (r'"\xff"', "\udcff"),
        ("`a\\n`", "a\\n"),
        ("`a\r\nb`", "a\nb"),
        ('""', ""),
    ],
)
def test_a_literal_has_the_value_go_gives_it(literal: str, text: str) -> None:
    assert unquote(literal) == text


@pytest.mark.parametrize(
    "literal",
    [
        *("", '"', "a", "'a'", '"a', '"a"b"', "`a`b`", '"a\nb"', '"\\"', r'"\q"', r'"\'"'),
        *(r'"\400"', r'"\18"', r'"\x4"', r'"\xzz"', r'"\ud800"', r'"\U00110000"', r'"\u12"'),
    ],
)
def test_what_is_no_literal_has_no_value(literal: str) -> None:
    assert unquote(literal) is None


@given(st.text())
def test_every_text_survives_quoting(text: str) -> None:
    assert unquote(quote(text)) == text


@pytest.mark.parametrize(
    ("char", "shown"), [("@", "U+0040 '@'"), ("\x00", "U+0000"), ("🦙", "U+1F999 '🦙'")]
)
def test_a_code_point_shows_its_number_and_itself(char: str, shown: str) -> None:
    assert code_point(char) == shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (0.7, "0.7"),
        (-1.5, "-1.5"),
        (131072.0, "131072"),
        (999999.0, "999999"),
        (1e6, "1e+06"),
        (1048576.0, "1.048576e+06"),
        (1e21, "1e+21"),
        (1e100, "1e+100"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (1.25e-7, "1.25e-07"),
        (123456.789, "123456.789"),
        (100000.0, "100000"),
        (5e-324, "5e-324"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_floats_print_as_go_prints_them(value: float, text: str) -> None:
    assert format_float(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_printed_float_reads_back(value: float) -> None:
    assert float(format_float(value)) == value


def test_trimming_takes_the_white_space_of_unicode_and_no_control_characters() -> None:
    assert trim_space(" \t\n\u2003x\x85\u3000") == "x"
    assert trim_space("\x1cx\x1f") == "\x1cx\x1f"
