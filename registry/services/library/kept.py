"""Bytes kept in memory up to a total; those not asked for the longest go first."""

from collections import OrderedDict
from collections.abc import Hashable

_OVERHEAD = 1536  # bytes that an entry takes besides its own: keys are made of several objects


class Kept:
    """A bounded mapping to bytes. A key must name contents that never change."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._total = 0
        self._items: OrderedDict[Hashable, bytes] = OrderedDict()

    def get(self, key: Hashable) -> bytes | None:
        """What is kept under the key."""
        found = self._items.get(key)
        if found is not None:
            self._items.move_to_end(key)
        return found

    def put(self, key: Hashable, content: bytes) -> None:
        """Keep it, unless it alone would take an eighth of the room."""
        size = len(content) + _OVERHEAD
        if key in self._items or size > self._most // 8:
            return
        self._items[key] = content
        self._total += size
        while self._total > self._most:
            _, gone = self._items.popitem(last=False)
            self._total -= len(gone) + _OVERHEAD
