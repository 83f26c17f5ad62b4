"""Byte ranges: which part of a blob a request asks for, and how an answer says which part it is.

Only single ranges of unit `bytes`; a request for several gets the whole, as RFC 9110 allows.
Source: RFC 9110 section 14; OCI distribution-spec 1.1, "Pushing a blob in chunks".
"""

import re
from dataclasses import dataclass

# 19 digits hold every 63-bit offset; a longer number is no offset of anything.
_RANGE = re.compile(r"bytes=[ \t]*(\d{0,19})-(\d{0,19})[ \t]*", re.ASCII | re.IGNORECASE)
_CONTENT = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII | re.IGNORECASE)
_CHUNK = re.compile(r"(?:bytes[ =])?(\d{1,19})-(\d{1,19})(?:/(?:\d{1,19}|\*))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes `[start, stop)`."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def of(self, total: int | None) -> str:
        """The value of Content-Range for this part of `total` bytes; None: not known."""
        return f"bytes {self.start}-{self.stop - 1}/{'*' if total is None else total}"


class Unsatisfiable(Exception):
    """A range with no byte in it: the answer is a 416 with `Content-Range: bytes */<size>`."""


def requested(header: str | None, size: int) -> Span | None:
    """The part of `size` bytes that a Range header asks for; None for all of them.

    A header that is not understood is passed over. An end beyond the last byte is clipped.

    Raises:
        Unsatisfiable: it begins behind the end, ends before its start, or asks for the last 0
        bytes.
    """
    match = _RANGE.fullmatch(header) if header else None
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        start = int(match[1])
        stop = min(int(match[2]) + 1, size) if match[2] else size
    else:
        start = max(0, size - int(match[2]))
        stop = size
    if start >= stop:
        raise Unsatisfiable
    return Span(start, stop)


def answered(header: str) -> tuple[Span, int | None] | None:
    """The part and the total size that the Content-Range of an answer names; None if unusable."""
    match = _CONTENT.fullmatch(header.strip())
    if match is None:
        return None
    span = Span(int(match[1]), int(match[2]) + 1)
    total = None if match[3] == "*" else int(match[3])
    if not span.start < span.stop or (total is not None and span.stop > total):
        return None
    return span, total


def chunk(header: str) -> Span | None:
    """The part of an upload that a request's Content-Range names; None if it is not understood.

    OCI clients write `<first>-<last>`, without unit or total; some write both.
    """
    match = _CHUNK.fullmatch(header.strip())
    if match is None or int(match[2]) < int(match[1]):
        return None
    return Span(int(match[1]), int(match[2]) + 1)


def so_far(size: int) -> str:
    """The Range header of an upload session that has `size` bytes. An empty one says `0-0`."""
    return f"0-{max(0, size - 1)}"
