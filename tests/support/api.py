"""A small server of the model API: a test writes its answers down, and it notes what was asked."""

import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


@dataclass
class Answer:
    """What one path answers: an object, lines of a stream, or bytes as they are."""

    json: Any = None
    lines: Sequence[Mapping[str, Any] | bytes] | None = None
    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pause_s: float = 0.0  # before each line
    breaks_off: bool = False  # the connection, after the last line

    def chunks(self) -> Iterator[bytes]:
        for line in self.lines or ():
            time.sleep(self.pause_s)
            yield line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"

    def content(self) -> bytes:
        return self.body if self.json is None else json.dumps(self.json).encode()


@dataclass(frozen=True)
class Asked:
    """A request that came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class FakeApi:
    """Answers by `METHOD /path`, as set in `answers`; blobs are kept in `blobs`."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[Asked] = []
        self.blobs: dict[str, bytes] = {}
        self.url = ""

    def paths(self) -> list[str]:
        return [f"{asked.method} {asked.path}" for asked in self.asked]

    def last(self, path: str) -> Asked:
        return next(asked for asked in reversed(self.asked) if asked.path == path)

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        found = self.answers.get(f"{asked.method} {asked.path}")
        if found is not None:
            return found
        if asked.path.startswith("/api/blobs/"):
            return self._blob(asked, asked.path.removeprefix("/api/blobs/"))
        return Answer(body=b"404 page not found", status=404)

    def _blob(self, asked: Asked, digest: str) -> Answer:
        if asked.method == "HEAD":
            return Answer(status=200 if digest in self.blobs else 404)
        self.blobs[digest] = asked.body
        return Answer(status=201)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: ClassVar[FakeApi]

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # the client went away
            self.close_connection = True
            return
        answer = self.api.answer(Asked(self.command, self.path, dict(self.headers), body))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.lines is None:
            content = answer.content()
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else content)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in answer.chunks():
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if answer.breaks_off:
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_HEAD = do_DELETE = _handle  # noqa: N815 - the names http.server calls

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that goes away is no news."""


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[FakeApi]:
    """A started server of its own `FakeApi`, on a free port of loopback."""
    api = FakeApi()
    handler = type("Handler", (_Handler,), {"api": api})
    server = _Server(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    api.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
