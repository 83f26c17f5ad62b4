"""Uploads: the same requests by take-over, by plain messages of our server, and of another one."""

import asyncio
import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.core.digest import Digest
from registry.core.errors import DigestMismatch, SizeInvalid, TooLarge
from tests.support.serving import Client, Seen, connected

pytestmark = pytest.mark.anyio

MIB = 1 << 20
Raw = Callable[[bytes], bytes]
SIZES = [0, 1, MIB, MIB + 1, 3 * MIB + 17, 9 * MIB + 4095]


def some_bytes(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def head(data: bytes, *headers: str, path: str | None = None) -> bytes:
    path = path or f"/blobs/{Digest.of(data)}"
    lines = [f"POST {path} HTTP/1.1", "Host: x", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def with_length(data: bytes, *headers: str) -> bytes:
    return head(data, f"Content-Length: {len(data)}", *headers) + data


def chunks(data: bytes, *sizes: int, end: bytes = b"0\r\n\r\n") -> bytes:
    """`data` in chunks of these sizes, the last one again and again."""
    parts, at, number = [], 0, 0
    while at < len(data):
        size = sizes[min(number, len(sizes) - 1)]
        piece = data[at : at + size]
        parts.append(b"%x\r\n%s\r\n" % (len(piece), piece))
        at, number = at + size, number + 1
    return b"".join(parts) + end


def chunked(data: bytes, *sizes: int, end: bytes = b"0\r\n\r\n") -> bytes:
    return head(data, "Transfer-Encoding: chunked") + chunks(data, *(sizes or (32_768,)), end=end)


def kept(folder: Path) -> list[str]:
    assert os.listdir(folder / "incoming") == []
    return os.listdir(folder / "blobs")


@pytest.mark.parametrize("size", SIZES)
async def test_a_body_with_a_length_is_stored(client: Client, tmp_path: Path, size: int) -> None:
    data = some_bytes(size)
    await client.send(with_length(data))
    assert (await client.answer()).status == 201
    assert (tmp_path / "blobs" / Digest.of(data).file_name).read_bytes() == data
    assert len(kept(tmp_path)) == 1


@pytest.mark.parametrize("size", SIZES)
async def test_a_body_in_chunks_is_stored(client: Client, tmp_path: Path, size: int) -> None:
    data = some_bytes(size)
    await client.send(chunked(data))
    assert (await client.answer()).status == 201
    assert (tmp_path / "blobs" / Digest.of(data).file_name).read_bytes() == data


@pytest.mark.parametrize("seed", range(4))
async def test_frames_may_be_cut_anywhere(client: Client, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    data = some_bytes(200_000 + seed, seed)
    raw = chunked(data, *(dice.randrange(1, 3000) for _ in range(50)), 7_000)
    cuts = sorted(dice.randrange(len(raw)) for _ in range(60))
    await client.send(
        *(raw[a:b] for a, b in itertools.pairwise([0, *cuts, len(raw)])), pause_s=0.0005
    )
    assert (await client.answer()).status == 201
    assert (tmp_path / "blobs" / Digest.of(data).file_name).read_bytes() == data


async def test_a_body_that_comes_byte_by_byte_at_first(client: Client) -> None:
    data = some_bytes(2 * MIB)
    raw = chunked(data)
    await client.send(*(raw[at : at + 1] for at in range(160)), raw[160:], pause_s=0.0002)
    assert (await client.answer()).status == 201


async def test_the_connection_serves_many_requests(client: Client, seen: Seen) -> None:
    ways: list[Raw] = [with_length, chunked, with_length, chunked]
    for number, raw in enumerate(ways):
        await client.send(raw(some_bytes(2 * MIB + number, number)))
        assert (await client.answer()).status == 201
        await client.send(b"GET /size HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.answer()).body == b"0"
    assert seen.errors == []


@pytest.mark.parametrize("raw", [with_length, chunked])
async def test_requests_sent_ahead_are_answered_in_order(client: Client, raw: Raw) -> None:
    data = [some_bytes(2 * MIB + number, number) for number in range(3)]
    follow = b"POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    everything = b"".join(raw(body) + follow for body in data)
    sending = asyncio.create_task(client.send(everything))
    for _ in data:
        assert (await client.answer()).status == 201
        assert (await client.answer()).body == b"5"
    await sending


@pytest.mark.parametrize("raw", [with_length, chunked])
@pytest.mark.parametrize("size", [10, 3 * MIB])
async def test_a_wrong_digest_keeps_nothing(
    client: Client, seen: Seen, tmp_path: Path, raw: Raw, size: int
) -> None:
    data = some_bytes(size)
    wrong = raw(data).replace(str(Digest.of(data)).encode(), str(Digest.of(b"")).encode(), 1)
    await client.send(wrong)
    assert (await client.answer()).status == 400
    assert isinstance(seen.errors[0], DigestMismatch)
    assert kept(tmp_path) == []
    await client.send(raw(data))
    assert (await client.answer()).status == 201


@pytest.mark.parametrize("raw", [with_length, chunked])
@pytest.mark.parametrize("sent", [0, 1000, MIB, 5 * MIB])
async def test_a_sender_that_goes_away_leaves_nothing(
    port: int, seen: Seen, tmp_path: Path, raw: Raw, sent: int
) -> None:
    async with connected(port) as client:
        await client.send(raw(some_bytes(6 * MIB))[: 200 + sent])
        await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        while not seen.errors:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert isinstance(seen.errors[0], SizeInvalid)
    assert kept(tmp_path) == []


@pytest.mark.parametrize("raw", [with_length, chunked])
async def test_a_silent_sender_is_cut_off(
    client: Client, seen: Seen, tmp_path: Path, raw: Raw
) -> None:
    await client.send(raw(some_bytes(6 * MIB))[: 2 * MIB])
    answer = await client.answer()
    assert answer.status == 400
    assert b"silent" in answer.body
    assert isinstance(seen.errors[0], SizeInvalid)
    assert kept(tmp_path) == []


@pytest.mark.parametrize("raw", [with_length, chunked])
async def test_a_slow_sender_is_not(client: Client, raw: Raw) -> None:
    data = raw(some_bytes(2 * MIB))
    step = len(data) // 8 + 1
    await client.send(*(data[at : at + step] for at in range(0, len(data), step)), pause_s=0.2)
    assert (await client.answer()).status == 201


@pytest.mark.parametrize("raw", [with_length, chunked])
async def test_a_body_over_the_limit_is_refused(
    client: Client, seen: Seen, tmp_path: Path, raw: Raw
) -> None:
    sending = asyncio.create_task(client.send(raw(bytes(70 * MIB))))
    assert (await client.answer()).status == 413
    assert isinstance(seen.errors[0], TooLarge)
    assert kept(tmp_path) == []
    sending.cancel()


@pytest.mark.parametrize("raw", [with_length, chunked])
async def test_expect_100_continue_is_answered(client: Client, raw: Raw) -> None:
    data = some_bytes(2 * MIB)
    before, body = raw(data).split(b"\r\n\r\n", 1)
    await client.send(before + b"\r\nExpect: 100-continue\r\n\r\n")
    async with asyncio.timeout(5):
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(body)
    assert (await client.answer()).status == 201
    await client.send(raw(data))
    assert (await client.answer()).status == 201


@pytest.mark.parametrize(
    "end", [b"0\r\nA: b\r\nC: d\r\n\r\n", b"000;x=y\r\n\r\n", b"0\r\nX:\r\n\r\n"]
)
async def test_trailers_and_extensions_are_read_over(client: Client, end: bytes) -> None:
    data = some_bytes(MIB + 5)
    for _ in range(2):
        await client.send(chunked(data, 10_000, end=end))
        assert (await client.answer()).status == 201


@pytest.mark.parametrize(
    "frames",
    [
        b"g\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"ffffffffffffffffffff\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"\r\n5\r\nhello\r\n0\r\n\r\n",
        b"1_0\r\n" + bytes(16) + b"\r\n0\r\n\r\n",
        b"5\r\nhello\r\n" + b"1" * 5000,
        b"5;" + b"x" * 100_000,
        b"0\r\n" + b"X: " + b"y" * 100_000,
    ],
)
async def test_broken_framing_is_refused(
    client: Client, seen: Seen, tmp_path: Path, frames: bytes, way: str
) -> None:
    if way == "h11":
        pytest.skip("how strict another server is, is its own business")
    await client.send(head(b"hello", "Transfer-Encoding: chunked") + frames)
    try:
        assert (await client.answer()).status in {400, 431}
    except asyncio.IncompleteReadError:
        assert way != "fast"  # the parser was in the middle of an exchange: it just closes
    assert await client.is_closed()
    async with asyncio.timeout(5):
        while not seen.errors:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.02)
    assert kept(tmp_path) == []


async def test_a_full_store_is_answered_with_507(client: Client, tmp_path: Path) -> None:
    await client.send(head(b"", f"Content-Length: {1 << 60}"))
    assert (await client.answer()).status == 507
    assert kept(tmp_path) == []


async def test_two_uploads_of_one_blob_at_once_both_succeed(port: int, tmp_path: Path) -> None:
    data = some_bytes(5 * MIB)

    async def upload(raw: bytes) -> int:
        async with connected(port) as client:
            await client.send(raw)
            return (await client.answer()).status

    statuses = await asyncio.gather(upload(with_length(data)), upload(chunked(data)))
    assert list(statuses) == [201, 201]
    assert kept(tmp_path) == [Digest.of(data).file_name]


async def test_the_take_over_is_offered_for_large_and_unknown_lengths_only(
    client: Client, seen: Seen, way: str
) -> None:
    requests = [with_length(some_bytes(MIB)), with_length(some_bytes(MIB + 1)), chunked(b"x")]
    for request in requests:
        await client.send(request)
        assert (await client.answer()).status == 201
    await client.send(chunked(b"x").replace(b"HTTP/1.1", b"HTTP/1.0"))
    await client.is_closed()
    offered = way == "fast"
    assert list(seen.offers[:3]) == [False, offered, offered]
    assert not any(seen.offers[3:])  # HTTP/1.0
