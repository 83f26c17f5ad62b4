"""A part of a blob while it is fetched: what is here, what that hashes to, how fast it comes."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

from anyio import to_thread

from registry.core.errors import UpstreamBusy
from registry.core.multipart import Coverage
from registry.ports.blobs import Incoming
from registry.ports.transfers import Part

BLOCK = 1 << 20
"""Bytes that are hashed and written at once: a thread hop for each socket read is dear."""

_SLOWEST = 16 << 10
"""Bytes that have to come in twice the stall limit."""


@dataclass(slots=True)
class Piece:
    """The bytes `[start, stop)` of a blob; `state` has seen the first `done` of them.

    None: an object store has some from before, which nobody has hashed here.
    """

    start: int
    stop: int
    done: int = 0
    state: Any = field(default_factory=hashlib.sha256)  # hashlib does not export its type
    before: str = ""  # what the piece hashed to before it was fetched again

    @property
    def complete(self) -> bool:
        """Whether all of it is here."""
        return self.done == self.stop - self.start

    @property
    def sha256(self) -> str:
        """Hex digest of a complete piece, else empty."""
        return self.state.hexdigest() if self.complete and self.state is not None else ""

    def progress(self) -> int:
        """How many bytes are here."""
        return self.done

    def reset(self) -> None:
        """Forget the bytes, but not what they hashed to."""
        self.before, self.done, self.state = self.sha256, 0, hashlib.sha256()

    @property
    def came_twice(self) -> bool:
        """Whether the same bytes were fetched once more."""
        return self.before != "" and self.before == self.sha256

    def update(self, data: memoryview) -> None:
        """Hash the next bytes."""
        if self.state is not None:
            self.state.update(data)

    def row(self) -> Part:
        """As the catalog keeps it."""
        return Part(self.start, self.stop, self.done, self.sha256)

    def believe(self, done: int) -> None:
        """The first `done` bytes are in the store, which cannot be asked for them yet."""
        self.done = done
        if done:
            self.state = None

    async def hash_again(self, incoming: Incoming, done: int) -> None:
        """Read the first `done` bytes back from disk; fewer if they are not there."""
        self.done, self.state = 0, hashlib.sha256()
        while self.done < done:
            begin = self.start + self.done
            data = await incoming.read(begin, min(begin + BLOCK, self.start + done))
            if not data:
                break
            await to_thread.run_sync(self.state.update, data)
            self.done += len(data)


def held(part: Part, there: Coverage) -> Part:
    """As much of a part as there is in the store."""
    done = min(part.done, there.reach(part.start) - part.start)
    return part if done == part.done else replace(part, done=done, sha256="")


class Pace:
    """Tells a stream that is alive only in name, byte after byte, from a slow one."""

    def __init__(self, window_s: float, now: float) -> None:
        self._window_s = window_s
        self._end = now + window_s
        self._bytes = 0

    def note(self, size: int, now: float) -> None:
        """Some bytes came.

        Raises:
            UpstreamBusy: it were too few for the time.
        """
        self._bytes += size
        if now < self._end:
            return
        if self._bytes < _SLOWEST:
            raise UpstreamBusy("the registry sends too slowly")
        self._end, self._bytes = now + self._window_s, 0
