"""The functions of templates, Go's and the Ollama server's.

Each takes the evaluated arguments; `and` and `or` are not here, for they leave some unevaluated.

Source: package documentation of `text/template`, "Functions".
"""

from collections.abc import Callable, Sequence
from datetime import date, timedelta

from registry.core.gotemplate.printing import concatenated, formatted, joined, plain
from registry.core.gotemplate.values import (
    Map,
    Slice,
    Struct,
    Value,
    failure,
    is_true,
    to_json,
)
from registry.core.gotext import raw_bytes

Arguments = Sequence[Value]
Function = Callable[[Arguments], Value]

_HTML = {"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}
_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"'} | {c: f"\\u{ord(c):04X}" for c in "<>&="}
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")
_TYPESCRIPT = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


def functions(today: date) -> dict[str, Function]:
    """All functions by name; `today` is what the two that tell a date go by."""
    return {
        "call": _call,
        "currentDate": lambda args: _date(today, args),
        "eq": _eq,
        "ge": lambda args: not _ordered("ge", args)[0],
        "gt": lambda args: not any(_ordered("gt", args)),
        "html": lambda args: "".join(_HTML.get(c, c) for c in _joined(args)),
        "index": _index,
        "js": lambda args: "".join(map(_js_char, _joined(args))),
        "json": lambda args: to_json(_only("json", args)),
        "le": lambda args: any(_ordered("le", args)),
        "len": _len,
        "lt": lambda args: _ordered("lt", args)[0],
        "ne": lambda args: not _eq(_pair("ne", args)),
        "not": lambda args: not is_true(_only("not", args)),
        "print": concatenated,
        "printf": _printf,
        "println": lambda args: joined(map(plain, args), " ") + "\n",
        "slice": _slice,
        "toTypeScriptType": lambda args: typescript(_only("toTypeScriptType", args)),
        "urlquery": lambda args: "".join(map(_url_byte, raw_bytes(_joined(args)))),
        "yesterdayDate": lambda args: _date(today - timedelta(days=1), args),
    }


def _only(name: str, args: Arguments) -> Value:
    if len(args) != 1:
        raise failure(f"wrong number of args for {name}: want 1 got {len(args)}")
    return args[0]


def _pair(name: str, args: Arguments) -> Arguments:
    if len(args) != 2:
        raise failure(f"wrong number of args for {name}: want 2 got {len(args)}")
    return args


def _call(args: Arguments) -> Value:
    raise failure("error calling call: non-function")


def _date(day: date, args: Arguments) -> str:
    """A format may be asked for and is ignored, as the Ollama server does."""
    if not all(isinstance(arg, str) for arg in args):
        raise failure("wrong type for value; expected string")
    return day.isoformat()


def _joined(args: Arguments) -> str:
    return concatenated(["<no value>" if arg is None else arg for arg in args])


def _js_char(char: str) -> str:
    if char in _JS:
        return _JS[char]
    if char < " " or (char > "\x7f" and not char.isprintable()):
        return f"\\u{ord(char):04X}"
    return char


def _url_byte(byte: int) -> str:
    return chr(byte) if byte in _UNRESERVED else "+" if byte == 0x20 else f"%{byte:02X}"


def _printf(args: Arguments) -> str:
    if not args or not isinstance(args[0], str):
        raise failure("wrong type for value; expected string")
    return formatted(args[0], args[1:])


def _len(args: Arguments) -> int:
    value = _only("len", args)
    if isinstance(value, str):
        return len(raw_bytes(value))
    if isinstance(value, Slice | Map):
        return len(value.items)
    raise failure("error calling len: a value without a length")


def _position(value: Value, limit: int, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise failure(f"error calling {name}: cannot index with this type")
    if not 0 <= value <= limit:
        raise failure(f"error calling {name}: index out of range: {value}")
    return value


def _index(args: Arguments) -> Value:
    if not args or args[0] is None:
        raise failure("error calling index: index of untyped nil")
    value = args[0]
    for key in args[1:]:
        if isinstance(value, str):
            data = raw_bytes(value)
            value = data[_position(key, len(data) - 1, "index")]
        elif isinstance(value, Slice):
            value = value.items[_position(key, len(value.items) - 1, "index")]
        elif isinstance(value, Map) and isinstance(key, str):
            value = value.items.get(key)
        else:
            raise failure("error calling index: can't index this value")
    return value


def _slice(args: Arguments) -> Value:
    if not args or len(args) > 4:
        raise failure("error calling slice: too many slice indexes, or no value")
    value, *marks = args
    if isinstance(value, str) and len(marks) < 3:
        data = raw_bytes(value)
        start, stop = _bounds(marks, len(data))
        return data[start:stop].decode("utf-8", "surrogateescape")
    if isinstance(value, Slice):
        start, stop = _bounds(marks, len(value.items))
        return Slice(value.items[start:stop], value.style)
    raise failure("error calling slice: can't slice this value")


def _bounds(marks: Arguments, length: int) -> tuple[int, int]:
    limit = length
    bounds = [_position(mark, limit, "slice") for mark in marks]
    if bounds != sorted(bounds):
        raise failure("error calling slice: invalid slice index")
    start, stop = (*bounds, *(0, length)[len(bounds) :])[:2]
    return start, stop


def _kind(value: Value) -> str | None:
    """The basic kind by which values are compared; None for nil, lists, maps and structs."""
    for kind in (bool, int, float, complex, str):
        if isinstance(value, kind):
            return kind.__name__
    return None


def _eq(args: Arguments) -> bool:
    if len(args) < 2:
        raise failure("error calling eq: missing argument for comparison")
    return any(_equal(args[0], other) for other in args[1:])


def _equal(left: Value, right: Value) -> bool:
    if left is None or right is None:
        return left is right
    kinds = _kind(left), _kind(right)
    if kinds[0] != kinds[1]:
        raise failure("error calling eq: incompatible types for comparison")
    if kinds[0] is None:
        raise failure("error calling eq: non-comparable type")
    return bool(left == right)


def _ordered(name: str, args: Arguments) -> tuple[bool, bool]:
    """Whether the first is less than the second, and whether they are equal."""
    left, right = _pair(name, args)
    kinds = _kind(left), _kind(right)
    if None in kinds or kinds[0] in ("bool", "complex"):
        raise failure(f"error calling {name}: invalid type for comparison")
    if kinds[0] != kinds[1]:
        raise failure(f"error calling {name}: incompatible types for comparison")
    return left < right, left == right


def typescript(value: Value) -> str:
    """A tool property's type in TypeScript; `any` for every other value."""
    if not isinstance(value, Struct) or value.kind != "property":
        return "any"
    if value.fields["AnyOf"].items:
        return " | ".join(map(typescript, value.fields["AnyOf"].items))
    return " | ".join(_TYPESCRIPT.get(t, "any") for t in value.fields["Type"].items) or "any"
