"""How often somebody may fail: counts per address and per account, bounded in memory.

Each replica counts for itself: what an attacker gains by that is a factor of the replicas.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

from registry.core.errors import TooOften

_NS = 1_000_000_000
_WINDOW_NS = 60 * _NS
_KNOWN = 20_000


class Attempts:
    """Counts in windows of a minute, which begin with the first attempt."""

    def __init__(self, per_minute: int, clock: Callable[[], int]) -> None:
        self._limit = per_minute
        self._clock = clock
        self._counts: OrderedDict[str, tuple[int, int]] = OrderedDict()  # since when, how many

    def begin(self, *keys: str) -> None:
        """Count an attempt, as if it had failed: many at once must not slip through together.

        Raises:
            TooOften: one of the keys has had its attempts; this one is not counted.
        """
        now = self._clock()
        found = {key: self._count(key, now) for key in keys}
        for since, count in found.values():
            if count >= self._limit:
                wait_s = max(1, (since + _WINDOW_NS - now) // _NS + 1)
                raise TooOften(f"too many failed sign-ins; try again in {wait_s} seconds", wait_s)
        for key, (since, count) in found.items():
            self._counts[key] = (since, count + 1)
            self._counts.move_to_end(key)
        while len(self._counts) > _KNOWN:
            self._counts.popitem(last=False)

    def forgive(self, *keys: str) -> None:
        """The attempt begun last succeeded: it does not count."""
        for key in keys:
            since, count = self._counts.get(key, (0, 0))
            if count > 1:
                self._counts[key] = (since, count - 1)
            else:
                self._counts.pop(key, None)

    def _count(self, key: str, now: int) -> tuple[int, int]:
        since, count = self._counts.get(key, (now, 0))
        return (since, count) if since <= now < since + _WINDOW_NS else (now, 0)


def network(address: str) -> str:
    """What counts as one address: an IPv4 address, or a /64 of IPv6, which is one household."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))
