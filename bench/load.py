"""A load generator: keep-alive connections in one thread, each asking again once it is answered.

Not a program of its own. It costs about 10 µs of CPU per request, half of what a request costs the
fastest of the measured servers; they are told apart by the CPU that they themselves used, too.
"""

import re
import select
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_READ = 1 << 18


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that is sent over and over."""

    method: str
    path: str
    body: bytes = b""
    headers: str = ""
    status: int = 200

    def to_bytes(self) -> bytes:
        length = f"Content-Length: {len(self.body)}\r\n" if self.body else ""
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: localhost\r\n{self.headers}{length}"
        return head.encode() + b"\r\n" + self.body


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one run; times in seconds."""

    rate: float
    p50: float
    p99: float
    answer_bytes: float


class _Connection:
    """One connection with at most one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began = 0.0
        self._parts: list[bytes] = []
        self._left = -1  # bytes of the body to come; -1: the head is not complete
        self._chunked = False

    def ask(self, request: bytes) -> None:
        self.began = time.perf_counter()
        self.socket.sendall(request)

    def read(self, ask: Ask) -> int:
        """Take what arrived; the size of the answer's body once it is complete, else -1."""
        data = self.socket.recv(_READ)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._parts.append(data)
        if self._left < 0:
            data = b"".join(self._parts)
            head = data.find(b"\r\n\r\n")
            if head < 0:
                return -1
            self._begin(ask, data[: head + 2])
            data = data[head + 4 :]
            self._parts = [data]
        if self._chunked:
            tail = b"".join(part[-5:] for part in self._parts[-5:])
            is_over = tail.endswith(b"0\r\n\r\n")
        else:
            self._left -= len(data)
            is_over = self._left <= 0
        if not is_over:
            return -1
        size = sum(map(len, self._parts))
        self._parts, self._left, self._chunked = [], -1, False
        return size

    def _begin(self, ask: Ask, head: bytes) -> None:
        status = int(head[9:12])
        if status != ask.status:
            raise ValueError(f"{ask.method} {ask.path}: status {status}")
        length = _LENGTH.search(head)
        has_body = ask.method != "HEAD" and status != 304
        self._chunked = has_body and length is None
        self._left = int(length[1]) if has_body and length else 0


def run(port: int, asks: Sequence[Ask], *, connections: int = 16, seconds: float = 3.0) -> Result:
    """Ask the server on `port` for `asks` in turn, on all connections at once."""
    requests = [ask.to_bytes() for ask in asks]
    poll = select.epoll()
    by_number = {}
    turns = {}
    for index in range(connections):
        connection = _Connection(port)
        number = connection.socket.fileno()
        by_number[number] = connection
        turns[number] = index * len(asks) // connections % len(asks)
        poll.register(number, select.EPOLLIN)
    waits: list[float] = []
    sizes = 0
    began = time.perf_counter()
    end = began + seconds
    try:
        for number, connection in by_number.items():
            connection.ask(requests[turns[number]])
        while (now := time.perf_counter()) < end:
            for number, _ in poll.poll(1.0):
                connection = by_number[number]
                size = connection.read(asks[turns[number]])
                if size < 0:
                    continue
                waits.append(time.perf_counter() - connection.began)
                sizes += size
                turns[number] = (turns[number] + 1) % len(asks)
                connection.ask(requests[turns[number]])
    finally:
        poll.close()
        for connection in by_number.values():
            connection.socket.close()
    if len(waits) < 2:
        waits *= 2
    cuts = statistics.quantiles(waits, n=100)
    return Result(len(waits) / (now - began), cuts[49], cuts[98], sizes / len(waits))


def once(port: int, ask: Ask) -> float:
    """Ask once on a new connection; seconds from sending to the last byte of the answer."""
    connection = _Connection(port)
    try:
        connection.ask(ask.to_bytes())
        while connection.read(ask) < 0:
            pass
        return time.perf_counter() - connection.began
    finally:
        connection.socket.close()
