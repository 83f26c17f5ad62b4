"""Workers: whoever can run a model. One port for our own nodes, Ollama servers, OpenAI endpoints.

Whatever concerns prompts (templates, tags, tool calls, frames) is the library's; a worker loads
what it is told to and passes text through.

Source: spec inference-and-gguf 2-5.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from registry.core.digest import Digest
from registry.core.generation import Logprob
from registry.core.names import ModelName


class Dialect(Enum):
    """What a worker's runners understand."""

    LLAMA = "llama"
    """llama-server's HTTP: rendered prompts, chats, embeddings, tokens, templates."""
    OPENAI = "openai"
    """Chats, completions, embeddings of a fixed set of models; no rendered prompts, no tokens."""
    OLLAMA = "ollama"
    """Requests of the Ollama API, passed on as they are: it renders by itself."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A blob that a runner opens. `size` in bytes."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """What a runner is started with; other values mean another runner.

    `num_ctx` and `num_batch` are tokens per slot, `parallel` the slots. None and -1 leave the
    choice to the engine. `embedding` starts it for vectors only. `chat_template` is given to the
    engine in place of the model's own; None keeps that; `jinja` False means that prompts come
    rendered. With `shift` an answer that fills its slot goes on: the oldest half of what came after
    `n_keep` tokens is forgotten, where the model's kind of memory allows it.
    """

    num_ctx: int = 4096
    num_batch: int = 512
    num_gpu: int = -1
    main_gpu: int | None = None
    num_thread: int = 0
    use_mmap: bool | None = None
    parallel: int = 1
    embedding: bool = False
    jinja: bool = True
    chat_template: str | None = None
    shift: bool = True


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """A model made ready to run. Specs that are equal in `key` share a runner.

    `name` and `manifest` are for workers that know models by name and pull by themselves. `memory`
    is the estimate in bytes of what the runner will hold, mapped file included (spec 5). A runner
    of a `pinned` spec is never unloaded to make room; it does not change the key.
    """

    name: ModelName
    manifest: Digest
    model: Weights
    adapters: tuple[Weights, ...] = ()
    projectors: tuple[Weights, ...] = ()
    options: RunnerOptions = field(default_factory=RunnerOptions)
    architecture: str = ""
    memory: int = 0
    pinned: bool = False
    key: str = field(init=False, repr=False, compare=False)
    """Canonical text of all that makes a runner another one."""

    def __post_init__(self) -> None:
        """Word the key: it is asked for many times a request."""
        blobs = [*(str(item.digest) for item in self.blobs), repr(self.options)]
        object.__setattr__(self, "key", "|".join(blobs))

    @property
    def blobs(self) -> tuple[Weights, ...]:
        """All blobs that must be at hand before the runner starts."""
        return (self.model, *self.adapters, *self.projectors)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A runner on a worker. Sizes in bytes, `expires_at` in ns since the epoch, None for never.

    `slots` is how many requests it serves at once, `busy` how many it does now, `waiting` how many
    stand behind those. `key` is the spec's; where a worker knows models by name or manifest only
    (`WorkerFacts.models`, dialect OLLAMA), it is `str` of that.
    """

    key: str
    name: ModelName
    manifest: Digest
    model: Digest
    size: int = 0
    size_vram: int = 0
    num_ctx: int = 0
    slots: int = 1
    busy: int = 0
    waiting: int = 0
    loading: bool = False
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class Crash:
    """A runner that a model has taken down; one that somebody has stopped is none."""

    model: Digest
    name: str  # under which it was loaded
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What is known of a worker. Memory in bytes; `cached` are digests of blobs at hand.

    `models` are the names it serves when its set is fixed, None when it loads what it is told.
    `load_bytes_per_s` is the last speed of loading that was seen, 0 for none. `has_all` says that
    it reads the library's own store: nothing is ever fetched. One that is not `reachable` is asked
    again once it is. `slots` are those of any model, where that is fixed: 0 if the spec says.
    """

    engine: str = ""
    version: str = ""
    memory_total: int = 0
    memory_free: int = 0
    labels: frozenset[str] = frozenset()
    loaded: tuple[Loaded, ...] = ()
    cached: frozenset[Digest] = frozenset()
    models: frozenset[str] | None = None
    draining: bool = False
    load_bytes_per_s: int = 0
    has_all: bool = False
    reachable: bool = True
    slots: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """What a runner says of a finished request: tokens, and milliseconds."""

    prompt_tokens: int = 0
    prompt_ms: float = 0.0
    tokens: int = 0
    eval_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class ToolPiece:
    """A part of a tool call: name and id come first, then `arguments`, JSON text in pieces."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """The runner's own end of an answer. `limit` says that the token limit ended it."""

    limit: bool = False
    stopped_by: str = ""
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True)
class Piece:
    """What a runner sends. Complete only after a piece with `stop`; without it the runner died."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolPiece, ...] = ()
    tokens: tuple[int, ...] = ()
    logprobs: tuple[Logprob, ...] = ()
    stop: Stop | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors as the runner made them, in order, and the tokens they took."""

    vectors: list[list[float]]
    prompt_tokens: int


