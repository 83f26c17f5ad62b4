"""Chunked transfer encoding, decoded in place and in any portions. No I/O.

Strict where leniency has let requests be smuggled: lines end in CRLF, a size is hex digits and
nothing else, and the CRLF after a chunk must be there. Extensions and trailers are read over, in
bounds. Source: RFC 9112 section 7.1.
"""

import re
from enum import Enum, auto

from registry.core.errors import RequestInvalid

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?\r\n")
_NEXT = re.compile(rb"\r\n([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?\r\n")
_LINE = 1024  # longest size line: the size itself and extensions, which nobody sends
_EXTENSIONS = 16_384  # bytes of extensions in one body
_TRAILERS = 16_384


class _State(Enum):
    SIZE = auto()  # before a size line; after a chunk that includes the CRLF that ends it
    DATA = auto()
    TRAILER = auto()
    DONE = auto()


class ChunkDecoder:
    """Takes the framing out of a buffer. Feed it until `done`."""

    def __init__(self) -> None:
        self._state = _State.SIZE
        self._frame = _SIZE
        self._left = 0  # payload bytes of the chunk that are still to come
        self._line = b""  # the beginning of a line whose end is not here yet
        self._extra = 0
        self.frames = 0  # chunks seen
        self.leftover = b""  # bytes behind the body: the next request

    @property
    def done(self) -> bool:
        """Whether the whole body was seen."""
        return self._state is _State.DONE

    def decode(self, view: memoryview, size: int) -> int:
        """Move the payload among the first `size` bytes of `view` to its front; how many they are.

        Raises:
            RequestInvalid: this is not chunked encoding, or its lines are too long.
        """
        read = written = 0
        while read < size and self._state is not _State.DONE:
            if self._state is _State.DATA:
                count = min(self._left, size - read)
                if read != written:
                    view[written : written + count] = view[read : read + count]
                read, written = read + count, written + count
                self._left -= count
                if not self._left:
                    self._state = _State.SIZE
            elif self._state is _State.SIZE:
                read = self._read_size(view, read, size)
            else:
                read = self._read_trailer(view, read, size)
        if self._state is _State.DONE:
            self.leftover = bytes(view[read:size])
        return written

    def _read_size(self, view: memoryview, read: int, size: int) -> int:
        """Read a size line, or keep its beginning; return where to go on."""
        if not self._line:
            match = self._frame.match(view, read, min(read + _LINE, size))
            if match:
                self._begin(match)
                return match.end()
        kept = len(self._line)
        stop = min(read + _LINE - kept, size)
        self._line += bytes(view[read:stop])
        match = self._frame.match(self._line)
        if match:
            self._line = b""
            self._begin(match)
            return read + match.end() - kept
        first_line = self._line.removeprefix(b"\r\n") if self._frame is _NEXT else self._line
        if (
            len(self._line) >= _LINE
            or b"\n" in first_line
            or not _may_begin(self._line, self._frame)
        ):
            raise RequestInvalid("invalid chunked encoding")
        return stop

    def _begin(self, match: "re.Match[bytes]") -> None:
        self.frames += 1
        self._left = int(match[1], 16)
        self._extra += match.end() - match.end(1) - 2
        if self._extra > _EXTENSIONS:
            raise RequestInvalid("too many chunk extensions")
        self._frame = _NEXT
        if self._left:
            self._state = _State.DATA
        else:
            self._state = _State.TRAILER
            self._extra = 0

    def _read_trailer(self, view: memoryview, read: int, size: int) -> int:
        """Read over one line of the trailer; an empty one ends the body."""
        stop = min(read + _TRAILERS, size)
        kept = len(self._line)
        self._line += bytes(view[read:stop])
        end = self._line.find(b"\n")
        self._extra += stop - read if end < 0 else end + 1 - kept
        if self._extra > _TRAILERS:
            raise RequestInvalid("trailers are too long")
        if end < 0:
            return stop
        line, self._line = self._line[: end + 1], b""
        if not line.endswith(b"\r\n"):
            raise RequestInvalid("invalid chunked encoding")
        if line == b"\r\n":
            self._state = _State.DONE
        return read + end + 1 - kept


def _may_begin(line: bytes, frame: "re.Pattern[bytes]") -> bool:
    """Whether more bytes could make a size line of it: nothing is waited for after garbage."""
    if frame is _NEXT:
        if line in {b"\r", b"\r\n"}:
            return True
        if not line.startswith(b"\r\n"):
            return False
        line = line[2:]
    return re.fullmatch(rb"[0-9A-Fa-f]{1,15}[ \t]*(?:;[^\r\n\0]*)?\r?", line) is not None
