"""How a blob is cut into byte ranges for its way in or out.

Source: spec registry-protocol 1.3 and 2.1 for the parts of an upload, which other registries see.
"""

from collections.abc import Callable
from itertools import pairwise

MIN_UPLOAD_PART = 100_000_000
MAX_UPLOAD_PART = 1_000_000_000
UPLOAD_PARTS = 16


def split(size: int, part: int, boundary: Callable[[int], int] = int) -> list[tuple[int, int]]:
    """`[start, stop)` of each piece of `part` bytes; the last is shorter, nothing has none.

    Each begins at a boundary: the next one at or before an offset, 0 among them.
    """
    starts = sorted({boundary(start) for start in range(0, size, part)})
    return list(pairwise([*starts, size])) if size else []


def upload_parts(size: int) -> list[tuple[int, int]]:
    """The parts in which Ollama sends a blob: a sixteenth each, within limits."""
    return split(size, min(max(size // UPLOAD_PARTS, MIN_UPLOAD_PART), MAX_UPLOAD_PART))
