"""Pictures by their first bytes: which kind an engine decodes, and how large they come out.

Nothing is decoded here. An engine's decoder takes PNG, JPEG, GIF and BMP; what else it might hand
to other programs does not reach it.

Source: PNG 5.2, 11.2; JPEG (T.81) B.1, B.2; GIF89a 17, 18; stb_image.h.
"""

import struct

from registry.core.errors import RequestInvalid

MOST_PIXELS = 1 << 26
"""A small file can come out as gigabytes; no camera makes more."""
_KINDS = "PNG, JPEG, GIF or BMP"
_SEGMENTS = 1_000
_NO_FRAME = frozenset({0xC4, 0xC8, 0xCC})


def check_picture(data: bytes) -> None:
    """Let a picture pass that an engine can decode in bounded memory.

    Raises:
        RequestInvalid: it is of another kind, or too large.
    """
    if data[8:12] == b"WEBP":
        raise RequestInvalid(f"WebP images are not supported by the engine: send {_KINDS}")
    try:
        width, height = _size(data)
    except struct.error:
        return  # cut off before that: the engine says so, and decodes nothing
    if width < 1 or height < 1:
        raise RequestInvalid("invalid image: it has no size")
    if width * height > MOST_PIXELS:
        raise RequestInvalid(f"invalid image: more than {MOST_PIXELS >> 20} million pixels")


def _size(data: bytes) -> tuple[int, int]:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _pair(">II", data, 16)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _pair("<HH", data, 6)
    if data.startswith(b"BM"):
        (head,) = struct.unpack_from("<I", data, 14)
        width, height = _pair("<HH" if head == 12 else "<ii", data, 18)
        return abs(width), abs(height)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_size(data)
    raise RequestInvalid(f"unsupported image format: send {_KINDS}")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """That of the first frame."""
    at = 2
    for _ in range(_SEGMENTS):
        mark, kind, length = struct.unpack_from(">BBH", data, at)
        if mark != 0xFF:
            raise RequestInvalid("invalid image: not a JPEG")
        if kind == 0xFF:  # filling
            at += 1
        elif 0xC0 <= kind <= 0xCF and kind not in _NO_FRAME:
            height, width = _pair(">HH", data, at + 5)
            return width, height
        else:
            at += 2 + max(length, 2)
    raise RequestInvalid("invalid image: not a JPEG")


def _pair(form: str, data: bytes, at: int) -> tuple[int, int]:
    one, two = struct.unpack_from(form, data, at)
    return int(one), int(two)
