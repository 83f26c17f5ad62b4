"""Parameters of a model: the names a Modelfile may set, how values merge, are stored and shown.

A stored parameter object is whatever JSON a client sent; the server checks neither names nor types,
only the command line does (`read`). Numbers are float64 throughout, as they are for the Ollama
server, so integers beyond 2^53 lose precision.

Source: Ollama docs/modelfile.md, "PARAMETER"; recorded answers in `tests/golden`.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from registry.core.errors import ModelfileInvalid, RequestInvalid
from registry.core.gojson import Float32, dumps
from registry.core.gotext import format_float, quote

_NESTING_LIMIT = 100
_KEY_WIDTH = 30
_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_FLOAT32_LIMIT = 3.4028235677973366e38  # from here on rounding gives infinity
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


class Type(Enum):
    """What a parameter's value is; `int`, `float` and `bool` as their errors call them."""

    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    STRINGS = "strings"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One known parameter. A default of None means that the engine decides."""

    name: str
    type: Type
    default: int | float | None


PARAMETERS = {
    parameter.name: parameter
    for parameter in (
        Parameter("num_keep", Type.INT, 4),
        Parameter("seed", Type.INT, -1),
        Parameter("num_predict", Type.INT, -1),
        Parameter("top_k", Type.INT, 40),
        Parameter("top_p", Type.FLOAT, 0.9),
        Parameter("min_p", Type.FLOAT, 0.0),
        Parameter("typical_p", Type.FLOAT, 1.0),
        Parameter("repeat_last_n", Type.INT, 64),
        Parameter("temperature", Type.FLOAT, 0.8),
        Parameter("repeat_penalty", Type.FLOAT, 1.0),
        Parameter("presence_penalty", Type.FLOAT, 0.0),
        Parameter("frequency_penalty", Type.FLOAT, 0.0),
        Parameter("stop", Type.STRINGS, None),
        Parameter("num_ctx", Type.INT, None),
        Parameter("num_batch", Type.INT, 512),
        Parameter("num_gpu", Type.INT, -1),
        Parameter("main_gpu", Type.INT, None),
        Parameter("use_mmap", Type.BOOL, None),
        Parameter("num_thread", Type.INT, 0),
        Parameter("draft_num_predict", Type.INT, None),
    )
}

DEPRECATED = frozenset(
    (
        *("penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock"),
        *("mirostat", "mirostat_tau", "mirostat_eta"),
    )
)
"""Names that old Modelfiles set; the command line drops them with a warning."""


def read(pairs: Iterable[tuple[str, str]]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Values of `PARAMETER name value` lines, and the warnings to print.

    The last value of a name counts; those of `stop` add up. Names are sorted.

    Raises:
        ModelfileInvalid: an unknown name, or a text that is no value of the name's type.
    """
    values: dict[str, Any] = {}
    warnings: list[str] = []
    for name, text in pairs:
        if name in DEPRECATED:
            warnings.append(f"warning: parameter {name} is deprecated")
            continue
        parameter = PARAMETERS.get(name)
        if parameter is None:
            raise ModelfileInvalid(f"unknown parameter '{name}'")
        if parameter.type is Type.STRINGS:
            values[name] = [*values.get(name, []), text]
            continue
        value = _value(parameter.type, text)
        if value is None:
            raise ModelfileInvalid(f"invalid {parameter.type.value} value [{text}]")
        values[name] = value
    return dict(sorted(values.items())), tuple(warnings)


def _value(kind: Type, text: str) -> int | float | bool | None:
    if kind is Type.BOOL:
        return True if text in _TRUE else False if text in _FALSE else None
    if kind is Type.INT:
        value = int(text) if _INTEGER.fullmatch(text) else None
        return value if value is not None and -(1 << 63) <= value < 1 << 63 else None
    number = float(text) if _FLOAT.fullmatch(text) else None
    return Float32(number) if number is not None and abs(number) < _FLOAT32_LIMIT else None


def merge(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """The parent's parameters with the child's over them; lists are replaced, not joined."""
    return {**parent, **child}


def params_blob(values: Mapping[str, Any]) -> bytes:
    """The bytes of a params layer: compact JSON, keys sorted, a newline.

    Raises:
        RequestInvalid: values nested deeper than 100 levels.
    """
    return dumps(_as_float64(dict(values), 0), sort=True) + b"\n"


def _as_float64(value: Any, depth: int) -> Any:
    if depth > _NESTING_LIMIT:
        raise RequestInvalid(f"parameters nested deeper than {_NESTING_LIMIT} levels")
    if isinstance(value, dict):
        return {key: _as_float64(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_float64(item, depth + 1) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return _float64(value)
    return value


def _float64(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:  # Go's JSON reader refuses such a number; show must not fail on it
        return math.inf if value > 0 else -math.inf


def format_parameters(values: Mapping[str, Any]) -> str:
    """The `parameters` text of `/api/show`: a line per value, list items on lines of their own."""
    return "\n".join(
        f"{name:<{_KEY_WIDTH}} {'<nil>' if value is None else _go_syntax(value, 0)}"
        for name, value in _lines(values)
    )


def modelfile_values(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and bare text of each `PARAMETER` line of a Modelfile, in the order of the names."""
    return [(name, format_value(value)) for name, value in _lines(values)]


def _lines(values: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name in sorted(values):
        value = values[name]
        for item in value if isinstance(value, list | tuple) else (value,):
            yield name, item


def format_value(value: Any, depth: int = 0) -> str:
    """A JSON value as Go's `%v` prints it."""
    if depth > _NESTING_LIMIT:
        return "…"
    if isinstance(value, dict):
        items = (f"{key}:{format_value(value[key], depth + 1)}" for key in sorted(value))
        return f"map[{' '.join(items)}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(format_value(item, depth + 1) for item in value)}]"
    return value if isinstance(value, str) else _scalar(value)


def _go_syntax(value: Any, depth: int) -> str:
    """A JSON value as Go's `%#v` prints it."""
    if depth > _NESTING_LIMIT:
        return "…"
    if isinstance(value, dict):
        items = (f"{quote(key)}:{_go_syntax(value[key], depth + 1)}" for key in sorted(value))
        return f"map[string]interface {{}}{{{', '.join(items)}}}"
    if isinstance(value, list | tuple):
        return f"[]interface {{}}{{{', '.join(_go_syntax(item, depth + 1) for item in value)}}}"
    if value is None:
        return "interface {}(nil)"
    return quote(value) if isinstance(value, str) else _scalar(value)


def _scalar(value: bool | int | float | None) -> str:
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return format_float(_float64(value))
