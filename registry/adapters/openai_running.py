"""A lease on a model behind an OpenAI-compatible API: chats and embeddings, nothing else.

Source: OpenAI API reference, "Create chat completion", "Create embeddings".
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import orjson

from registry.adapters.llama_frames import chat_piece, refusal, timings_of
from registry.adapters.worker_http import SiteReply, SiteWire
from registry.core.errors import OperationFailed, Unsupported, WorkerLost
from registry.ports.workers import Dialect, Embedded, Piece, Stop, Timings

_EVENT_BYTES = 16 << 20
_ERROR_BYTES = 1 << 16
_REPLY_BYTES = 256 << 20
_KNOWN = frozenset({
    "messages", "tools", "tool_choice", "parallel_tool_calls", "temperature", "top_p", "max_tokens",
    "stop", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs",
    "top_logprobs", "response_format", "reasoning_effort",
})  # fmt: skip
"""Strict servers refuse what they do not know."""


class OpenAIRunning:
    """A lease; `model` is the server's own id. `give_back` is called once, by `release`."""

    def __init__(
        self,
        wire: SiteWire,
        worker: str,
        model: str,
        give_back: Callable[[float | None], Awaitable[None]],
    ) -> None:
        self._wire = wire
        self._worker = worker
        self._model = model
        self._give_back = give_back
        self._open: set[SiteReply] = set()

    @property
    def dialect(self) -> Dialect:
        """Chats and embeddings."""
        return Dialect.OPENAI

    @property
    def worker(self) -> str:
        """The worker's name."""
        return self._worker

    @property
    def load_ns(self) -> int:
        """Nothing is ever loaded."""
        return 0

    def complete(self, body: Mapping[str, Any]) -> AsyncGenerator[Piece, None]:
        """Not of this dialect."""
        raise _unsupported("take rendered prompts")

    def native(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[Mapping[str, Any], None]:
        """Not of this dialect."""
        raise _unsupported("speak the Ollama API")

    async def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Not of this dialect."""
        raise _unsupported("count tokens")

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Not of this dialect."""
        raise _unsupported("read tokens")

    async def apply_template(self, body: Mapping[str, Any]) -> str:
        """Not of this dialect."""
        raise _unsupported("show prompts")

    async def chat(self, body: Mapping[str, Any]) -> AsyncGenerator[Piece, None]:
        """A chat; its counts are the server's, its durations by our clock."""
        asked = {key: value for key, value in body.items() if key in _KNOWN}
        asked |= {
            "model": self._model,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        began, first = time.monotonic(), 0.0
        stop: Stop | None = None
        timings = Timings()
        async with aclosing(self._events("/v1/chat/completions", asked)) as events:
            async for event in events:
                timings = timings_of(event) if event.get("usage") else timings
                piece = chat_piece(event)
                if piece is None:
                    continue
                first = first or time.monotonic()
                stop = piece.stop or stop
                if piece != Piece(stop=piece.stop):
                    yield replace(piece, stop=None)
        if stop is None:
            raise WorkerLost
        ended = time.monotonic()
        first = first or ended
        yield Piece(
            stop=replace(
                stop,
                timings=replace(
                    timings, prompt_ms=(first - began) * 1e3, eval_ms=(ended - first) * 1e3
                ),
            )
        )

    async def embed(self, texts: Sequence[str], *, normalize: bool = True) -> Embedded:
        """Vectors as the server makes them, of whatever length."""
        asked = {"model": self._model, "input": list(texts)}
        answer = await self._wire.ask("POST", "/v1/embeddings", asked, _REPLY_BYTES)
        try:
            assert isinstance(answer, dict)
            rows = sorted(answer["data"], key=lambda row: row["index"])
            vectors = [[float(number) for number in row["embedding"]] for row in rows]
            count = int((answer.get("usage") or {}).get("prompt_tokens", 0))
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise OperationFailed("the worker's embeddings cannot be read") from error
        if len(vectors) != len(texts):
            raise OperationFailed("the worker made another number of embeddings than was asked")
        return Embedded(vectors, count)

    async def release(self, keep_alive_s: float | None) -> None:
        """Give the slot back, closing answers that still run."""
        for reply in list(self._open):
            await reply.close()
        self._open.clear()
        await self._give_back(keep_alive_s)

    async def _events(
        self, path: str, body: Mapping[str, Any]
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        reply = await self._wire.send("POST", path, orjson.dumps(body))
        self._open.add(reply)
        try:
            if reply.status >= 300:
                raise refusal(reply.status, await reply.read(_ERROR_BYTES))
            async with aclosing(_data(reply)) as lines:
                async for line in lines:
                    yield _event(line)
        finally:
            self._open.discard(reply)
            await reply.close()


def _unsupported(what: str) -> Unsupported:
    return Unsupported(f"the server that has this model cannot {what}: it only chats and embeds")


async def _data(reply: SiteReply) -> AsyncGenerator[bytes, None]:
    """What follows `data:` in a stream of server-sent events, up to `[DONE]`."""
    rest = b""
    async with aclosing(reply.chunks()) as chunks:
        async for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _EVENT_BYTES:
                raise OperationFailed("the worker's answer has no end")
            for line in lines:
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                yield data


def _event(data: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(data)
    except ValueError as error:
        raise OperationFailed("the worker's answer is not JSON") from error
    if not isinstance(value, dict):
        raise OperationFailed("the worker's answer is no JSON object")
    if value.get("error"):
        raise refusal(500, data)
    return value
