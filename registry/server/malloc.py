"""Thresholds of glibc's allocator, raised once at start.

uvloop and uvicorn hand out request bodies as `bytes` of up to 256 KiB. Above 128 KiB glibc maps
each of them afresh, and the kernel clears the pages: half of the time of a plain upload (measured:
942 against 2,141 MB/s received). Kept in the heap, they are reused. Elsewhere than on glibc
nothing is done.
"""

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_MAPPED_FROM = 4 << 20
_TRIMMED_FROM = 16 << 20
_ARENAS = 2  # threads here hash and write; arenas of their own would only keep memory


def raise_thresholds() -> bool:
    """Set them for this process; False where the allocator has no such knobs."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        return False
    return all(
        mallopt(knob, value) == 1
        for knob, value in (
            (_M_MMAP_THRESHOLD, _MAPPED_FROM),
            (_M_TRIM_THRESHOLD, _TRIMMED_FROM),
            (_M_ARENA_MAX, _ARENAS),
        )
    )
