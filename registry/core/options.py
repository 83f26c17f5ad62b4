"""Runtime options of a model: the names that mean something and the types they must have.

Source: spec ollama-api 17.1 and 14.2, row 11.
"""

from collections.abc import Mapping
from typing import Any, Final

from registry.core.errors import OperationFailed
from registry.core.gotext import quote

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
