"""Bytes are hashed without being kept, from the start or from where another hash stands."""

import hashlib

import pytest

from registry.adapters.hashing_sink import HashingSink

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("before", [None, b"before"])
async def test_bytes_for_comparison_are_hashed_in_place_or_given(before: bytes | None) -> None:
    sink = HashingSink(None if before is None else hashlib.sha256(before))
    await sink.write(b"ab")
    (await sink.borrow())[:2] = b"cd"
    await sink.fill(2)
    assert sink.hexdigest() == hashlib.sha256((before or b"") + b"abcd").hexdigest()
