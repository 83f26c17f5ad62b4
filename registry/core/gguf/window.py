"""The part of a file that is in memory while its header is read from front to back.

Nothing here reads: `fill` yields the range it wants and is sent its bytes. The other methods work
on what is there; if that is too little, the file has ended, since `fill` came first.

Errors of a file that ends too early are worded as Ollama's: `EOF` where it ends before the first
byte of a value, `unexpected EOF` inside of one.
"""

import struct
from collections.abc import Generator
from itertools import repeat
from typing import Any, TypeVar

from registry.core.errors import GgufInvalid
from registry.core.gguf.values import U64

T = TypeVar("T")
Need = tuple[int, int]
Reading = Generator[Need, bytes, T]

MAX_STRING = 16 << 20
MAX_HEADER = 512 << 20
FIRST_STEP = 1 << 20
LAST_STEP = 8 << 20  # the bytes in memory stay below MAX_STRING: `_hop` relies on it
_BATCH = 1024


class Window:
    """The bytes at hand and the place in the file where the next value begins."""

    def __init__(self, size: int) -> None:
        self.size = size  # of the whole file
        self.context = ""  # what the message of a premature end begins with
        self._bytes = b""
        self._base = 0  # place in the file of the first byte at hand
        self._at = 0
        self._step = FIRST_STEP

    @property
    def offset(self) -> int:
        """Place in the file of the next value."""
        return self._base + self._at

    @property
    def left(self) -> int:
        """Bytes from there to the end of the file."""
        return self.size - self.offset

    def has(self, count: int) -> bool:
        """Whether `count` bytes are at hand."""
        return len(self._bytes) - self._at >= count

    def fill(self, count: int) -> Reading[None]:
        """Get `count` bytes at hand, or all that the file still has.

        Raises:
            GgufInvalid: the header is too long.
        """
        if self.offset > MAX_HEADER:
            raise GgufInvalid(f"GGUF header is longer than {MAX_HEADER} bytes", self.offset)
        missing = min(count, self.left) - (len(self._bytes) - self._at)
        while missing > 0:
            start = self._base + len(self._bytes)
            data = yield start, min(max(self._step, missing), self.size - start)
            self._bytes = self._bytes[self._at :] + data
            self._base += self._at
            self._at = 0
            self._step = min(self._step * 2, LAST_STEP)
            missing -= len(data)

    def peek(self, count: int) -> bytes:
        """Up to `count` bytes, without going on."""
        return self._bytes[self._at : self._at + count]

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if not self.has(count):
            raise self.cut(count)
        self._at += count
        return self._bytes[self._at - count : self._at]

    def unpack(self, form: struct.Struct, unit: int = 0) -> tuple[Any, ...]:
        """The next values; `unit` is the size of one, if the real server reads them singly."""
        try:
            values = form.unpack_from(self._bytes, self._at)
        except struct.error:
            raise self.cut(unit or form.size) from None
        self._at += form.size
        return values

    def skip(self, count: int, unit: int = 0) -> None:
        """Step over bytes, which need not be at hand; `unit` as for `unpack`."""
        if count > self.left:
            raise self.cut(unit or count)
        self._at += count
        self._drop()

    def skip_strings(self, count: int) -> Reading[None]:
        """Step over `count` strings."""
        while count:
            yield from self.fill(U64.size)
            if not self.has(U64.size):
                raise self.cut(U64.size)
            count -= self._hop(count)

    def _hop(self, count: int) -> int:
        """Step over the strings, `count` at most, that begin in the bytes at hand.

        A vocabulary has half a million: the loop has no test inside. A length out of bounds leads
        beyond the bytes at hand, and then the last batch is gone through again with open eyes.
        """
        data, at, done, unpack = self._bytes, self._at, 0, U64.unpack_from
        while done < count:
            self._at, batch = at, min(_BATCH, count - done)
            try:
                for _ in repeat(None, batch):
                    at += 8 + unpack(data, at)[0]
            except (struct.error, OverflowError):
                return done + self._walk(batch)
            if at > len(data):
                return done + self._walk(batch)
            done += batch
        self._at = at
        return done

    def _walk(self, count: int) -> int:
        """`_hop`, string by string, with every check."""
        done = 0
        while done < count and self.has(U64.size):
            self.skip(self.string_length())
            done += 1
        return done

    def string_length(self, where: str = "") -> int:
        """The length that stands before a string; `where` ends the message if it is too large."""
        at = self.offset
        (length,) = self.unpack(U64)
        if length > MAX_STRING:
            words = f"GGUF string length {length} exceeds maximum {MAX_STRING}"
            raise GgufInvalid(f"{self.context}{words}{where}", at)
        return int(length)

    def cut(self, unit: int) -> GgufInvalid:
        """The error of a file that ends among values of `unit` bytes."""
        words = "unexpected EOF" if self.left % unit else "EOF"
        return GgufInvalid(self.context + words, self.size)

    def _drop(self) -> None:
        """Forget the bytes at hand if they are all behind us."""
        if self._at > len(self._bytes):
            self._base += self._at
            self._at = 0
            self._bytes = b""
