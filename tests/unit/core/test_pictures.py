"""Pictures by their first bytes: what an engine decodes passes, the rest is told apart."""

import base64
import struct
import time

import pytest

from registry.core.errors import RequestInvalid
from registry.core.pictures import check_picture
from tests.support.seeing_model import JPEG, PICTURES, WEBP, bmp, gif, png

PROGRESSIVE = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAFA3PEY8MlBGQUZaVVBfeMiCeG5uePWvuZHI////////////////////"
    "////////////////////////////////wgALCAAUABQBAREA"
)
OLD_BMP = b"BM" + bytes(12) + struct.pack("<IHH", 12, 4, 4) + bytes(60)


@pytest.mark.parametrize(
    "data",
    [*(make(7) for make in PICTURES.values()), JPEG, PROGRESSIVE, OLD_BMP,
     png(1)[:20], gif(1)[:7], b"BM", JPEG[:60], JPEG[:2] + b"\xff\xff\xff" + JPEG[2:],
     bmp(1)[:22] + struct.pack("<i", -20) + bmp(1)[26:]],
)  # fmt: skip
def test_what_an_engine_decodes_passes_and_what_is_cut_off_is_for_it_to_tell(data: bytes) -> None:
    check_picture(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (WEBP, "WebP images are not supported by the engine: send PNG, JPEG, GIF or BMP"),
        (b"", "unsupported image format: send PNG, JPEG, GIF or BMP"),
        (b"<svg/>", "unsupported image format"),
        (b"\0\0\0\x18ftypmp42", "unsupported image format"),
        (JPEG[:20] + b"x" * 400, "invalid image: not a JPEG"),
        (png(1)[:16] + bytes(8) + png(1)[24:], "invalid image: it has no size"),
        (png(1)[:16] + struct.pack(">II", 8193, 8193), "more than 64 million pixels"),
        (gif(1)[:6] + b"\xff" * 10, "more than 64 million pixels"),
        (bmp(1)[:18] + b"\xff\xff\xff\x7f" * 2, "more than 64 million pixels"),
    ],
)
def test_the_rest_is_refused_with_the_reason(data: bytes, message: str) -> None:
    with pytest.raises(RequestInvalid, match=message):
        check_picture(data)


def test_a_jpeg_without_a_frame_costs_little() -> None:
    began = time.process_time()
    with pytest.raises(RequestInvalid, match="not a JPEG"):
        check_picture(b"\xff\xd8" + b"\xff\xe0\0\0" * 1_000_000)
    assert time.process_time() - began < 0.1
