"""Header lines of an answer."""

from collections.abc import Iterable

_CONTROLS = bytes([*range(9), *range(10, 32), 127])  # all but the tab
_FRAMING = frozenset({b"connection", b"transfer-encoding"})


def header_lines(headers: Iterable[tuple[bytes, bytes]], length: int | None) -> bytes | None:
    """The lines for an answer with a body of `length` bytes, None for HEAD.

    None if it needs a closer look: framed otherwise than by its length, or with control characters
    in a name or value.
    """
    parts: list[bytes] = []
    told = None
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"content-length":
            told = value
        elif lowered in _FRAMING:
            return None
        parts += (lowered, b": ", value, b"\r\n")
    lines = b"".join(parts)
    controls = len(lines) - len(lines.translate(None, _CONTROLS))
    if controls != len(parts) // 2 or (length is not None and told != b"%d" % length):
        return None
    return lines
