"""Requests straight into an ASGI application: every byte of path, headers and body as written."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Scope


@dataclass
class Answer:
    """What came back. Header names are in lower case; `messages` are the ASGI ones."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    pairs: list[tuple[str, str]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)


@dataclass
class Caller:
    """Sends requests to an application. `headers` go with every request."""

    app: ASGIApp
    headers: dict[str, str] = field(default_factory=lambda: {"host": "models.example.com"})

    async def __call__(
        self,
        method: str,
        target: str,
        body: bytes | Sequence[bytes] = b"",
        *,
        leaves: bool = False,
        breaks_off: bool = False,
        **headers: str,
    ) -> Answer:
        """Ask, and return the whole answer.

        A body in pieces comes without Content-Length. Header names are written with underscores.
        With `leaves` the client goes away as soon as it has the headers, with `breaks_off` before
        its body is complete.
        """
        pieces = [body] if isinstance(body, bytes) else [*body]
        fields = self.headers | {name.replace("_", "-"): text for name, text in headers.items()}
        if isinstance(body, bytes) and body:
            fields.setdefault("content-length", str(len(body)))
        elif not isinstance(body, bytes):
            fields["transfer-encoding"] = "chunked"
        answer = Answer()
        started, over = asyncio.Event(), asyncio.Event()

        async def receive() -> Message:
            if pieces:
                part = pieces.pop(0)
                return {
                    "type": "http.request",
                    "body": part,
                    "more_body": bool(pieces) or breaks_off,
                }
            if not breaks_off:
                await (started if leaves else over).wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            answer.messages.append(message)
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.pairs = [(k.decode(), v.decode()) for k, v in message["headers"]]
                answer.headers = dict(answer.pairs)
                started.set()
            else:
                answer.body += message["body"]

        await self.app(_scope(method, target, fields), receive, send)
        over.set()
        return answer


def _scope(method: str, target: str, headers: dict[str, str]) -> Scope:
    path, _, query = target.partition("?")
    pairs: list[tuple[bytes, bytes]] = [(k.encode(), v.encode()) for k, v in headers.items()]
    state: dict[str, Any] = {}
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": pairs,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 11434),
        "state": state,
        "extensions": {},
    }
