import pytest

from registry.core.duration import LONGEST, parse_duration
from registry.core.errors import RequestInvalid

S = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("-0", 0),
        ("0s", 0),
        ("300ms", 300_000_000),
        ("5m", 300 * S),
        ("1h30m5.5s", 5_405 * S + S // 2),
        (".5s", S // 2),
        ("5.s", 5 * S),
        ("+1ns", 1),
        ("-2us", -2_000),
        ("1µs1μs", 2_000),
        ("0.0000000000000000000000000000000000000001h", 0),
        ("9223372036.854775807s", LONGEST),
        ("-9223372036.854775808s", -LONGEST - 1),
        ("0" * 100 + "1s", S),
    ],
)
def test_durations_are_read_in_nanoseconds(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("abc", 'time: invalid duration "abc"'),
        (".s", 'time: invalid duration ".s"'),
        ("--5s", 'time: invalid duration "--5s"'),
        ("5", 'time: missing unit in duration "5"'),
        ("1.5.5s", 'time: missing unit in duration "1.5.5s"'),
        ("5x", 'time: unknown unit "x" in duration "5x"'),
        ("5 m", 'time: unknown unit " m" in duration "5 m"'),
        ("9223372037s", 'time: invalid duration "9223372037s"'),
        ("1s" * 501, f'time: invalid duration "{"1s" * 50}..."'),
        ("1" * 40 + "s", f'time: invalid duration "{"1" * 40}s"'),
        ('"\\\né', 'time: invalid duration "\\"\\\\\\x0a\\xc3\\xa9"'),
    ],
)
def test_other_texts_are_refused_in_gos_words(text: str, message: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse_duration(text)
    assert str(caught.value) == message
