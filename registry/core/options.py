"""Runtime options of a model: names that mean something, their types, which of several count.

Source: spec ollama-api 17.1 and 14.2, row 11.
"""

from collections.abc import Mapping
from typing import Any, Final

from registry.core.errors import OperationFailed
from registry.core.gotext import quote
from registry.core.parameters import PARAMETERS

DEFAULT_NUM_CTX = 4096
_LEAST_NUM_CTX = 4
_LEAST_WITH_IMAGES = 2048
_LARGEST_NUM_CTX = 1 << 24
_INT32 = (1 << 31) - 1
_FLOAT = 1e9

_TYPES: Final = {
    "integer": (
        "num_keep",
        "seed",
        "num_predict",
        "top_k",
        "repeat_last_n",
        "num_ctx",
        "num_batch",
        "num_gpu",
        "main_gpu",
        "num_thread",
        "draft_num_predict",
    ),
    "float32": (
        "top_p",
        "min_p",
        "typical_p",
        "temperature",
        "repeat_penalty",
        "presence_penalty",
        "frequency_penalty",
    ),
    "boolean": ("use_mmap",),
    "array": ("stop",),
}
_TYPE_OF: Final = {name: kind for kind, names in _TYPES.items() for name in names}


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse a known option of the wrong type; unknown ones and nulls are passed over.

    Raises:
        OperationFailed: the first wrong one by name; it is no fault of the request alone, because
            stored parameters of a model are checked here too.
    """
    for name in sorted(options):
        kind, value = _TYPE_OF.get(name), options[name]
        if kind is None or value is None:
            continue
        if not _fits(kind, value):
            raise OperationFailed(f"option {quote(name)} must be of type {kind}")
        if kind == "array" and not all(isinstance(item, str) for item in value):
            raise OperationFailed(f"option {quote(name)} must be of an array of strings")


def _fits(kind: str, value: Any) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "array":
        return isinstance(value, list | tuple)
    return isinstance(value, int | float) and not isinstance(value, bool)


def merged(stored: Mapping[str, Any], sent: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options that count: those sent over those stored; null is as if it were not there."""
    options = {**stored, **{name: item for name, item in (sent or {}).items() if item is not None}}
    return {name: item for name, item in options.items() if item is not None}


def unknown(options: Mapping[str, Any]) -> list[str]:
    """Names that mean nothing, in order."""
    return sorted(set(options) - set(PARAMETERS))


def context_size(
    options: Mapping[str, Any], default: int, trained: int, *, images: bool = False
) -> int:
    """Tokens of a slot: what is asked for, or else the default (0: this server's own).

    At most what the model was `trained` for, where that is known.
    """
    wanted = integer(options, "num_ctx", 0) or default or DEFAULT_NUM_CTX
    least = _LEAST_WITH_IMAGES if images else _LEAST_NUM_CTX
    return min(max(wanted, least), trained or _LARGEST_NUM_CTX, _LARGEST_NUM_CTX)


def integer(options: Mapping[str, Any], name: str, default: int) -> int:
    """A checked option as an integer of 32 bits, its fraction cut."""
    value = options.get(name)
    return default if value is None or value != value else int(max(min(value, _INT32), -_INT32))


def number(options: Mapping[str, Any], name: str, default: float) -> float:
    """A checked option as a number that an engine can count with."""
    value = options.get(name)
    return default if value is None or value != value else float(max(min(value, _FLOAT), -_FLOAT))
