"""The page that `registry show` prints about a model.

Source: what the stock command line shows, tests/golden/wire/cli.json.
"""

from collections.abc import Sequence
from typing import Any

from registry.cli.render import table

_ARRAY_CHARACTERS = 10  # of an array's items shown in the metadata table
_LICENSE_LINES = 2  # of each license, as in the stock listing; --verbose and --license show all


def text(answer: dict[str, Any], *, verbose: bool) -> str:
    """The sections of an answer of `/api/show`; with `verbose` metadata, tensors and full texts."""
    info = _mapping(answer.get("model_info"))
    sections: list[tuple[str, Sequence[Sequence[str]]]] = [
        ("Model", _model_rows(answer, info)),
        ("Capabilities", [[str(item)] for item in _items(answer.get("capabilities"))]),
        ("Projector", _projector_rows(_mapping(answer.get("projector_info")))),
        ("Parameters", _parameter_rows(str(answer.get("parameters") or ""))),
    ]
    if verbose:
        sections += [
            ("Metadata", [[key, _value(info[key])] for key in sorted(info)]),
            ("Tensors", _tensor_rows(answer.get("tensors"))),
        ]
    limit = None if verbose else _LICENSE_LINES
    sections += [
        ("System", _line_rows(answer.get("system"), limit)),
        ("License", _line_rows(answer.get("license"), limit)),
    ]
    return "\n".join(f"  {title}\n{table(rows, indent=4)}" for title, rows in sections if rows)


def _model_rows(answer: dict[str, Any], info: dict[str, Any]) -> list[list[str]]:
    about = _mapping(answer.get("details"))
    family = str(info.get("general.architecture") or about.get("family") or "")
    rows: list[tuple[str, Any]] = [
        ("remote model", answer.get("remote_model")),
        ("remote host", answer.get("remote_host")),
        ("architecture", family),
        ("parameters", about.get("parameter_size") or info.get("general.parameter_count")),
        ("context length", info.get(f"{family}.context_length")),
        ("embedding length", info.get(f"{family}.embedding_length")),
        ("quantization", about.get("quantization_level")),
        ("requires", answer.get("requires")),
    ]
    return [[label, str(value)] for label, value in rows if value]


def _projector_rows(info: dict[str, Any]) -> list[list[str]]:
    family = str(info.get("general.architecture") or "")

    def first(suffix: str) -> Any:
        found = (info.get(f"{family}.{kind}.{suffix}") for kind in ("vision", "audio"))
        return next((value for value in found if value), None)

    rows: list[tuple[str, Any]] = [
        ("architecture", family),
        ("parameters", info.get("general.parameter_count")),
        ("embedding length", first("embedding_length")),
        ("dimensions", first("projection_dim")),
    ]
    return [[label, str(value)] for label, value in rows if value]


def _parameter_rows(parameters: str) -> list[Sequence[str]]:
    return [line.split(None, 1) for line in parameters.splitlines() if line.strip()]


def _tensor_rows(tensors: Any) -> list[list[str]]:
    return [
        [
            str(tensor.get("name", "")),
            str(tensor.get("type", "")),
            f"[{' '.join(map(str, _items(tensor.get('shape'))))}]",
        ]
        for tensor in _items(tensors)
        if isinstance(tensor, dict)
    ]


def _line_rows(value: Any, limit: int | None) -> list[list[str]]:
    lines = [line.rstrip() for line in str(value or "").strip().splitlines()]
    rows = [[line] for line in lines[:limit]]
    return [*rows, ["..."]] if len(lines) > len(rows) else rows


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return _array(value) if isinstance(value, list) else str(value)


def _array(values: list[Any]) -> str:
    """The first items of a list, and how many more there are."""
    shown: list[str] = []
    for value in values:
        item = str(value)
        if shown and sum(map(len, shown)) + len(shown) + len(item) > _ARRAY_CHARACTERS:
            break
        shown.append(item)
    more = len(values) - len(shown)
    return f"[{' '.join(shown)}{f' ...+{more} more' if more else ''}]"


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
