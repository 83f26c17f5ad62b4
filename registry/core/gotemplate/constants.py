"""Constants of Go templates: numbers and characters, read by Go's rules.

Source: the Go language specification, "Integer literals" and "Floating-point literals"; package
documentation of `strconv` (`ParseInt` with base 0, `ParseFloat`).
"""

import re
from collections.abc import Callable

from registry.core.errors import TemplateInvalid
from registry.core.gotemplate.tree import Number
from registry.core.gotext import quote, read_escape

# Underscores stand between digits only, or after the prefix of the base.
_INTEGER = re.compile(
    r"([+-]?)(?:0[xX]((?:_?[0-9a-fA-F])+)|0[bB]((?:_?[01])+)|0[oO]((?:_?[0-7])+)"
    r"|0((?:_?[0-7])+)|(0|[1-9](?:_?[0-9])*))"
)
_BASES = {2: 16, 3: 2, 4: 8, 5: 8, 6: 10}  # by group of the pattern above
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HEX_FLOAT = re.compile(r"[+-]?0[xX][0-9a-fA-F]*\.?[0-9a-fA-F]*[pP][+-]?[0-9]+")
_SEPARATOR = re.compile(r"(?<=[0-9])_(?=[0-9])")
_HEX_SEPARATOR = re.compile(r"(?<=[0-9a-fA-FxX])_(?=[0-9a-fA-F])")
_INT_MIN, _INT_MAX, _UINT_MAX = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1
_LONGEST = 400  # digits; no float64 needs more, and Python's int() refuses thousands


def read_number(text: str) -> Number:
    """A number token's constant.

    Raises:
        TemplateInvalid: not a number, or an integer that fits neither int64 nor uint64.
    """
    if text.endswith("i"):
        return _imaginary(text)
    integer = _integer(text)
    if integer is not None and _fits(text, integer):
        return Number(text, integer)
    value = _float(text)
    if value is None:
        raise TemplateInvalid(f"illegal number syntax: {quote(text)}")
    if not any(mark in text for mark in ".eEpP"):
        raise TemplateInvalid(f"integer overflow: {quote(text)}")
    return Number(text, value)


def read_complex(text: str) -> Number:
    """A token such as `1+2i`.

    Raises:
        TemplateInvalid: one of its parts is no number.
    """
    split = max(text.rfind("+", 1), text.rfind("-", 1))
    if text[split - 1] in "eEpP":
        split = max(text.rfind("+", 1, split), text.rfind("-", 1, split))
    if text[split:] in ("+i", "-i"):
        raise TemplateInvalid("syntax error scanning complex number")
    real, imaginary = _complex_part(text[:split]), _complex_part(text[split:-1])
    return Number(text, complex(real, imaginary))


def _complex_part(text: str) -> float:
    value = _float(text)
    if value is None:
        is_long = _DECIMAL.fullmatch(_SEPARATOR.sub("", text))
        reason = "value out of range" if is_long else "invalid syntax"
        raise TemplateInvalid(f"strconv.ParseFloat: parsing {quote(text)}: {reason}")
    return value


def read_character(text: str) -> Number:
    """The code of a character token, quotes included in `text`.

    Raises:
        TemplateInvalid: an empty or bad constant, or more than one character.
    """
    if text[1:2] in ("", "'"):
        raise TemplateInvalid("invalid syntax")
    code, stop = ord(text[1]), 2
    if text[1] == "\\":
        escape = read_escape(text, 1, "'")
        if escape is None:
            raise TemplateInvalid("invalid syntax")
        code, stop, _ = escape
    if text[stop:] != "'":
        raise TemplateInvalid(f"malformed character constant: {text}")
    return Number(text, code)


def _imaginary(text: str) -> Number:
    value = _float(text[:-1])
    if value is None:
        raise TemplateInvalid(f"illegal number syntax: {quote(text)}")
    return Number(text, complex(0, value))


def _fits(text: str, value: int) -> bool:
    # Only an unsigned spelling may use the upper half of uint64.
    return _INT_MIN <= value <= (_INT_MAX if text[0] in "+-" else _UINT_MAX)


def _integer(text: str) -> int | None:
    match = _INTEGER.fullmatch(text)
    if match is None or len(text) > _LONGEST:
        return None
    spelling = next(index for index in range(2, 7) if match[index] is not None)
    value = int(match[spelling].replace("_", ""), _BASES[spelling])
    return -value if match[1] == "-" else value


def _float(text: str) -> float | None:
    is_hex = text.lstrip("+-")[:2] in ("0x", "0X")
    plain = (_HEX_SEPARATOR if is_hex else _SEPARATOR).sub("", text)
    if (_HEX_FLOAT if is_hex else _DECIMAL).fullmatch(plain) is None:
        return None
    read: Callable[[str], float] = float.fromhex if is_hex else float
    try:
        value = read(plain)
    except (ValueError, OverflowError):
        return None
    return None if value in (float("inf"), float("-inf")) else value
