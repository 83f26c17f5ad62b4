"""Servers of others, played on a socket of the loopback address: Ollama, llama-server, OpenAI.

One connection a request. `kill` cuts every connection and refuses new ones, `revive` listens again
on the same port.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Self

from registry.core.digest import Digest

Chunks = AsyncIterator[bytes]


@dataclass
class Asked:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    """What is sent: a status and a body, at once or in pieces with pauses before each."""

    body: bytes = b"{}"
    status: int = 200
    pieces: list[bytes] = field(default_factory=list)
    pause_s: float = 0.0
    cut: bool = False  # hang up in place of a proper end
    headers: str = ""


class Foreign:
    """A server whose answers a subclass makes."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.port = 0
        self.answers: dict[str, Answer | Callable[[Asked], Answer]] = {}
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.revive()
        return self

    async def __aexit__(self, *unused: object) -> None:
        await self.kill()

    async def revive(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        if self._server is not None:
            await self._server.wait_closed()
        self._server = None

    def calls(self, path: str) -> list[Asked]:
        return [item for item in self.asked if item.path == path]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._answer(await _read(reader), writer)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        self.asked.append(asked)
        found = self.answers.get(asked.path, Answer(b'{"error":"not found"}', 404))
        answer = found(asked) if callable(found) else found
        head = f"HTTP/1.1 {answer.status} OK\r\nConnection: close\r\n{answer.headers}"
        if not answer.pieces and not answer.cut:
            head += f"Content-Length: {len(answer.body)}\r\n\r\n"
            writer.write(head.encode() + answer.body)
            await writer.drain()
            return
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for piece in answer.pieces:
            await asyncio.sleep(answer.pause_s)
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        if answer.cut:
            writer.transport.abort()
        else:
            writer.write(b"0\r\n\r\n")
            await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    pairs = (line.split(": ", 1) for line in head[1:] if line)
    headers = {name.lower(): value for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, path, headers, json.loads(body) if body else None)


def sse(*events: Any) -> list[bytes]:
    """Server-sent events, `[DONE]` at the end."""
    return [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events] + [
        b"data: [DONE]\n\n"
    ]


def lines(*frames: Any) -> list[bytes]:
    """NDJSON."""
    return [json.dumps(frame).encode() + b"\n" for frame in frames]


def whole(value: Any) -> Answer:
    """One JSON value."""
    return Answer(json.dumps(value).encode())


def chat_events(*words: str) -> list[dict[str, Any]]:
    """What an OpenAI server streams: words, a reason, then the usage."""
    return [
        *({"choices": [{"index": 0, "delta": {"content": word}}]} for word in words),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(words)}},
    ]


class ForeignOpenAI(Foreign):
    """vLLM and the like: a list of models, chats, embeddings."""

    def __init__(self, *models: str) -> None:
        super().__init__()
        self.answers["/v1/models"] = whole({"data": [{"id": name} for name in models]})
        self.answers["/v1/chat/completions"] = Answer(pieces=sse(*chat_events("Hel", "lo")))
        self.answers["/v1/embeddings"] = lambda asked: whole(
            {
                "data": [
                    {"index": position, "embedding": [0.6, 0.8]}
                    for position, _ in reversed(list(enumerate(asked.body["input"])))
                ],
                "usage": {"prompt_tokens": 3},
            }
        )


class ForeignLlama(ForeignOpenAI):
    """llama-server: also `/props` and `/completion`."""

    def __init__(self, *models: str, slots: int = 2) -> None:
        super().__init__(*models)
        settings = {"n_ctx": 4096}
        self.answers["/props"] = whole(
            {"default_generation_settings": settings, "total_slots": slots, "build_info": "b1"}
        )
        timings = {"cache_n": 1, "prompt_n": 4, "predicted_n": 2}
        ending = {"content": "", "stop": True, "stop_type": "eos", "timings": timings}
        self.answers["/completion"] = Answer(
            pieces=sse({"content": "Hel", "stop": False}, {"content": "lo"}, ending)[:-1]
        )
        self.answers["/tokenize"] = whole({"tokens": [1, 2, 3]})
        self.answers["/detokenize"] = whole({"content": "abc"})
        self.answers["/apply-template"] = whole({"prompt": "abc"})


class ForeignOllama(Foreign):
    """An Ollama server. `has` are its models: name → manifest; `offers` what a pull would get."""

    def __init__(self, has: dict[str, Digest] | None = None) -> None:
        super().__init__()
        self.has = dict(has or {})
        self.offers: dict[str, Digest] = {}
        self.running: dict[str, Digest] = {}
        self.answers = {
            "/api/version": whole({"version": "0.32.1"}),
            "/api/tags": lambda asked: whole({"models": self._rows(self.has)}),
            "/api/ps": lambda asked: whole({"models": self._rows(self.running)}),
            "/api/pull": self._pull,
            "/api/generate": self._generate,
            "/api/chat": self._generate,
            "/api/embed": lambda asked: whole(
                {"model": asked.body["model"], "embeddings": [[0.6, 0.8]], "prompt_eval_count": 2}
            ),
            "/api/embeddings": whole({"embedding": [3.0, 4.0]}),
        }
        self.frames = [
            {"response": "Hel", "done": False},
            {"response": "lo", "done": False},
            {"response": "", "done": True, "prompt_eval_count": 5, "eval_count": 2},
        ]
        self.pause_s = 0.0

    def _rows(self, models: dict[str, Digest]) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "digest": digest.hex,
                "size": 1000,
                "size_vram": 400,
                "context_length": 4096,
                "expires_at": "2026-11-21T10:00:00.5Z",
            }
            for name, digest in models.items()
        ]

    def _pull(self, asked: Asked) -> Answer:
        name = asked.body["model"]
        if name not in self.offers:
            return Answer(
                pieces=lines(
                    {"status": "pulling manifest"},
                    {"error": "pull model manifest: file does not exist"},
                )
            )
        self.has[name] = self.offers[name]
        return Answer(pieces=lines({"status": "pulling manifest"}, {"status": "success"}))

    def _generate(self, asked: Asked) -> Answer:
        name = asked.body["model"]
        if name not in self.has:
            return Answer(json.dumps({"error": f"model '{name}' not found"}).encode(), 404)
        if "prompt" not in asked.body and "messages" not in asked.body:
            return whole({"model": name, "response": "", "done": True})
        self.running[name] = self.has[name]
        frames = [{"model": name, **frame} for frame in self.frames]
        return Answer(pieces=lines(*frames), pause_s=self.pause_s)
