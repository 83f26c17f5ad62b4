"""Embeddings as numbers: brought to unit length, cut, and written, many at a time.

Source: spec ollama-api 16.
"""

from collections.abc import Sequence

import numpy as np
import orjson
from numpy.typing import DTypeLike, NDArray

from registry.core.errors import RequestInvalid

_TINY = 1e-12  # what a length is taken for at least: a zero vector stays zero
_AT_ONCE = 64


def normalized(vectors: Sequence[Sequence[float]], dimensions: int = 0) -> list[list[float]]:
    """The vectors in float32, each of length 1; cut to `dimensions` if they are longer.

    Raises:
        RequestInvalid: a value that is no number.
    """
    if len({len(vector) for vector in vectors}) > 1:  # a server that is none
        return [row for vector in vectors for row in normalized([vector], dimensions)]
    units = _units(_matrix(vectors))
    if 0 < dimensions < units.shape[-1]:
        units = _units(units[:, :dimensions])
    found: list[list[float]] = units.tolist()
    return found


def checked(vectors: Sequence[Sequence[float]]) -> list[list[float]]:
    """The vectors in float32 as they are.

    Raises:
        RequestInvalid: a value that is no number.
    """
    return [_matrix([vector])[0].tolist() for vector in vectors]


def as_json(vectors: Sequence[Sequence[float]]) -> bytes:
    """A JSON list of lists, each number with the fewest digits that identify its float32."""
    parts = [_rows(vectors[at : at + _AT_ONCE]) for at in range(0, len(vectors), _AT_ONCE)]
    return b"[" + b",".join(parts) + b"]"


def wide_json(vector: Sequence[float]) -> bytes:
    """A JSON list, each number with the digits of the float64 that equals its float32."""
    return _json(vector, np.float64)


def _matrix(vectors: Sequence[Sequence[float]]) -> NDArray[np.float32]:
    values = np.asarray(vectors, np.float32)  # None, which runners write for NaN, becomes NaN
    if not np.isfinite(values).all():
        raise RequestInvalid("embedding contains NaN or Inf values")
    return values.reshape(len(vectors), -1)


def _units(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.maximum(np.sqrt(np.einsum("ij,ij->i", rows, rows)), _TINY)
    scaled: NDArray[np.float32] = rows * (1.0 / lengths).astype(np.float32)[:, None]
    return scaled


def _rows(vectors: Sequence[Sequence[float]]) -> bytes:
    """The lists of some vectors, without the brackets around all."""
    if len({len(vector) for vector in vectors}) > 1:
        return b",".join(_json(vector, np.float32) for vector in vectors)
    return _json(vectors, np.float32)[1:-1]


def _json(values: Sequence[float] | Sequence[Sequence[float]], kind: DTypeLike) -> bytes:
    data = orjson.dumps(np.asarray(values, kind), option=orjson.OPT_SERIALIZE_NUMPY)
    return data.replace(b".0,", b",").replace(b".0]", b"]")  # whole numbers, as Go has them
