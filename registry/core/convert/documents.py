"""The small files of a checkpoint: JSON read within bounds, and how names are shown in errors."""

import json
from typing import Any

import orjson

from registry.core.errors import CheckpointInvalid

_SHOWN = 120
_MAX_CONTAINERS, _MAX_PAIRS, _MAX_ITEMS = 3_000_000, 3_000_000, 8_000_000
"""What the largest known vocabulary needs, several times over; what was parsed stays below 1 GB."""


def shown(text: str) -> str:
    """A name out of a foreign file, safe and short enough for a message."""
    cut = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return cut if cut.isprintable() else ascii(cut)


def read_json(data: bytes, name: str, limit: int) -> dict[str, Any]:
    """The object that a file holds; `NaN` and `Infinity` are let pass, as checkpoints have them.

    Raises:
        CheckpointInvalid: it is longer than `limit` bytes, no JSON, or no object.
    """
    if len(data) > limit:
        raise CheckpointInvalid(f"{name}: {len(data)} bytes are more than {limit}")
    containers = data.count(b"[") + data.count(b"{")
    if (
        containers > _MAX_CONTAINERS
        or data.count(b":") > _MAX_PAIRS
        or data.count(b",") > _MAX_ITEMS
    ):
        raise CheckpointInvalid(f"{name}: too many values")
    try:
        found = _parsed(data)
    except RecursionError as error:
        raise CheckpointInvalid(f"{name}: nested too deep") from error
    except ValueError as error:
        raise CheckpointInvalid(f"{name}: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointInvalid(f"{name}: no object")
    return found


def _parsed(data: bytes) -> Any:
    """Raises ValueError or RecursionError."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:  # stricter, and three times as fast
        return json.loads(data)
