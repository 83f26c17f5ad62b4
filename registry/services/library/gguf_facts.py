"""Facts of stored GGUF files: fetches what the header reader asks for, parses off the loop."""

from typing import Protocol

from anyio.to_thread import run_sync

from registry.core.facts import Facts, Item, array_values
from registry.core.gguf import HeaderReader, Span
from registry.ports.blobs import Opened

MAX_VERBOSE_BYTES = 64 << 20
MAX_VERBOSE_ELEMENTS = 4 << 20
"""What one verbose answer reads. The largest vocabulary known takes 17 MB, 740,000 elements."""

_STEP = 4 << 20


class Ranges(Protocol):
    """Bytes that can be read at any place: a blob, or one on its way in."""

    @property
    def size(self) -> int:
        """How many there are."""

    async def read(self, start: int, stop: int) -> bytes:
        """Some of them."""


async def read_facts(opened: Ranges) -> Facts:
    """Read the header of a GGUF file.

    Raises:
        GgufInvalid: it is none, or one that breaks a rule.
    """
    reader = HeaderReader(opened.size)
    while reader.need is not None:
        start, length = reader.need
        await run_sync(reader.feed, await opened.read(start, start + length))
    assert reader.header is not None
    return await run_sync(Facts.of, reader.header)


async def read_arrays(opened: Opened, facts: Facts) -> dict[str, list[Item]]:
    """Read the arrays that `facts` left in the file, for a verbose answer.

    Those that would make the answer too large are not read.

    Raises:
        ValueError: the file is not the one that the facts are of.
    """
    arrays: dict[str, list[Item]] = {}
    size = count = 0
    for key, span in facts.spans.items():
        size, count = size + span.length, count + span.count
        if size > MAX_VERBOSE_BYTES or count > MAX_VERBOSE_ELEMENTS:
            break
        arrays[key] = await _read_array(opened, span)
    return arrays


async def _read_array(opened: Opened, span: Span) -> list[Item]:
    stop = span.offset + span.length
    starts = range(span.offset, stop, _STEP)
    parts = [await opened.read(start, min(start + _STEP, stop)) for start in starts]
    return await run_sync(array_values, span, b"".join(parts))
