"""How Go writes strings and numbers: quoted text, escapes, `%v` of a float64.

Recorded answers, template errors and template output all use these spellings.

Source: the Go language specification, "String literals"; package documentation of `strconv` and
`fmt`.
"""

import math
import re

_ESCAPES = {7: "\\a", 8: "\\b", 12: "\\f", 10: "\\n", 13: "\\r", 9: "\\t", 11: "\\v", 92: "\\\\"}
_SIMPLE = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
_HEX_LENGTH = {"x": 2, "u": 4, "U": 8}
_HEX = frozenset("0123456789abcdefABCDEF")
_OCTAL = frozenset("01234567")
_HIGHEST = 0x10FFFF
_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_SPACES = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)


def raw_bytes(text: str) -> bytes:
    """UTF-8 of `text`; a lone surrogate that stands for a byte becomes it, others are replaced."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return _HALF.sub("\ufffd", text).encode("utf-8", "surrogateescape")


def trim_space(text: str) -> str:
    """`text` without white space at its ends; Python's `strip` would take U+001C to U+001F too."""
    return text.strip(_SPACES)


def quote(text: str) -> str:
    """`text` as `%q` prints it: double quotes, escapes for what is not printable."""
    return '"' + "".join(map(_quoted_char, text)) + '"'


def _quoted_char(char: str) -> str:
    code = ord(char)
    if char == '"':
        return '\\"'
    if code in _ESCAPES:
        return _ESCAPES[code]
    if char.isprintable():
        return char
    if 0xDC80 <= code <= 0xDCFF:  # a raw byte, as `unquote` keeps it
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def code_point(char: str) -> str:
    """`char` as `%#U` prints it: `U+0040 '@'`."""
    shown = f" '{char}'" if char.isprintable() else ""
    return f"U+{ord(char):04X}{shown}"


def unquote(literal: str) -> str | None:
    r"""The value of a Go string literal in double quotes or backquotes; None if it is not one.

    Bytes that are not UTF-8 (`\xff`) come back as lone surrogates, as Python's `surrogateescape`
    makes them, so that the length in bytes stays right.
    """
    if len(literal) < 2 or literal[0] != literal[-1]:
        return None
    body = literal[1:-1]
    if literal[0] == "`":
        return None if "`" in body else body.replace("\r", "")
    if literal[0] != '"' or "\n" in body:
        return None
    return _unescaped(body)


def _unescaped(body: str) -> str | None:
    parts: list[bytes] = []
    at = 0
    while at < len(body):
        stop = body.find("\\", at)
        plain = body[at:] if stop < 0 else body[at:stop]
        if '"' in plain:
            return None
        parts.append(raw_bytes(plain))
        if stop < 0:
            break
        escape = read_escape(body, stop, '"')
        if escape is None:
            return None
        value, at, is_byte = escape
        parts.append(bytes([value]) if is_byte else chr(value).encode())
    return b"".join(parts).decode("utf-8", "surrogateescape")


def read_escape(text: str, at: int, delimiter: str) -> tuple[int, int, bool] | None:
    """Read the escape that starts with the backslash at `at`.

    Returns:
        Its value, the position after it, and whether the value is a byte rather than a code
        point; None if it is no escape of Go's.
    """
    letter = text[at + 1 : at + 2]
    if letter in _SIMPLE:
        return _SIMPLE[letter], at + 2, False
    if letter == delimiter:
        return ord(letter), at + 2, False
    if letter in _HEX_LENGTH:
        return _read_hex(text, at + 2, letter)
    if letter and letter in _OCTAL:
        return _read_octal(text, at + 1)
    return None


def _read_hex(text: str, at: int, letter: str) -> tuple[int, int, bool] | None:
    stop = at + _HEX_LENGTH[letter]
    digits = text[at:stop]
    if len(digits) != stop - at or not _HEX.issuperset(digits):
        return None
    value = int(digits, 16)
    if letter == "x":
        return value, stop, True
    if value > _HIGHEST or 0xD800 <= value <= 0xDFFF:
        return None
    return value, stop, False


def _read_octal(text: str, at: int) -> tuple[int, int, bool] | None:
    digits = text[at : at + 3]
    if len(digits) != 3 or not _OCTAL.issuperset(digits) or int(digits, 8) > 255:
        return None
    return int(digits, 8), at + 3, True


def format_float(value: float) -> str:
    """A float64 as `%v` prints it: shortest digits, an exponent outside 1e-4 … 1e6.

    `999999`, `1e+06`, `1.048576e+06`, `0.0001`, `1e-05`.
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    if value == 0:
        return sign + "0"
    digits, exponent = _shortest(abs(value))
    if exponent < -4 or exponent >= 6:
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{fraction}e{exponent:+03d}"
    return sign + _positional(digits, exponent)


def _shortest(value: float) -> tuple[str, int]:
    """The shortest digits that read back as `value`, and the exponent of the first of them."""
    mantissa, _, exponent = f"{value!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0)
    leading = len(whole + fraction) - len(digits)
    return digits.rstrip("0") or "0", point - leading - 1


def _positional(digits: str, exponent: int) -> str:
    if exponent < 0:
        return "0." + "0" * (-exponent - 1) + digits
    whole = digits[: exponent + 1].ljust(exponent + 1, "0")
    fraction = digits[exponent + 1 :]
    return f"{whole}.{fraction}" if fraction else whole
