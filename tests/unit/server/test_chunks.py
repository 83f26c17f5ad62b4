import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.core.errors import RequestInvalid
from registry.server.chunks import ChunkDecoder


def decode(raw: bytes, cuts: list[int]) -> tuple[bytes, ChunkDecoder]:
    """Decode `raw` cut at these places."""
    decoder, payload = ChunkDecoder(), b""
    bounds = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    for start, stop in itertools.pairwise(bounds):
        if decoder.done:
            decoder.leftover += raw[start:stop]
            continue
        view = memoryview(bytearray(raw[start:stop]))
        payload += bytes(view[: decoder.decode(view, len(view))])
    return payload, decoder


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    st.sampled_from([b"", b";a=b", b' ; q="x"', b"\t"]),
    st.sampled_from([b"", b"A: b\r\n", b"A: b\r\nC: d\r\n"]),
    st.binary(max_size=40),
    st.lists(st.integers(0, 3000), max_size=30),
)
def test_what_was_put_into_chunks_comes_out(
    parts: list[bytes], extension: bytes, trailer: bytes, behind: bytes, cuts: list[int]
) -> None:
    raw = b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts)
    raw += b"0\r\n" + trailer + b"\r\n" + behind
    payload, decoder = decode(raw, cuts)
    assert payload == b"".join(parts)
    assert decoder.done
    assert decoder.leftover == behind


@pytest.mark.parametrize("step", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize(
    "raw",
    [
        b"g\r\n",
        b"\r\n",
        b"5\nhello\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhelloo\r\n",
        b"5\r\nhello\r\n\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n",
        b"0x5\r\n",
        b"5_0\r\n",
        b"-5\r\n",
        b"1234567890abcdef\r\n",
        b"5 x\r\n",
        b"5;\0\r\n",
        b"5;a\rb\r\n",
        b"5;" + b"x" * 2000,
        b"0\r\nA: b\n\r\n",
        b"0\r\n" + b"A: b\r\n" * 4000,
        b"0\r\nA: " + b"b" * 40_000,
        (b"1;" + b"x" * 900 + b"\r\na\r\n") * 40,
    ],
)
def test_anything_else_is_refused(raw: bytes, step: int) -> None:
    with pytest.raises(RequestInvalid):
        decode(raw, list(range(0, len(raw), step)))


def test_a_body_that_ends_early_is_not_done() -> None:
    for raw in (b"", b"5", b"5\r\nhel", b"5\r\nhello", b"0\r\n", b"0\r\nA: b\r\n"):
        assert not decode(raw, [])[1].done


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=10))
def test_noise_is_refused_or_waited_for(noise: bytes, cuts: list[int]) -> None:
    try:
        payload, decoder = decode(noise, cuts)
    except RequestInvalid:
        return
    assert len(payload) + len(decoder.leftover) <= len(noise)


def test_how_it_is_cut_does_not_matter() -> None:
    dice = random.Random(1)
    raw = b"".join(b"%X\r\n%s\r\n" % (n, bytes(n)) for n in (1, 300, 70_000, 15)) + b"0\r\n\r\n"
    whole = decode(raw, [])[0]
    for _ in range(50):
        assert decode(raw, [dice.randrange(len(raw)) for _ in range(20)])[0] == whole