class Running(Protocol):
    """A lease on a loaded model: one slot of it, until `release`. Not shared between tasks.

    Every method may raise:
        WorkerLost: the runner or its worker went away, before or in the middle of an answer.
        OperationFailed, RequestInvalid: the runner's own refusal, in its words.
    """

    @property
    def dialect(self) -> Dialect:
        """Which of the methods below mean anything."""
        ...

    @property
    def worker(self) -> str:
        """The worker's name."""
        ...

    @property
    def load_ns(self) -> int:
        """What it took to get ready for this lease: 0 where the model was loaded."""
        ...

    def complete(self, body: Mapping[str, Any]) -> AsyncIterator[Piece]:
        """llama-server's `/completion`; `stream` and what it implies are set here."""
        ...

    def chat(self, body: Mapping[str, Any]) -> AsyncIterator[Piece]:
        """`/v1/chat/completions`, rendered by the engine; `stream` is set here."""
        ...

    def native(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
        """Dialect OLLAMA: a request of that API; its frames, `model` as it was sent."""
        ...

    async def embed(self, texts: Sequence[str], *, normalize: bool = True) -> Embedded:
        """Vectors of at most 64 texts."""
        ...

    async def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids; `special` adds what the tokenizer puts around a text and reads marks in it."""
        ...

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of token ids."""
        ...

    async def apply_template(self, body: Mapping[str, Any]) -> str:
        """The prompt that the engine makes of `messages` (and `tools`, template arguments)."""
        ...

    async def release(self, keep_alive_s: float | None) -> None:
        """Give the slot back. The runner stays for so long (None: for ever, 0: unload when idle).

        Must be called exactly once, also after errors; closes an answer that is still running.
        """
        ...


class Worker(Protocol):
    """One worker."""

    @property
    def name(self) -> str:
        """Unique among the workers of a library."""
        ...

    @property
    def dialect(self) -> Dialect:
        """What its runners understand."""
        ...

    def facts(self) -> WorkerFacts:
        """What is known now: no waiting, it is kept up to date by heartbeats or polls."""
        ...

    async def acquire(self, spec: LoadSpec) -> Running:
        """A slot of a runner of the spec, fetching and loading what is needed; waits for its turn.

        Raises:
            Unavailable: too many wait already, it drains, or there is no memory to be had.
            CannotRun: this worker can never run this model; the message is the engine's.
            WorkerLost: it went away while loading.
        """
        ...

    async def unload(self, model: Digest) -> None:
        """Let go of every runner of these weights, once idle."""
        ...

    async def close(self) -> None:
        """End what it runs, or the connection to it."""
        ...
