"""The time, as the database server has it.

Replicas write moments for each other: until when a blob is spared, an upload lives, a token is
good. Their machines' clocks may be hours apart, or stepped while they run; so each goes by the
server's, between two looks at it by its own steady one.

Source: PostgreSQL 15 documentation 9.9.5 (`clock_timestamp`).
"""

import time
from typing import Any

from psycopg import Cursor

_EVERY_NS = 10 * 10**9
_QUICK_NS = 10**9  # an answer that takes longer does not tell the moment


class ServerClock:
    """One per process; `look` is for the thread that has the cursor, `now` for all."""

    def __init__(self) -> None:
        self._ahead = 0  # of our steady one, in nanoseconds
        self._looked_at: int | None = None

    def now(self) -> int:
        """Nanoseconds since the epoch."""
        return time.monotonic_ns() + self._ahead

    def look(self, cursor: Cursor[Any]) -> None:
        """Ask the server, if that was not done just now.

        Raises:
            psycopg.Error: it does not answer.
        """
        asked = time.monotonic_ns()
        if self._looked_at is not None and asked - self._looked_at < _EVERY_NS:
            return
        cursor.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        ((micros,),) = cursor.fetchall()
        took = time.monotonic_ns() - asked
        if took < _QUICK_NS or self._looked_at is None:
            self._ahead = int(micros) * 1000 - (asked + took // 2)
            self._looked_at = asked
