"""An existing Ollama server as a worker.

It knows models by name and manifest. What it lacks it is made to pull from this library, and what
is asked is passed on as it is; it renders by itself, so results follow its version.

Source: spec inference-and-gguf 3.3; ollama-api 7, 9, 10, 14-16.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

from registry.adapters.llama_frames import refusal
from registry.adapters.worker_http import SiteReply, SiteWire
from registry.adapters.workers_external import External, Polled
from registry.core.digest import Digest
from registry.core.errors import (
    CannotRun,
    DigestInvalid,
    OperationFailed,
    RegistryError,
    Unsupported,
    WorkerLost,
)
from registry.core.names import DEFAULT_HOST, ModelName
from registry.ports.workers import Dialect, Embedded, Loaded, LoadSpec, Running, WorkerFacts

_SLOTS = 1
_LINE_BYTES = 64 << 20
_ERROR_BYTES = 1 << 16
_PULL_S = 6 * 3600.0
_RELEASE_S = 5.0
_CRASHED = ("model runner has unexpectedly stopped", "llama runner process", "unexpected EOF")


class OllamaWorker(Polled):
    """An Ollama server."""

    def __init__(self, external: External, changed: Callable[[], None] = lambda: None) -> None:
        super().__init__(external, changed)
        self._names: dict[Digest, str] = {}  # manifest -> its name there
        self._theirs: dict[str, Loaded] = {}  # what its own /api/ps said, by manifest
        self._pulls: dict[Digest, asyncio.Task[str]] = {}
        self._kept: dict[str, float | None] = {}  # model there -> keep-alive last told
        parts = urlsplit(external.library)
        self._host = parts.netloc
        self._insecure = parts.scheme == "http"

    @property
    def dialect(self) -> Dialect:
        """Its own API."""
        return Dialect.OLLAMA

    async def acquire(self, spec: LoadSpec) -> Running:
        """A lease; the model is pulled first if it is not there, loaded by its first request."""
        key = str(spec.manifest)
        began = asyncio.get_running_loop().time()
        self._enter(key, spec, self.external.slots or _SLOTS)
        try:
            name = self._names.get(spec.manifest) or await self._pulled(spec)
        except BaseException:
            self._leave(key)
            raise
        pulled_s = asyncio.get_running_loop().time() - began
        return OllamaRunning(self, name, key, round(pulled_s * 1e9))

    async def unload(self, model: Digest) -> None:
        """Tell it to let go of every model with these weights that we sent it."""
        for item in list(self._seen.values()):
            name = self._names.get(item.manifest)
            if item.model == model and name is not None:
                await self.tell_keep_alive(name, 0)

    async def close(self) -> None:
        """Stop asking; pulls that it does for us go on there."""
        for pull in self._pulls.values():
            pull.cancel()
        await super().close()

    async def tell_keep_alive(self, name: str, keep_alive_s: float | None) -> None:
        """How long the model is to stay, if that was not told before."""
        if keep_alive_s != 0 and self._kept.get(name, -1.0) == keep_alive_s:
            return
        value = -1 if keep_alive_s is None else f"{max(0, round(keep_alive_s * 1e3))}ms"
        body = {"model": name, "keep_alive": value, "stream": False}
        with contextlib.suppress(RegistryError, TimeoutError):
            async with asyncio.timeout(_RELEASE_S):
                await self.wire.ask("POST", "/api/generate", body)
        self._kept[name] = keep_alive_s
        if len(self._kept) > 1_000:
            self._kept.clear()

    async def give_back(self, name: str, key: str, keep_alive_s: float | None) -> None:
        """A lease is over."""
        self._leave(key)
        await self.tell_keep_alive(name, keep_alive_s)

    def forget(self, name: str) -> None:
        """It does not have the model any more, though it did when it was asked."""
        self._names = {key: known for key, known in self._names.items() if known != name}

    def _loaded(self) -> list[Loaded]:
        """What it says is loaded; what we sent it since counts too."""
        found = dict(self._theirs)
        for key, ours in self._seen.items():
            if key in found:
                sizes = found[key]
                found[key] = replace(
                    ours,
                    size=sizes.size,
                    size_vram=sizes.size_vram,
                    num_ctx=sizes.num_ctx or ours.num_ctx,
                    expires_at=sizes.expires_at,
                )
            elif ours.busy:
                found[key] = ours
        return list(found.values())

    async def _asked(self, wire: SiteWire) -> WorkerFacts:
        version = _text(await wire.ask("GET", "/api/version"), "version")
        tags = _rows(await wire.ask("GET", "/api/tags"))
        running = _rows(await wire.ask("GET", "/api/ps"))
        self._names = {digest: name for name, digest, _ in tags}
        slots = self.external.slots or _SLOTS
        self._theirs = {
            str(digest): self._listed(name, digest, row, slots) for name, digest, row in running
        }
        return WorkerFacts(
            engine="ollama",
            version=version,
            labels=self.external.labels,
            cached=frozenset(self._names),
            slots=slots,
        )

    def _listed(self, name: str, digest: Digest, row: Mapping[str, Any], slots: int) -> Loaded:
        parsed = ModelName.parse(name)
        if parsed.host == self._host:
            parsed = replace(parsed, host=DEFAULT_HOST)
        return Loaded(
            str(digest),
            parsed,
            digest,
            digest,
            size=_whole(row.get("size")),
            size_vram=_whole(row.get("size_vram")),
            num_ctx=_whole(row.get("context_length")),
            slots=slots,
            expires_at=_moment(row.get("expires_at")),
        )

    async def _pulled(self, spec: LoadSpec) -> str:
        """Its name for the model, once it has pulled it; two askers share one pull."""
        task = self._pulls.get(spec.manifest)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._pull(spec))
            self._pulls[spec.manifest] = task
            task.add_done_callback(lambda _: self._pulls.pop(spec.manifest, None))
        return await asyncio.shield(task)

    async def _pull(self, spec: LoadSpec) -> str:
        if not self._host:
            raise CannotRun(
                f"the worker {self.name} does not have this model and cannot fetch it: "
                "REGISTRY_EXTERNAL_URL is not set"
            )
        name = spec.name
        full = f"{self._host}/{name.namespace}/{name.model}:{name.tag}"
        if name.host != DEFAULT_HOST:
            raise CannotRun(f"an Ollama server cannot fetch {name.short} from here")
        body = {"model": full, "insecure": self._insecure}
        try:
            async with asyncio.timeout(_PULL_S):
                async with aclosing(self.frames("/api/pull", body)) as frames:
                    last = ""
                    async for frame in frames:
                        last = str(frame.get("status"))
        except (OperationFailed, TimeoutError) as error:
            raise CannotRun(f"the worker {self.name} could not fetch the model: {error}") from error
        if last != "success":
            raise WorkerLost
        self._names = {
            digest: own for own, digest, _ in _rows(await self.wire.ask("GET", "/api/tags"))
        }
        if spec.manifest not in self._names:
            raise CannotRun(f"the worker {self.name} got another model under the name {name.short}")
        return self._names[spec.manifest]

    async def frames(
        self, path: str, body: Mapping[str, Any]
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """The objects of an answer; an error among them is raised."""
        reply = await self.wire.send("POST", path, orjson.dumps(body))
        try:
            if reply.status >= 300:
                raise _refused(reply.status, await reply.read(_ERROR_BYTES))
            async with aclosing(_lines(reply)) as lines:
                async for line in lines:
                    yield _frame(line)
        finally:
            await reply.close()


class OllamaRunning:
    """A lease on a model of an Ollama server."""

    def __init__(self, owner: OllamaWorker, model: str, key: str, load_ns: int) -> None:
        self._owner = owner
        self._model = model
        self._key = key
        self._load_ns = load_ns

    @property
    def dialect(self) -> Dialect:
        """Its own API."""
        return Dialect.OLLAMA

    @property
    def worker(self) -> str:
        """The worker's name."""
        return self._owner.name

    @property
    def load_ns(self) -> int:
        """What the pull took, if there was one."""
        return self._load_ns

    async def native(
        self, path: str, body: Mapping[str, Any]
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """A request of its API; complete with the frame that says so, or as one object."""
        asked = {**body, "model": self._model}
        single = path in {"/api/embed", "/api/embeddings"}
        async with aclosing(self._owner.frames(path, asked)) as frames:
            async for frame in frames:
                yield {**frame, "model": body.get("model", "")} if "model" in frame else frame
                if single or frame.get("done") or "_debug_info" in frame:
                    return
        raise WorkerLost

    async def embed(self, texts: Sequence[str], *, normalize: bool = True) -> Embedded:
        """Vectors: of unit length by its newer endpoint, as they are by the older."""
        if normalize:
            answer = await self._one("/api/embed", {"input": list(texts)})
            return _embedded(answer.get("embeddings"), answer.get("prompt_eval_count"), len(texts))
        each = [await self._one("/api/embeddings", {"prompt": text}) for text in texts]
        return _embedded([item.get("embedding") for item in each], 0, len(texts))

    def complete(self, body: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """Not of this dialect."""
        raise _unsupported()

    def chat(self, body: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """Not of this dialect."""
        raise _unsupported()

    async def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Not of this dialect."""
        raise _unsupported()

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Not of this dialect."""
        raise _unsupported()

    async def apply_template(self, body: Mapping[str, Any]) -> str:
        """Not of this dialect."""
        raise _unsupported()

    async def release(self, keep_alive_s: float | None) -> None:
        """Give the slot back."""
        await self._owner.give_back(self._model, self._key, keep_alive_s)

    async def _one(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        async with aclosing(self.native(path, body)) as frames:
            return await anext(frames)


def _unsupported() -> Unsupported:
    return Unsupported("an Ollama server renders and counts by itself")


async def _lines(reply: SiteReply) -> AsyncGenerator[bytes, None]:
    rest = b""
    async with aclosing(reply.chunks()) as chunks:
        async for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _LINE_BYTES:
                raise OperationFailed("the worker's answer has no end")
            for line in lines:
                if line.strip():
                    yield line
    if rest.strip():
        yield rest


def _frame(line: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(line)
    except ValueError as error:
        raise OperationFailed("the worker's answer is not JSON") from error
    if not isinstance(value, dict):
        raise OperationFailed("the worker's answer is no JSON object")
    if value.get("error"):
        raise _refused(500, line)
    return value


def _refused(status: int, body: bytes) -> RegistryError:
    """What an error of the server stands for; a runner of it that went away is lost."""
    error = refusal(status, body)
    is_lost = any(sign in str(error) for sign in _CRASHED)
    return WorkerLost(str(error)) if is_lost else error


def _rows(answer: object) -> list[tuple[str, Digest, Mapping[str, Any]]]:
    """The models of a list with name and digest; rows that have none are passed over."""
    listed = answer.get("models") if isinstance(answer, dict) else None
    found: list[tuple[str, Digest, Mapping[str, Any]]] = []
    for row in listed if isinstance(listed, list) else ():
        if not isinstance(row, dict):
            continue
        with contextlib.suppress(DigestInvalid):
            digest = Digest.parse(f"sha256:{str(row.get('digest')).removeprefix('sha256:')}")
            found.append((str(row.get("name"))[:500], digest, row))
    return found


def _text(answer: object, name: str) -> str:
    return str(answer.get(name, ""))[:100] if isinstance(answer, dict) else ""


def _moment(value: object) -> int | None:
    """Nanoseconds since the epoch; None for what is no time."""
    try:
        return round(datetime.fromisoformat(str(value)).timestamp() * 1e9)
    except (ValueError, OverflowError):
        return None


def _embedded(vectors: object, count: object, expected: int) -> Embedded:
    try:
        assert isinstance(vectors, list)
        made = [[float(number) for number in vector] for vector in vectors]
    except (AssertionError, TypeError, ValueError) as error:
        raise OperationFailed("the worker's embeddings cannot be read") from error
    if len(made) != expected:
        raise OperationFailed("the worker made another number of embeddings than was asked")
    return Embedded(made, _whole(count))


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
