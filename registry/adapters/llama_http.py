"""A lease on a model behind llama-server's HTTP: our own runners, and such servers elsewhere.

The connection is the caller's (`Wire`); here requests are worded, answers and errors are read. An
answer counts as complete only when its last frame came: a runner that was killed ends its body as
one that is done does.

Source: spec inference-and-gguf 2.1, 2.2; ollama-api 18.2.
"""

import array
import base64
import binascii
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from typing import Any, Protocol

import orjson

from registry.adapters.llama_frames import chat_piece, completion_piece, refusal
from registry.core.errors import (
    OperationFailed,
    PromptTooLong,
    RequestInvalid,
    Unsupported,
    WorkerLost,
)
from registry.ports.workers import Dialect, Embedded, Piece

_EVENT_BYTES = 16 << 20
"""One frame: the last one repeats the prompt."""
_REPLY_BYTES = 256 << 20
"""64 vectors of 16,384 numbers as text, and more; token lists of the longest prompts."""
_ERROR_BYTES = 1 << 16
_STREAMED = {"stream": True}
_REPORTED = {"return_progress": True}
"""Reports on the way through a prompt: without them the runner notices only at the first token that
whoever asked has left, which may be minutes later; and it might be taken for dead."""
_SHORT = 1 << 10
"""Requests up to this size, in bytes, are read in one go, so there is nothing to report."""
_IMAGE = re.compile(r"\[img-(\d+)\]")


class Reply(Protocol):
    """An answer over HTTP, while it arrives; its connection is held until `close`."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives; raises WorkerLost when it breaks off."""
        ...

    async def read(self, limit: int) -> bytes:
        """The whole body, of which no more than `limit` bytes are looked at."""
        ...

    async def close(self) -> None:
        """Let go; what is still being made is stopped. May be called twice."""
        ...


class Wire(Protocol):
    """How requests get to the server: a socket, a network connection, a link to a worker."""

    async def send(self, method: str, path: str, body: bytes = b"") -> Reply:
        """Send JSON, get an answer with its status. Raises WorkerLost when nobody answers."""
        ...


