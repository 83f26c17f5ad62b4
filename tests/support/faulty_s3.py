"""A proxy before an S3 server that answers wrongly at every n-th call, as stores do."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fault = Literal["404", "500", "503", "lost", "cut", "200-error", "silent"]
_ERROR = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>no</Message></Error>'
)

_CODES = {"404": b"NoSuchKey", "500": b"InternalError", "503": b"SlowDown"}


@dataclass
class Front:
    """What it does: `fault` at every `every`-th call whose method is among `methods`.

    `404`, `500`, `503`: instead of asking the server. `lost`: the server did it, nobody is told.
    `cut`: an answer without its last half. `200-error`: done, but the body says that it was not.
    `silent`: nothing is asked, and no answer comes; connections end when that is over.
    """

    host: str
    fault: Fault = "503"
    every: int = 0
    methods: frozenset[str] = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})
    calls: int = 0
    faults: int = 0
    delay_s: float = 0.0  # before each body that is asked for
    asked: int = 0  # bodies, now
    most_asked: int = 0
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def is_due(self, method: str) -> bool:
        with self.lock:
            if not self.every or method not in self.methods:
                return False
            self.calls += 1
            due = self.calls % self.every == 0
            self.faults += due
            return due

    def dawdle(self) -> None:
        with self.lock:
            self.asked += 1
            self.most_asked = max(self.most_asked, self.asked)
        time.sleep(self.delay_s)
        with self.lock:
            self.asked -= 1

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    front: Front

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        due = self.front.is_due(self.command)
        fault = self.front.fault if due else ""
        if fault in _CODES:
            self._answer(int(fault), [], _ERROR % _CODES[fault])
            return
        if fault == "silent":
            while self.front.every and self.front.fault == "silent":
                time.sleep(0.1)
            self.close_connection = True
            return
        host, _, port = self.front.host.partition(":")
        upstream = HTTPConnection(host, int(port), timeout=30)
        headers = {name: value for name, value in self.headers.items() if name != "Expect"}
        upstream.request(self.command, self.path, body or None, headers)
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        if self.command == "GET":
            self.front.dawdle()
        self._pass_on(answer, data, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _do  # noqa: N815 - the library's own names

    def _pass_on(self, answer: HTTPResponse, data: bytes, fault: str) -> None:
        if fault == "lost":
            self.close_connection = True
            return
        if fault == "200-error":
            self._answer(200, [], _ERROR % b"InternalError")
            return
        skip = {"content-length", "connection", "transfer-encoding", "date", "server"}
        headers = [item for item in answer.getheaders() if item[0].lower() not in skip]
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        if fault == "cut" and len(data) > 1:
            data = data[: len(data) // 2]
            self.close_connection = True
        self._answer(answer.status, headers, data, length)

    def _answer(
        self, status: int, headers: list[tuple[str, str]], data: bytes, length: str | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@contextmanager
def front(endpoint: str) -> Iterator[Front]:
    """A started proxy that does no harm yet."""
    made = Front(endpoint.removeprefix("http://"))
    handler = type("Handler", (_Handler,), {"front": made})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
