"""Writes SentencePiece models: the few fields that matter."""

import struct
from collections.abc import Sequence

Piece = tuple[str | bytes, float, int]


def number(value: int) -> bytes:
    """A varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def block(field: int, data: bytes) -> bytes:
    """A field of bytes."""
    return number(field << 3 | 2) + number(len(data)) + data


def flag(field: int, value: int) -> bytes:
    """A field with a number."""
    return number(field << 3) + number(value)


def piece(text: str | bytes, score: float = 0.0, kind: int = 1) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return block(1, block(1, data) + number(2 << 3 | 5) + struct.pack("<f", score) + flag(3, kind))


def model(
    pieces: Sequence[Piece],
    *,
    unigram: bool = False,
    prefix: bool = True,
    strips: bool = True,
    charsmap: bytes = b"",
) -> bytes:
    """A whole model file."""
    trainer = block(2, flag(3, 1 if unigram else 2))
    normalizer = block(
        3, (block(2, charsmap) if charsmap else b"") + flag(3, prefix) + flag(4, strips)
    )
    return b"".join(piece(*one) for one in pieces) + trainer + normalizer