class LlamaRunning:
    """A lease in the dialect of llama-server; `give_back` is called once, by `release`."""

    def __init__(
        self,
        wire: Wire,
        worker: str,
        load_ns: int,
        give_back: Callable[[float | None], Awaitable[None]],
    ) -> None:
        self._wire = wire
        self._worker = worker
        self._load_ns = load_ns
        self._give_back = give_back
        self._open: set[Reply] = set()

    @property
    def dialect(self) -> Dialect:
        """Everything that llama-server knows."""
        return Dialect.LLAMA

    @property
    def worker(self) -> str:
        """The worker's name."""
        return self._worker

    @property
    def wire(self) -> Wire:
        """Where requests go: for whoever passes on those of others."""
        return self._wire

    @property
    def load_ns(self) -> int:
        """What it took to get ready for this lease."""
        return self._load_ns

    def complete(self, body: Mapping[str, Any]) -> AsyncGenerator[Piece, None]:
        """A completion.

        For images `prompt` is `{"prompt_string", "multimodal_data": [base64, …]}`, and each
        `[img-N]` of the text stands for the N-th of them.
        """
        asked = {"cache_prompt": True, **body, **_STREAMED, "return_tokens": True}
        return self._pieces("/completion", asked, completion_piece)

    def chat(self, body: Mapping[str, Any]) -> AsyncGenerator[Piece, None]:
        """A chat that the engine renders and whose tool calls and thoughts it tells apart."""
        asked = {"cache_prompt": True, **body, **_STREAMED}
        return self._pieces("/v1/chat/completions", asked, chat_piece)

    def native(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
        """Not of this dialect.

        Raises:
            Unsupported: always.
        """
        raise Unsupported("this worker does not speak the Ollama API")

    async def embed(self, texts: Sequence[str], *, normalize: bool = True) -> Embedded:
        """Vectors of texts, as float32."""
        asked: dict[str, Any] = {"input": list(texts), "encoding_format": "base64"}
        if not normalize:
            asked["embd_normalize"] = -1
        try:
            answer = await self._ask("/v1/embeddings", asked)
        except (RequestInvalid, OperationFailed) as error:
            if "too large" in str(error) or "context size" in str(error):
                raise PromptTooLong("the input length exceeds the context length") from error
            raise
        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            vectors = [_vector(row["embedding"]) for row in rows]
            return Embedded(vectors, int(answer["usage"]["prompt_tokens"]))
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise OperationFailed("the runner's embeddings cannot be read") from error

    async def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids."""
        asked = {"content": text, "add_special": special, "parse_special": special}
        answer = await self._ask("/tokenize", asked)
        tokens = answer.get("tokens")
        if not isinstance(tokens, list) or not all(type(item) is int for item in tokens):
            raise OperationFailed("the runner's tokens cannot be read")
        return tokens

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of token ids.

        Raises:
            RequestInvalid: one of them is none of the model's.
        """
        try:
            answer = await self._ask("/detokenize", {"tokens": list(tokens)})
        except OperationFailed as error:
            if "range" in str(error):
                raise RequestInvalid("a token is not in the model's vocabulary") from error
            raise
        return str(answer.get("content", ""))

    async def apply_template(self, body: Mapping[str, Any]) -> str:
        """The engine's prompt."""
        return str((await self._ask("/apply-template", body)).get("prompt", ""))

    async def release(self, keep_alive_s: float | None) -> None:
        """Give the slot back, closing answers that still run."""
        for reply in list(self._open):
            await reply.close()
        self._open.clear()
        await self._give_back(keep_alive_s)

    async def _marked(self, prompt: Mapping[str, Any]) -> dict[str, Any]:
        """The prompt with the runner's own mark, which is another in each, where images go."""
        images = prompt.get("multimodal_data") or []
        marker = str((await self._ask("/props", None)).get("media_marker") or "<__media__>")

        def mark(found: re.Match[str]) -> str:
            return marker if int(found[1][:6]) < len(images) else found[0]

        text = _IMAGE.sub(mark, str(prompt.get("prompt_string", "")))
        if text.endswith(marker):  # the engine dies where nothing comes after an image
            text += "\n"
        return {"prompt_string": text, "multimodal_data": list(images)}

    async def _ask(self, path: str, body: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Ask for one JSON object; no body means GET."""
        data = b"" if body is None else _dumped(body)
        reply = await self._wire.send("GET" if body is None else "POST", path, data)
        self._open.add(reply)
        try:
            text = await reply.read(_ERROR_BYTES if reply.status >= 400 else _REPLY_BYTES)
        finally:
            await self._close(reply)
        if reply.status >= 400:
            raise refusal(reply.status, text)
        return _object(text)

    async def _pieces(
        self, path: str, body: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Piece | None]
    ) -> AsyncGenerator[Piece, None]:
        """The pieces of a streamed answer, each frame of which is `read`.

        Raises:
            WorkerLost: it broke off.
        """
        if isinstance(body.get("prompt"), Mapping):
            body = {**body, "prompt": await self._marked(body["prompt"])}
        data = _dumped(body)
        if len(data) > _SHORT:
            data = _dumped({**body, **_REPORTED})
        reply = await self._wire.send("POST", path, data)
        self._open.add(reply)
        try:
            if reply.status >= 400:
                raise refusal(reply.status, await reply.read(_ERROR_BYTES))
            rest = b""
            async with aclosing(reply.chunks()) as chunks:
                async for chunk in chunks:
                    *events, rest = (rest + chunk if rest else chunk).split(b"\n\n")
                    for frame in _frames(events, rest):
                        piece = read(frame)
                        if piece is None:
                            continue
                        yield piece
                        if piece.stop is not None:
                            return
        finally:
            await self._close(reply)
        raise WorkerLost

    async def _close(self, reply: Reply) -> None:
        self._open.discard(reply)
        await reply.close()


def _frames(events: list[bytes], rest: bytes) -> Iterator[Mapping[str, Any]]:
    """The objects of server-sent events; pings and `[DONE]` are passed over.

    Raises:
        OperationFailed: one is out of all bounds, or reports the runner's failure.
    """
    if len(rest) > _EVENT_BYTES:
        raise OperationFailed("the runner's answer has no end")
    for event in events:
        if event.startswith(b"data: {"):
            yield _object(event[6:])
        elif event.startswith(b"error: "):
            raise refusal(500, event[7:])


def _object(text: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(text)
    except ValueError as error:
        raise OperationFailed("the runner's answer is not JSON") from error
    if not isinstance(value, dict):
        raise OperationFailed("the runner's answer is no JSON object")
    if value.get("error"):
        code = value["error"].get("code") if isinstance(value["error"], dict) else 500
        raise refusal(code if isinstance(code, int) else 500, text)
    return value


def _dumped(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError as error:
        raise RequestInvalid(f"the request is not valid JSON: {error}") from error


def _vector(value: Any) -> list[float]:
    if isinstance(value, str):
        numbers = array.array("f", base64.b64decode(value, validate=True))
        return numbers.tolist()
    return [float(number) for number in value]
