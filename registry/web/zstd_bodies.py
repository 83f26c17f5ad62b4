"""Bodies that clients compress with Zstandard, as OpenAI's command line does.

Source: RFC 8878; spec ollama-api 19, "/v1/responses".
"""

import sys

from registry.core.errors import RequestInvalid, TooLarge

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_WINDOW_LOG = 23
"""8 MiB, which every decoder should take; a frame may ask for gigabytes."""
_FRAMES = 64


def decompressed(body: bytes, limit: int) -> bytes:
    """What was compressed: at most `limit` bytes.

    Raises:
        RequestInvalid: it is broken, cut off, or wants more memory than it is worth.
        TooLarge: it is longer; no more than that is ever held.
    """
    found = b""
    try:
        for _ in range(_FRAMES):
            frame = zstd.ZstdDecompressor(
                options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
            )
            found += frame.decompress(body, max_length=limit + 1 - len(found))
            if len(found) > limit:
                raise TooLarge(f"request body larger than {limit} bytes")
            if not frame.eof:
                break
            body = frame.unused_data
            if not body:
                return found
    except zstd.ZstdError as error:
        raise RequestInvalid("failed to decompress zstd body") from error
    raise RequestInvalid("failed to decompress zstd body")
