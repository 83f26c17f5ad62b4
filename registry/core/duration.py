"""Go's durations: `300ms`, `5m`, `1h30m`, in nanoseconds.

Source: Go package documentation, `time.ParseDuration`.
"""

import re

from registry.core.errors import RequestInvalid

LONGEST = (1 << 63) - 1
"""Some 292 years: also what a negative keep_alive means."""

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # micro sign
    "\u03bcs": 1_000,  # Greek letter mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")
_LONGEST_TEXT = 1_000
"""Go knows no such limit; its answer would quote the text, whatever its size."""
_SHOWN = 100
_DIGITS = 30
"""More of them cannot change a duration: they overflow it, or lie far below a nanosecond."""


def parse_duration(text: str) -> int:
    """Nanoseconds of a Go duration, possibly negative.

    Raises:
        RequestInvalid: with Go's text.
    """
    if len(text) > _LONGEST_TEXT:
        raise _invalid("invalid", text[:_SHOWN] + "...")
    rest = text[1:] if text[:1] in {"-", "+"} else text
    if rest == "0":
        return 0
    total, at = 0, 0
    while at < len(rest) or not rest:
        found = _PART.match(rest, at)
        if found is None or not (found[1] or found[2]):
            raise _invalid("invalid", text)
        total += _nanoseconds(found, text)
        at = found.end()
    limit = LONGEST + 1 if text.startswith("-") else LONGEST
    if total > limit:
        raise _invalid("invalid", text)
    return -total if text.startswith("-") else total


def _nanoseconds(part: re.Match[str], text: str) -> int:
    unit = part[3]
    if not unit:
        raise _invalid("missing unit in", text)
    if unit not in _UNITS:
        raise _invalid(f"unknown unit {_quote(unit)} in", text)
    whole, fraction = part[1].lstrip("0"), (part[2] or "")[:_DIGITS]
    if len(whole) > _DIGITS:
        raise _invalid("invalid", text)
    scale = _UNITS[unit]
    below = int(fraction) * scale // 10 ** len(fraction) if fraction else 0
    return int(whole or "0") * scale + below


def _invalid(what: str, text: str) -> RequestInvalid:
    return RequestInvalid(f"time: {what} duration {_quote(text)}")


def _quote(text: str) -> str:
    """Quote as this package of Go's does: whatever is not printable ASCII byte by byte."""
    return '"' + "".join(map(_quoted_char, text)) + '"'


def _quoted_char(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if " " <= char <= "\x7f":
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
