"""Room for bytes that are too many for memory and that nobody misses after the process."""

from collections.abc import AsyncIterator, Callable
from typing import Protocol


class Scratch(Protocol):
    """Bytes written once, in order, then read by any number. Gone when nobody holds it any more."""

    def write(self, data: bytes) -> None:
        """Append; waits for the disk.

        Raises:
            StorageFull: there is no room.
        """

    def chunks(self) -> AsyncIterator[bytes]:
        """What was written, in pieces, as fast as they are taken."""


MakeScratch = Callable[[], Scratch]
