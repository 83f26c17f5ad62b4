"""What our protocol adds besides its extensions: limits, and answers before the body was read."""

import asyncio
import time

import pytest

from tests.support.serving import Client, connected

pytestmark = pytest.mark.anyio

MIB = 1 << 20
GET = b"GET /size HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(params=["fast"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_head_of_16_kib_is_the_largest(client: Client) -> None:
    await client.send(b"GET /size HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 16_000 + b"\r\n\r\n")
    assert (await client.answer()).status == 200
    await client.send(b"GET /size HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 17_000 + b"\r\n\r\n")
    assert (await client.answer()).status == 431
    assert await client.is_closed()


async def test_a_head_without_end_is_refused(client: Client) -> None:
    await client.send(b"GET /size HTTP/1.1\r\n", *[b"X: y\r\n"] * 4000)
    assert (await client.answer()).status == 431
    assert await client.is_closed()


async def test_a_large_head_behind_a_body_is_refused(client: Client) -> None:
    large = b"GET /size HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 9000 + b"\r\n"
    await client.send(b"POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi" + large)
    assert await client.is_closed()


async def test_trailers_without_end_are_refused(client: Client) -> None:
    await client.send(
        b"POST /size HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        *[b"X: " + b"y" * 1000 + b"\r\n"] * 40,
    )
    assert (await client.answer()).status == 431
    assert await client.is_closed()


async def test_requests_in_one_packet_are_answered_in_order(client: Client) -> None:
    post = b"POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    await client.send(b"\r\n" + GET + post + GET + post)
    assert [(await client.answer()).body for _ in range(4)] == [b"0", b"3", b"0", b"3"]


@pytest.mark.parametrize("begun", [b"", b"GET / HT", GET[:-2]])
async def test_a_head_that_does_not_come_closes_the_connection(
    client: Client, begun: bytes
) -> None:
    started = time.monotonic()
    await client.send(begun)
    assert await client.is_closed()
    assert time.monotonic() - started < 3


async def test_a_head_that_comes_drop_by_drop_closes_the_connection(client: Client) -> None:
    await client.send(GET)
    await client.answer()
    dripping = asyncio.create_task(client.send(b"GET /", *[b"x"] * 100, pause_s=0.05))
    assert await client.is_closed()
    dripping.cancel()


async def test_an_idle_connection_is_kept(client: Client) -> None:
    await client.send(GET)
    await client.answer()
    await asyncio.sleep(0.9)
    await client.send(GET)
    assert (await client.answer()).status == 200


async def test_a_body_that_stops_closes_the_connection(client: Client) -> None:
    await client.send(b"POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    assert await client.is_closed()


async def test_a_slow_application_is_waited_for(client: Client) -> None:
    await client.send(b"GET /sleep?s=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await client.answer()).body == b"slept"


@pytest.mark.parametrize("size", [10, 300_000, 8 * MIB])
async def test_an_early_answer_lets_the_client_finish(client: Client, size: int) -> None:
    for _ in range(2):
        request = b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
        await client.send(request + bytes(size))
        assert (await client.answer()).status == 403
    await client.send(GET)
    assert (await client.answer()).status == 200


@pytest.mark.parametrize("size", [10, 300_000, 8 * MIB, 48 * MIB])
async def test_an_early_answer_to_chunks_is_read_before_the_connection_ends(
    client: Client, size: int
) -> None:
    request = b"POST /early HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    sending = asyncio.create_task(client.send(request, b"%x\r\n" % size, bytes(size)))
    await asyncio.sleep(0.05)  # Go's client takes so long to hand an early answer on
    assert (await client.answer()).status == 403
    sending.cancel()


async def test_an_early_answer_to_an_endless_body_ends_the_connection(client: Client) -> None:
    head = b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (1 << 40)
    sending = asyncio.create_task(client.send(head, *[bytes(MIB)] * 1000))
    assert (await client.answer()).status == 403
    assert await client.is_closed()
    sending.cancel()


async def test_an_early_answer_spares_a_client_that_waits_for_100(client: Client) -> None:
    await client.send(
        b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    answer = await client.answer()
    assert answer.status == 403
    assert answer.headers["connection"] == "close"
    assert await client.is_closed()


async def test_garbage_is_refused(client: Client) -> None:
    await client.send(b"\x16\x03\x01 hello\r\n\r\n")
    assert (await client.answer()).status == 400
    assert await client.is_closed()


async def test_a_large_body_read_in_the_ordinary_way(client: Client) -> None:
    for size in (3 * MIB, 5):
        head = b"POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
        await client.send(head + bytes(size))
        assert (await client.answer()).body == str(size).encode()


async def test_many_connections_at_once(port: int) -> None:
    async def one() -> int:
        async with connected(port) as client:
            await client.send(GET)
            return (await client.answer()).status

    assert await asyncio.gather(*(one() for _ in range(100))) == [200] * 100
