"""How values become text: what an action prints, `print`, `println`, `printf`.

Source: package documentation of `fmt`, "Printing".
"""

import re
from collections.abc import Iterable, Sequence

from registry.core.gotemplate.values import Map, Slice, Struct, Style, Value, failure, to_json
from registry.core.gotext import code_point, format_float, quote, raw_bytes

_VERB = re.compile(r"%([-+# 0]*)(\d{0,9})(?:\.(\d{0,9}))?(.?)", re.DOTALL)
_WIDEST = 1_000_000
_TYPES = (
    (bool, "bool"),
    (int, "int"),
    (float, "float64"),
    (complex, "complex128"),
    (str, "string"),
)

TEXT_LIMIT = 8 << 20  # characters, of any text that a template makes


def joined(parts: Iterable[str], separator: str = "") -> str:
    """The parts as one text.

    Raises:
        OperationFailed: it would be longer than `TEXT_LIMIT`.
    """
    kept: list[str] = []
    length = 0
    for part in parts:
        kept.append(part)
        length += len(part) + len(separator)
        if length > TEXT_LIMIT:
            raise failure(f"a text of more than {TEXT_LIMIT} characters")
    return separator.join(kept)


def text_of(value: Value) -> str:
    """`value` as `%v` prints it, but a missing one as `{{ }}` does."""
    return "<no value>" if value is None else plain(value)


def plain(value: Value) -> str:
    """`value` as `%v` prints it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return format_float(value)
    if isinstance(value, complex):
        imaginary = format_float(value.imag)
        sign = "" if imaginary[0] in "+-" else "+"
        return f"({format_float(value.real)}{sign}{imaginary}i)"
    return "<nil>" if value is None else _composite(value)


def _composite(value: Slice | Map | Struct) -> str:
    if isinstance(value, Struct) or value.style is Style.JSON:
        return to_json(value)
    if isinstance(value, Map):
        return "map[" + " ".join(f"{k}:{plain(value.items[k])}" for k in sorted(value.items)) + "]"
    if value.style is Style.TYPE and len(value.items) < 2:
        return "".join(value.items)
    return "[" + " ".join(map(plain, value.items)) + "]"


def concatenated(values: Sequence[Value]) -> str:
    """As `fmt.Sprint`: a space between two neighbours of which neither is a text."""
    return joined(
        (" " if index and _are_apart(values[index - 1], value) else "") + plain(value)
        for index, value in enumerate(values)
    )


def _are_apart(left: Value, right: Value) -> bool:
    return not isinstance(left, str) and not isinstance(right, str)


def formatted(form: str, values: Sequence[Value]) -> str:
    """As `fmt.Sprintf`; a verb that does not fit its value prints Go's note of that."""
    remaining = list(reversed(values))

    def parts() -> Iterable[str]:
        at = 0
        for match in _VERB.finditer(form):
            yield form[at : match.start()]
            yield _expanded(match, remaining)
            at = match.end()
        yield form[at:]
        if remaining:
            yield f"%!(EXTRA {joined(map(_noted, reversed(remaining)), ', ')})"

    return joined(parts())


def _expanded(match: re.Match[str], remaining: list[Value]) -> str:
    verb = match[4]
    if verb in ("%", ""):
        return "%" if verb else "%!(NOVERB)"
    if not remaining:
        return f"%!{verb}(MISSING)"
    value = remaining.pop()
    if max(int(match[2] or 0), int(match[3] or 0)) > _WIDEST:
        return f"%!{verb}(BADWIDTH)"
    return _converted(value, verb, match)


def _type(value: Value) -> str:
    for kind, name in _TYPES:
        if isinstance(value, kind):
            return name
    if value is None:
        return "<nil>"
    return "[]interface {}" if isinstance(value, Slice) else "map[string]interface {}"


def _converted(value: Value, verb: str, match: re.Match[str]) -> str:
    if verb == "T":
        return _padded(_type(value), match, value)
    if isinstance(value, Slice | Map) and value.style is Style.GO:
        return _each(value, verb, match)
    text = plain(value) if verb == "v" else _scalar(value, verb, match)
    if text is not None:
        return _padded(text, match, value)
    shown = plain(value)[: int(match[3])] if isinstance(value, str) and match[3] else plain(value)
    return f"%!{verb}({_noted(value, _padded(shown, match, value))})"


def _noted(value: Value, shown: str = "") -> str:
    return "<nil>" if value is None else f"{_type(value)}={shown or plain(value)}"


def _each(value: Slice | Map, verb: str, match: re.Match[str]) -> str:
    """Verbs go to the items of a list or map."""
    if isinstance(value, Slice):
        return "[" + " ".join(_item(item, verb, match) for item in value.items) + "]"
    pairs = (
        f"{_converted(key, verb, match)}:{_item(value.items[key], verb, match)}"
        for key in sorted(value.items)
    )
    return "map[" + " ".join(pairs) + "]"


def _item(value: Value, verb: str, match: re.Match[str]) -> str:
    return "<nil>" if value is None else _converted(value, verb, match)


def _scalar(value: Value, verb: str, match: re.Match[str]) -> str | None:
    """The text of a value with a verb of its own; None if the verb does not fit."""
    precision = None if match[3] is None else int(match[3] or 0)
    if isinstance(value, bool):
        return plain(value) if verb == "t" else None
    if isinstance(value, int):
        return _signed(_integer(value, verb, match[1]), match[1])
    if isinstance(value, float):
        return _signed(_real(value, verb, precision), match[1])
    return _textual(plain(value), verb, precision) if value is not None else None


def _signed(text: str | None, flags: str) -> str | None:
    return "+" + text if text and "+" in flags and text[0] in "0123456789I" else text


def _integer(value: int, verb: str, flags: str) -> str | None:
    if verb == "d":
        return str(value)
    if verb in "xXob":
        digits = format(abs(value), verb)
        prefix = {"x": "0x", "X": "0X", "o": "0", "b": "0b"}[verb] if "#" in flags else ""
        return ("-" if value < 0 else "") + prefix + digits
    if verb in "cqU":
        char = chr(value) if 0 <= value < 0x110000 and not 0xD800 <= value < 0xE000 else "\ufffd"
        if verb == "U":
            return code_point(char) if "#" in flags else f"U+{value:04X}"
        return char if verb == "c" else _quoted_char(char)
    return None


def _quoted_char(char: str) -> str:
    special = {"'": "\\'", '"': '"'}
    return "'" + special.get(char, quote(char)[1:-1]) + "'"


def _real(value: float, verb: str, precision: int | None) -> str | None:
    if verb == "g" and precision is None:
        return format_float(value)
    if verb not in "eEfFgG":
        return None
    return format(value, f".{6 if precision is None else min(precision, 1000)}{verb}")


def _textual(text: str, verb: str, precision: int | None) -> str | None:
    text = text if precision is None else text[:precision]
    if verb in "xX":
        digits = raw_bytes(text).hex()
        return digits if verb == "x" else digits.upper()
    return quote(text) if verb == "q" else text if verb == "s" else None


def _padded(text: str, match: re.Match[str], value: Value) -> str:
    flags, width = match[1], int(match[2] or 0)
    if "-" in flags:
        return text.ljust(width)
    if "0" not in flags:
        return text.rjust(width)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return text.zfill(width) if is_number else text.rjust(width, "0")
