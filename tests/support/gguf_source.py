"""Sources for the header reader: bytes in memory, and files too large to be real."""

from collections.abc import Mapping

from registry.core.gguf import Header, HeaderReader


class Sparse:
    """A file of any size: zeros, but for the pieces given by offset."""

    def __init__(self, size: int, pieces: Mapping[int, bytes]) -> None:
        self.size = size
        self.pieces = pieces
        self.asked: list[tuple[int, int]] = []

    def range(self, start: int, length: int) -> bytes:
        self.asked.append((start, length))
        data = bytearray(length)
        for offset, piece in self.pieces.items():
            low, high = max(start, offset), min(start + length, offset + len(piece))
            if low < high:
                data[low - start : high - start] = piece[low - offset : high - offset]
        return bytes(data)


def read(source: bytes | Sparse, step: int = 1 << 30) -> Header:
    """Read a header, `step` bytes at a time."""
    file = Sparse(len(source), {0: source}) if isinstance(source, bytes) else source
    reader = HeaderReader(file.size)
    while reader.need is not None:
        start, length = reader.need
        assert 0 <= start < start + length <= file.size
        assert length <= 9 << 20
        reader.feed(file.range(start, min(length, step)))
    assert reader.header is not None
    return reader.header
