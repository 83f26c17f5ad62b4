"""A client of inference servers: many connections in one thread, each asking again once answered.

Not a program of its own. Like `load.py`, but the answers are streams, whose first piece is waited
for too, and servers may sit behind a Unix socket or end a connection after each answer.
"""

import select
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

_READ = 1 << 18
_END = b"\n0\r\n\r\n"  # of chunks; the head of an answer never ends so
_HEAD = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length: "


@dataclass(frozen=True, slots=True)
class Side:
    """Where requests go. `address` is a socket's path, or a port of the loopback address.

    One that does not keep connections is given a new one for each request.
    """

    address: str | int
    path: str
    keeps: bool = True
    api_key: str = ""

    def request(self, body: bytes) -> bytes:
        """The bytes of a request."""
        lines = [
            f"POST {self.path} HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        lines += [f"Authorization: Bearer {self.api_key}"] if self.api_key else []
        lines += [] if self.keeps else ["Connection: close"]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that has arrived: seconds from the request to its first piece, and to its end."""

    first: float
    whole: float
    body: bytes


class _Client:
    """One connection with at most one request under way."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self.socket = self._connected()

    def _connected(self) -> socket.socket:
        if isinstance(self._side.address, str):
            made = socket.socket(socket.AF_UNIX)
            made.connect(self._side.address)
            return made
        made = socket.create_connection(("127.0.0.1", self._side.address))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def ask(self, request: bytes) -> None:
        """Send a request."""
        self._began = time.perf_counter()
        if self.socket.fileno() < 0:
            self.socket = self._connected()
        self._first = 0.0
        self._head, self._parts, self._left = b"", list[bytes](), -1
        self.socket.sendall(request)

    def read(self) -> Answer | None:
        """Take what arrived; the answer if that was all."""
        data = self.socket.recv(_READ)
        if not data:
            raise SystemExit(f"{self._side.path}: the connection was closed in mid-answer")
        if not self._head:
            self._parts.append(data)
            head, end, data = b"".join(self._parts).partition(_HEAD)
            if not end:
                return None
            self._parts.clear()
            self._begin(head)
        if data:
            self._first = self._first or time.perf_counter()
            self._parts.append(data)
        return self._ended()

    def _begin(self, head: bytes) -> None:
        self._head = head
        if not head.startswith(b"HTTP/1.1 200"):
            rest = self.socket.recv(_READ) if self._side.keeps else b""
            raise SystemExit(f"{self._side.path}: {head!r} {rest!r}")
        _, told, length = head.lower().partition(_LENGTH)
        self._left = int(length.partition(b"\r")[0]) if told else -1

    def _ended(self) -> Answer | None:
        if self._left >= 0:
            is_over = sum(map(len, self._parts)) >= self._left
        else:
            is_over = b"".join(self._parts[-6:])[-len(_END) :] == _END
        if not is_over:
            return None
        now = time.perf_counter()
        if not self._side.keeps:
            self.socket.close()
        return Answer(self._first - self._began, now - self._began, b"".join(self._parts))


def once(side: Side, body: bytes) -> Answer:
    """Ask once."""
    client = _Client(side)
    client.ask(side.request(body))
    while (answer := client.read()) is None:
        pass
    client.socket.close()
    return answer


def many(side: Side, bodies: Iterator[bytes], clients: int, requests: int) -> Mapping[str, float]:
    """So many requests by so many clients at once: how many a second, and the median times."""
    left, answers = requests, list[Answer]()
    poll, busy = select.epoll(), dict[int, _Client]()
    began = time.perf_counter()

    def ask(client: _Client, *, is_new: bool) -> None:
        nonlocal left
        left -= 1
        client.ask(side.request(next(bodies)))
        busy[client.socket.fileno()] = client
        if is_new:
            poll.register(client.socket, select.EPOLLIN)

    for _ in range(min(clients, requests)):
        ask(_Client(side), is_new=True)
    while busy:
        for number, _ in poll.poll():
            client = busy[number]
            answer = client.read()
            if answer is None:
                continue
            answers.append(answer)
            del busy[number]
            if left:
                ask(client, is_new=not side.keeps)
            else:
                client.socket.close()
    poll.close()
    return {
        "requests/s": len(answers) / (time.perf_counter() - began),
        "first piece, ms": 1e3 * median(answer.first for answer in answers),
    }
