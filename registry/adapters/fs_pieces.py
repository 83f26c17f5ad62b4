"""What travels through the lanes of the file system store: stretches of buffers, and a hash."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock


@dataclass(slots=True)
class Running:
    """A hash and how many bytes from the start it has seen."""

    state: "hashlib._Hash"
    size: int = 0

    @classmethod
    def fresh(cls) -> "Running":
        """Of no bytes."""
        return cls(hashlib.sha256())

    def copy(self) -> "Running":
        """One that goes its own way."""
        return Running(self.state.copy(), self.size)


class Attempt:
    """Bytes that are taken back together if their sender fails: those of one `receive`."""

    __slots__ = ("given_up",)

    def __init__(self) -> None:
        self.given_up = False


class Piece:
    """Bytes in a buffer, and the place in the file they belong to.

    Both lanes must be done with it before the buffer can be filled again: then `over` is called, in
    the thread of the lane that was last.
    """

    __slots__ = ("_left", "_lock", "_over", "attempt", "offset", "view")

    def __init__(
        self, view: memoryview, offset: int, attempt: Attempt, over: Callable[[], object]
    ) -> None:
        self.view = view
        self.offset = offset
        self.attempt = attempt
        self._over = over
        self._left = 2
        self._lock = Lock()

    def done(self) -> None:
        """Say that one lane is done with it."""
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self.view.release()
            self._over()
