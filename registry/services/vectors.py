"""Embeddings as numbers: brought to unit length, cut, and written, many at a time.

Source: spec ollama-api 16.
"""

from collections.abc import Sequence

import numpy as np
import orjson
from numpy.typing import DTypeLike, NDArray

from registry.core.errors import RequestInvalid

_TINY = 1e-12  # what a length is taken for at least: a zero vector stays zero


def normalized(vectors: Sequence[Sequence[float]], dimensions: int = 0) -> list[list[float]]:
    """The vectors in float32, each of length 1; cut to `dimensions` if they are longer.

    Raises:
        RequestInvalid: a value that is no number.
    """
    return [_normalized(vector, dimensions) for vector in vectors]


def checked(vector: Sequence[float]) -> list[float]:
    """The vector in float32 as it is.

    Raises:
        RequestInvalid: a value that is no number.
    """
    found: list[float] = _array(vector).tolist()
    return found


def as_json(vectors: Sequence[Sequence[float]]) -> bytes:
    """A JSON list of lists, each number with the fewest digits that identify its float32."""
    return b"[" + b",".join(_json(vector, np.float32) for vector in vectors) + b"]"


def wide_json(vector: Sequence[float]) -> bytes:
    """A JSON list, each number with the digits of the float64 that equals its float32."""
    return _json(vector, np.float64)


def _normalized(vector: Sequence[float], dimensions: int) -> list[float]:
    unit = _unit(_array(vector))
    if 0 < dimensions < len(unit):
        unit = _unit(unit[:dimensions])
    found: list[float] = unit.tolist()
    return found


def _array(vector: Sequence[float]) -> NDArray[np.float32]:
    values = np.asarray(vector, np.float32)  # None, which runners write for NaN, becomes NaN
    if not np.isfinite(values).all():
        raise RequestInvalid("embedding contains NaN or Inf values")
    return values


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    length = max(float(np.sqrt(np.dot(values, values))), _TINY)
    return values * np.float32(1.0 / length)


def _json(vector: Sequence[float], kind: DTypeLike) -> bytes:
    data = orjson.dumps(np.asarray(vector, kind), option=orjson.OPT_SERIALIZE_NUMPY)
    return data.replace(b".0,", b",").replace(b".0]", b"]")  # whole numbers, as Go has them
