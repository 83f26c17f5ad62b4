"""Compressed bodies: read whole, or refused before they take memory."""

import sys
import time
import tracemalloc

import pytest

from registry.core.errors import RequestInvalid, TooLarge
from registry.web.zstd_bodies import decompressed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b'{"model": "tiny", "input": "hi"}' * 100
PACKED = zstd.compress(TEXT)
WIDE = zstd.compress(
    b"x" * (64 << 20), options={zstd.CompressionParameter.window_log: 26}
)  # wants a window of 64 MiB


def test_what_was_compressed_comes_out() -> None:
    assert decompressed(PACKED, len(TEXT)) == TEXT
    assert decompressed(PACKED[:0] + zstd.compress(b""), 5) == b""
    assert decompressed(zstd.compress(b"one ") + zstd.compress(b"two"), 7) == b"one two"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", PACKED[:-1], PACKED[:10], PACKED + b"{}", PACKED + PACKED[:-1],
        zstd.compress(b"") * 65, WIDE, b"\x28\xb5\x2f\xfd" + b"\xff" * 20,
    ],
)  # fmt: skip
def test_what_is_broken_or_out_of_bounds_is_refused(body: bytes) -> None:
    with pytest.raises(RequestInvalid, match=r"^failed to decompress zstd body$"):
        decompressed(body, 1 << 30)


def test_a_bomb_is_not_unpacked() -> None:
    bomb = zstd.compress(bytes(1 << 30), level=1)
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(TooLarge, match="request body larger than 1000000 bytes"):
        decompressed(bomb, 1_000_000)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert time.process_time() - began < 1
