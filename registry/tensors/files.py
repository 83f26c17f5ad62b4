"""Source files as the child process has them: open descriptors with a name for messages."""

import os
from dataclasses import dataclass

import numpy as np

from registry.core.errors import OperationFailed
from registry.tensors.sources import Chunk


@dataclass(frozen=True, slots=True)
class File:
    """A file to read from, at any place; `name` is what its sender called it."""

    name: str
    descriptor: int
    size: int

    def read(self, start: int, stop: int) -> bytes:
        """The bytes `[start, stop)`.

        Raises:
            OperationFailed: the file does not have them.
        """
        return self.array(start, stop - start, np.dtype(np.uint8)).tobytes()

    def array(self, start: int, count: int, kind: "np.dtype[np.generic]") -> Chunk:
        """`count` numbers from byte `start` on, in memory of their own.

        Raises:
            OperationFailed: the file does not have them.
        """
        numbers = np.empty(count, kind)
        self.read_into(start, numbers.view(np.uint8).data)
        return numbers

    def read_into(self, start: int, view: memoryview) -> None:
        """Fill `view` with the bytes from `start` on.

        Raises:
            OperationFailed: the file does not have so many.
        """
        if start < 0 or start + len(view) > self.size:
            raise OperationFailed(f"{self.name} ends at byte {self.size}")
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self.descriptor, [view[done:]], start + done)
            except OSError as error:
                raise OperationFailed(f"{self.name} cannot be read: {error.strerror}") from error
            if not count:
                raise OperationFailed(f"{self.name} ends at byte {start + done}")
            done += count
