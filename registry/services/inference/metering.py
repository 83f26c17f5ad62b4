"""What inference does, in numbers: counters for Prometheus, and what each request used.

A lease is wrapped so that whoever uses it need not think of the books: tokens are read from the
runner's own last piece.

Source: spec inference-and-gguf 5; issue "Accounting".
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

from registry.core.names import ModelName
from registry.ports.workers import Dialect, Embedded, Piece, Running

T = TypeVar("T")

_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_SERIES = 4096
_MODELS = 500
"""So many models get numbers of their own; the others share one, or a scrape would never end."""


@dataclass(slots=True)
class Use:
    """What one lease was used for. Counts are tokens; `first_s` from asking to the first piece.

    `asked` says that the runner was asked for something, `complete` that it answered to the end.
    """

    model: ModelName
    worker: str
    account: str
    waited_s: float
    prompt_tokens: int = 0
    tokens: int = 0
    first_s: float | None = None
    asked: bool = False
    complete: bool = False


def _labelled(metric: Any, *labels: str) -> Any:
    """The series of a metric with these labels."""
    return metric.labels(*labels)


class Meter:
    """Counters of one process, in a Prometheus registry of their own."""

    def __init__(self, ledger: Callable[[Use, float], None] | None = None) -> None:
        # they double every series for nothing that anybody reads
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotation
        self.registry = CollectorRegistry()
        self._ledger = ledger
        self._models: set[str] = set()
        self._of = lru_cache(_SERIES)(_labelled)
        prefix, to = "registry_inference", self.registry
        self._leases = Counter(
            f"{prefix}_requests", "Requests that got a worker", ["worker", "outcome"], registry=to
        )
        self._refused = Counter(
            f"{prefix}_refused", "Requests that got none, by error", ["error"], registry=to
        )
        self._lost = Counter(
            f"{prefix}_lost", "Runners and workers that went away in use", ["worker"], registry=to
        )
        self._tokens = Counter(
            f"{prefix}_tokens", "Tokens read and written", ["model", "kind"], registry=to
        )
        self._running = Gauge(
            f"{prefix}_running", "Requests on a worker now", ["worker"], registry=to
        )
        self._waited = Histogram(
            f"{prefix}_wait_seconds", "Time until a worker was chosen", buckets=_SECONDS,
            registry=to,
        )  # fmt: skip
        self._loads = Histogram(
            f"{prefix}_load_seconds", "Time to load a model", ["worker"], buckets=_SECONDS,
            registry=to,
        )  # fmt: skip
        self._first = Histogram(
            f"{prefix}_first_token_seconds", "Time from asking to the first piece of an answer",
            buckets=_SECONDS, registry=to,
        )  # fmt: skip
        self._queue = Gauge(f"{prefix}_waiting", "Requests that wait for a worker", registry=to)

    def watch_queue(self, waiting: Callable[[], float]) -> None:
        """Where the length of the queue is read when somebody asks."""
        self._queue.set_function(waiting)

    def keep_books(self, ledger: Callable[[Use, float], None]) -> None:
        """Who is told of every finished lease, with its seconds."""
        self._ledger = ledger

    def waited(self, seconds: float) -> None:
        """A worker was chosen."""
        self._waited.observe(seconds)

    def refused(self, error: Exception) -> None:
        """No worker was chosen."""
        self._refused.labels(type(error).__name__).inc()

    def loaded(self, worker: str, nanoseconds: int) -> None:
        """A lease is there; 0 where nothing had to be loaded for it."""
        if nanoseconds:
            self._loads.labels(worker).observe(nanoseconds / 1e9)

    def lost(self, worker: str) -> None:
        """A worker, or a runner on it, went away."""
        self._lost.labels(worker).inc()

    def metered(self, running: Running, use: Use) -> Running:
        """The lease, counting into `use`; `done` has to follow."""
        self._of(self._running, use.worker).inc()
        return _Metered(running, use)

    def done(self, use: Use, seconds: float) -> None:
        """A lease was given back after so long."""
        self._of(self._running, use.worker).dec()
        outcome = "done" if use.complete or not use.asked else "broken"
        self._of(self._leases, use.worker, outcome).inc()
        if use.first_s is not None:
            self._first.observe(use.first_s)
        if use.prompt_tokens or use.tokens:
            model = self._label(use.model.short)
            self._of(self._tokens, model, "prompt").inc(use.prompt_tokens)
            self._of(self._tokens, model, "answer").inc(use.tokens)
        if self._ledger is not None:
            self._ledger(use, seconds)

    def _label(self, model: str) -> str:
        if model in self._models or len(self._models) < _MODELS:
            self._models.add(model)
            return model
        return "other"


class _Metered(Running):
    """A lease whose answers are counted."""

    def __init__(self, running: Running, use: Use) -> None:
        self._running = running
        self._use = use
        self._began = time.monotonic()

    @property
    def dialect(self) -> Dialect:
        return self._running.dialect

    @property
    def worker(self) -> str:
        return self._running.worker

    @property
    def load_ns(self) -> int:
        return self._running.load_ns

    def complete(self, body: Mapping[str, Any]) -> AsyncIterator[Piece]:
        self._use.asked = True
        return _Counted(self._running.complete(body), self._piece)

    def chat(self, body: Mapping[str, Any]) -> AsyncIterator[Piece]:
        self._use.asked = True
        return _Counted(self._running.chat(body), self._piece)

    def native(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
        self._use.asked = True
        return _Counted(self._running.native(path, body), self._frame)

    async def embed(self, texts: Sequence[str], *, normalize: bool = True) -> Embedded:
        self._use.asked = True
        answer = await self._running.embed(texts, normalize=normalize)
        self._first()
        self._use.complete = True
        self._use.prompt_tokens += answer.prompt_tokens
        return answer

    async def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        return await self._running.tokenize(text, special=special)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        return await self._running.detokenize(tokens)

    async def apply_template(self, body: Mapping[str, Any]) -> str:
        return await self._running.apply_template(body)

    async def release(self, keep_alive_s: float | None) -> None:
        await self._running.release(keep_alive_s)

    def _first(self) -> None:
        if self._use.first_s is None:
            self._use.first_s = self._use.waited_s + time.monotonic() - self._began

    def _piece(self, piece: Piece) -> None:
        self._first()
        if piece.stop is not None:
            timings = piece.stop.timings
            self._count(timings.prompt_tokens, timings.tokens)

    def _frame(self, frame: Mapping[str, Any]) -> None:
        self._first()
        if frame.get("done", "embeddings" in frame or "embedding" in frame):
            self._count(_whole(frame.get("prompt_eval_count")), _whole(frame.get("eval_count")))

    def _count(self, prompt_tokens: int, tokens: int) -> None:
        self._use.complete = True
        self._use.prompt_tokens += prompt_tokens
        self._use.tokens += tokens


class _Counted(Generic[T]):
    """An answer that is looked at as it passes; closing it closes the worker's own iterator."""

    def __init__(self, items: AsyncIterator[T], look: Callable[[T], None]) -> None:
        self._items = items
        self._look = look

    def __aiter__(self) -> "_Counted[T]":
        return self

    async def __anext__(self) -> T:
        item = await anext(self._items)
        self._look(item)
        return item

    async def aclose(self) -> None:
        """Stop the answer."""
        close = getattr(self._items, "aclose", None)
        if close is not None:
            await close()


def _whole(value: object) -> int:
    """A count out of another server's answer."""
    return value if isinstance(value, int) and 0 <= value < 1 << 40 else 0
