"""Downloads: the same requests by zero copy, by messages of our server, and of another one."""

import asyncio
import os
import random
import socket
import time

import pytest

from registry.adapters.blobs_fs import FileBlobStore
from registry.core.digest import Digest
from registry.web.files import PROBE_S
from tests.contract.blobs import keep
from tests.support.serving import Answer, Client, connected

pytestmark = pytest.mark.anyio

MIB = 1 << 20


@pytest.fixture
def data() -> bytes:
    return random.Random(7).randbytes(5 * MIB + 123)


@pytest.fixture
async def digest(store: FileBlobStore, data: bytes) -> Digest:
    await keep(store, data)
    return Digest.of(data)


async def get(client: Client, digest: Digest, *headers: str, method: str = "GET") -> Answer:
    lines = [f"{method} /blobs/{digest} HTTP/1.1", "Host: x", *headers]
    await client.send(("\r\n".join(lines) + "\r\n\r\n").encode())
    return await client.answer(head=method == "HEAD")


async def test_a_whole_blob(client: Client, digest: Digest, data: bytes) -> None:
    for _ in range(3):
        answer = await get(client, digest)
        assert answer.status == 200
        assert answer.body == data
        assert answer.headers["etag"] == f'"{digest}"'
        assert answer.headers["accept-ranges"] == "bytes"
        assert "immutable" in answer.headers["cache-control"]


async def test_an_empty_blob(client: Client, store: FileBlobStore) -> None:
    await keep(store, b"")
    for _ in range(2):
        answer = await get(client, Digest.of(b""))
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-1100000", 100, 1_100_001),
        ("bytes=5242880-", 5_242_880, 5_243_003),
        ("bytes=-5", 5_242_998, 5_243_003),
        ("bytes=1-99999999999", 1, 5_243_003),
    ],
)
async def test_a_range(
    client: Client, digest: Digest, data: bytes, header: str, start: int, stop: int
) -> None:
    for _ in range(2):
        answer = await get(client, digest, f"Range: {header}")
        assert answer.status == 206
        assert answer.body == data[start:stop]
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(data)}"


@pytest.mark.parametrize("header", ["bytes=500-0", "bytes=9999999-", "bytes=-0"])
async def test_a_range_that_is_not_there(client: Client, digest: Digest, header: str) -> None:
    answer = await get(client, digest, f"Range: {header}")
    assert (answer.status, answer.body) == (416, b"")
    assert answer.headers["content-range"] == "bytes */5243003"


@pytest.mark.parametrize("header", ["bytes=0-1,5-6", "items=0-1", "bytes=x"])
async def test_a_range_not_understood_gives_everything(
    client: Client, digest: Digest, data: bytes, header: str
) -> None:
    answer = await get(client, digest, f"Range: {header}")
    assert (answer.status, answer.body) == (200, data)


async def test_what_the_client_has_is_not_sent_again(client: Client, digest: Digest) -> None:
    for tag in (f'"{digest}"', f'"x", W/"{digest}"', "*"):
        answer = await get(client, digest, f"If-None-Match: {tag}")
        assert (answer.status, answer.body) == (304, b"")
    assert (await get(client, digest, 'If-None-Match: "x"')).status == 200


async def test_a_range_of_another_version_gives_everything(
    client: Client, digest: Digest, data: bytes
) -> None:
    answer = await get(client, digest, "Range: bytes=0-1", 'If-Range: "other"')
    assert (answer.status, answer.body) == (200, data)
    answer = await get(client, digest, "Range: bytes=0-1", f'If-Range: "{digest}"')
    assert (answer.status, answer.body) == (206, data[:2])


async def test_head_has_the_length_and_no_body(client: Client, digest: Digest) -> None:
    answer = await get(client, digest, method="HEAD")
    assert answer.headers["content-length"] == "5243003"
    assert (await get(client, digest, "Range: bytes=0-0")).status == 206


async def test_a_probe_has_the_headers_before_the_bytes_are_due(
    client: Client, digest: Digest
) -> None:
    began = time.monotonic()
    await client.send(f"GET /blobs/{digest}?probe HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await client.reader.readuntil(b"\r\n\r\n")
    assert time.monotonic() - began < PROBE_S
    assert (await client.reader.read(1)) != b""
    assert time.monotonic() - began >= PROBE_S


async def test_a_probe_that_stays_gets_the_bytes(
    client: Client, digest: Digest, data: bytes
) -> None:
    await client.send(f"GET /blobs/{digest}?probe HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (await client.answer()).body == data


async def test_clients_that_hang_up_leave_no_descriptor(
    port: int, digest: Digest, client: Client
) -> None:
    await get(client, digest, "Range: bytes=0-0")
    before = len(os.listdir("/proc/self/fd"))
    for path in (f"/blobs/{digest}?probe", f"/blobs/{digest}"):
        for _ in range(3):
            async with connected(port) as other:
                await other.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                await other.reader.readuntil(b"\r\n\r\n")
    async with asyncio.timeout(5):
        while len(os.listdir("/proc/self/fd")) > before:
            await asyncio.sleep(0.02)


async def test_many_readers_at_their_own_pace(port: int, digest: Digest, data: bytes) -> None:
    async def read(pause_s: float) -> bytes:
        async with connected(port) as client:
            await client.send(f"GET /blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await asyncio.sleep(pause_s)
            return (await client.answer()).body

    bodies = await asyncio.gather(*(read(number * 0.01) for number in range(20)))
    assert all(body == data for body in bodies)


async def test_a_file_out_of_the_page_cache(
    client: Client, store: FileBlobStore, digest: Digest, data: bytes
) -> None:
    path = store.path(digest.file_name)
    assert path is not None
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    assert (await get(client, digest)).body == data


async def test_a_client_that_takes_nothing_is_cut_off(
    port: int, store: FileBlobStore, way: str
) -> None:
    if way != "fast":
        pytest.skip("only zero copy watches the reader")
    large = bytes(30 * MIB)
    await keep(store, large)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", port))
        request = f"GET /blobs/{Digest.of(large)} HTTP/1.1\r\nHost: x\r\n\r\n"
        await loop.sock_sendall(sock, request.encode())
        await asyncio.sleep(2)
        received = 0
        try:
            while part := await loop.sock_recv(sock, MIB):
                received += len(part)
        except ConnectionError:
            pass
        assert received < len(large)


async def test_a_file_that_is_too_short_cuts_the_connection(
    client: Client, store: FileBlobStore, way: str
) -> None:
    if way != "fast":
        pytest.skip("what other ways do is theirs")
    key = await keep(store, bytes(3 * MIB))
    path = store.path(key)
    assert path is not None
    await client.send(
        f"GET /blobs/{Digest.of(bytes(3 * MIB))}?probe HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    )
    await client.reader.readuntil(b"\r\n\r\n")
    os.truncate(path, MIB)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.reader.readexactly(3 * MIB)
