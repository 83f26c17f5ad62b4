"""Workers on other machines: `Worker` over a link that the worker itself opened.

Calls go out as lines of the worker's long request, answers come back as requests of their own. A
line that breaks ends the calls that have no answer yet; leases and answers that run stay for the
session's next line, until the worker counts as gone. See ADR 0008.

Source: spec inference-and-gguf 3.1; Wire of `llama_http.py`.
"""

import asyncio
import contextlib
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import structlog

from registry.adapters.link_replies import LinkReply
from registry.adapters.llama_http import LlamaRunning
from registry.adapters.worker_codec import (
    Answered,
    crashes_of,
    error_of,
    facts_of,
    read_object,
    spec_json,
)
from registry.core.digest import Digest
from registry.core.errors import Conflict, NotFound, RegistryError, WorkerLost
from registry.ports.links import Member
from registry.ports.workers import Crash, Dialect, LoadSpec, Running, Worker, WorkerFacts

_SUSPECT_S = 15.0
_GONE_S = 30.0
_LOOK_S = 1.0
_ALIVE_S = 5.0
"""An empty line so often, so that the worker knows that the library is there."""
_READABLE_S = 3600.0
_READABLE = 10_000
_AWAY = "the worker is away"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Watch:
    """What happens when a worker comes and goes, and how long is too long, in seconds."""

    came: Callable[[Worker], None]
    left: Callable[[str], None]
    crashed: Callable[[str, Crash], None] = lambda worker, crash: None
    changed: Callable[[], None] = lambda: None
    store: str = ""  # names the folder of blobs that a worker of this machine may read itself
    suspect_s: float = _SUSPECT_S
    gone_s: float = _GONE_S


class RemoteWorkers:
    """`WorkerLinks` of one process, and the workers behind them."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._workers: dict[str, RemoteWorker] = {}

    async def open(self, member: Member) -> AsyncGenerator[bytes, None]:
        """The lines for a worker."""
        worker = self._workers.get(member.name)
        if worker is None or worker.is_gone or worker.session != member.session:
            if worker is not None:
                worker.lose()
            worker = RemoteWorker(member, self._watch)
            self._workers[member.name] = worker
        async with contextlib.aclosing(worker.lines()) as lines:
            async for line in lines:
                yield line

    async def answer(self, member: Member, call: str, body: AsyncIterator[bytes]) -> None:
        """Hand an answer to whoever asked."""
        await self._of(member).answered(call, Answered(body))

    def beat(self, member: Member, report: bytes) -> None:
        """Take note of what a worker says of itself."""
        told = read_object(report)
        worker = self._of(member)
        worker.report(facts_of(told.get("facts") or {}, time.time_ns()))
        for crash in crashes_of(told.get("crashes")):
            self._watch.crashed(member.name, crash)
        if told.get("leaving"):
            worker.lose()

    def may_read(self, member: Member, digest: Digest) -> bool:
        """Whether it was told to run a model with that blob."""
        worker = self._workers.get(member.name)
        return worker is not None and worker.may_read(digest)

    def let_read(self, member: Member, digest: Digest) -> None:
        """Another process has told it to."""
        worker = self._workers.get(member.name)
        if worker is not None:
            worker.let_read([digest])

    def dismiss(self, name: str) -> None:
        """End a link."""
        worker = self._workers.pop(name, None)
        if worker is not None:
            worker.lose()

    def linked(self) -> "list[RemoteWorker]":
        """Those that can be reached now."""
        return [worker for worker in self._workers.values() if worker.facts().reachable]

    def leave(self) -> None:
        """End each line as soon as nothing runs behind it: this process stops.

        The workers come again, to whoever takes its place.
        """
        for worker in self._workers.values():
            worker.leave()

    def _of(self, member: Member) -> "RemoteWorker":
        worker = self._workers.get(member.name)
        if worker is None or worker.is_gone or worker.session != member.session:
            raise Conflict("this worker has no link: open one first")
        return worker


@dataclass(slots=True)
class _Line:
    """What is to be told on one request of the worker; None ends it."""

    waiting: list[bytes | None] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, line: bytes | None) -> None:
        self.waiting.append(line)
        self.news.set()

    async def next(self) -> list[bytes | None]:
        """What came, or a sign of life when nothing did for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ALIVE_S):
                await self.news.wait()
        self.news.clear()
        found, self.waiting = self.waiting or [b"\n"], []
        return found


class RemoteWorker:
    """One session of a worker elsewhere."""

    def __init__(self, member: Member, watch: Watch) -> None:
        self.session = member.session
        self.is_gone = False
        self._name = member.name
        self._watch = watch
        self._facts: WorkerFacts | None = None
        self._line: _Line | None = None
        self._calls: dict[str, asyncio.Future[LinkReply]] = {}
        self._replies: dict[str, LinkReply] = {}
        self._leases: set[str] = set()
        self._readable: OrderedDict[Digest, float] = OrderedDict()
        self._loop = asyncio.get_running_loop()
        self._seen = self._loop.time()
        self._leaving = False
        self._timer = self._loop.call_later(_LOOK_S, self._look)

    # --- the worker's side of it ----------------------------------------------------------------

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """What the worker is told, for as long as it listens."""
        if self._line is not None:
            self._line.put(None)
            self._drop_calls()
        line = self._line = _Line()
        self._seen = self._loop.time()
        hello = {"name": self._name, "store": self._watch.store, "leases": sorted(self._leases)}
        try:
            yield _line({"hello": hello})
            while True:
                for item in await line.next():
                    if item is None:
                        return
                    yield item
        finally:
            if self._line is line:
                self._line = None
                self._drop_calls()

    async def answered(self, call: str, answer: Answered) -> None:
        """An answer arrives; returns when all of it was taken, or nobody wants the rest."""
        self._seen = self._loop.time()
        waiting = self._calls.pop(call, None)
        if waiting is None or waiting.done():
            raise NotFound("nobody waits for this answer")
        try:
            head = await answer.head()
            if isinstance(head.get("facts"), dict):
                self.report(facts_of(head["facts"], time.time_ns()))
        except RegistryError:
            waiting.set_exception(WorkerLost("the worker's answer cannot be read"))
            raise
        if waiting.done():
            raise NotFound("nobody waits for this answer")
        if isinstance(head.get("error"), dict):
            waiting.set_exception(error_of(head["error"]))
            return
        reply = LinkReply(head, lambda: self._cancel(call))
        self._replies[call] = reply
        waiting.set_result(reply)
        try:
            async with contextlib.aclosing(answer.chunks()) as chunks:
                async for chunk in chunks:
                    self._seen = self._loop.time()
                    await reply.feed(chunk)
                    if reply.is_closed:
                        return
        finally:
            self._replies.pop(call, None)
            reply.end(complete=answer.is_complete)
            self._settle()

    def report(self, facts: WorkerFacts) -> None:
        """What it says of itself; the first time it becomes one that may be asked."""
        self._seen = self._loop.time()
        before, self._facts = self._facts, facts
        if before is None:
            log.info("a worker has come", worker=self._name, engine=facts.engine)
            self._watch.came(self)
        elif facts != before:
            self._watch.changed()

    def may_read(self, digest: Digest) -> bool:
        """Whether it was told to run a model with that blob."""
        until = self._readable.get(digest)
        return not self.is_gone and until is not None and self._loop.time() < until

    def lose(self) -> None:
        """It is gone, with all that it did."""
        if self.is_gone:
            return
        self.is_gone = True
        self._timer.cancel()
        self._drop_calls()
        for reply in list(self._replies.values()):
            reply.end(complete=False)
        if self._line is not None:
            self._line.put(None)
        if self._facts is not None:
            log.info("a worker has gone", worker=self._name)
            self._watch.left(self._name)

    def leave(self) -> None:
        """Tell it to go as soon as nothing runs."""
        self._leaving = True
        self._settle()

    def _settle(self) -> None:
        idle = not (self._calls or self._replies or self._leases)
        if self._leaving and idle and self._line is not None:
            self._line.put(None)

    def _look(self) -> None:
        """Once a second: is it still there?"""
        if self._loop.time() - self._seen > self._watch.gone_s:
            self.lose()
        else:
            self._timer = self._loop.call_later(_LOOK_S, self._look)

    # --- the port -------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name it was enrolled with."""
        return self._name

    @property
    def dialect(self) -> Dialect:
        """That of llama-server: it is one of our own nodes."""
        return Dialect.LLAMA

    def facts(self) -> WorkerFacts:
        """What it last said of itself."""
        is_late = self._loop.time() - self._seen > self._watch.suspect_s
        away = self.is_gone or self._line is None or is_late
        return replace(self._facts or WorkerFacts(), reachable=not away)

    async def acquire(self, spec: LoadSpec) -> Running:
        """See the port."""
        self.let_read([blob.digest for blob in spec.blobs])
        reply = await self._ask("POST", "/acquire", orjson.dumps(spec_json(spec)))
        lease, load_ns = str(reply.head.get("lease")), int(reply.head.get("load_ns") or 0)
        self._leases.add(lease)

        async def give_back(keep_alive_s: float | None) -> None:
            self._leases.discard(lease)
            told = {"lease": lease, "keep_alive_s": keep_alive_s}
            try:
                await self._ask("POST", "/release", orjson.dumps(told))
            finally:
                self._settle()

        return LlamaRunning(_LeaseWire(self, lease), self._name, load_ns, give_back)

    async def unload(self, model: Digest) -> None:
        """See the port."""
        await self._ask("POST", "/unload", orjson.dumps({"model": str(model)}))

    async def make(self, order: bytes, digests: Sequence[Digest]) -> LinkReply:
        """Have work on tensors done; see `Maker` of `tensors_remote.py`."""
        self.let_read(digests)
        return await self._ask("POST", "/tensors", order)

    async def close(self) -> None:
        """End the link."""
        self.lose()

    async def ask_runner(self, lease: str, method: str, path: str, body: bytes) -> LinkReply:
        """Ask the runner behind a lease.

        Raises:
            WorkerLost: the lease is gone, or the worker.
        """
        if lease not in self._leases:
            raise WorkerLost
        return await self._ask(method, f"/runner/{lease}{path}", body)

    # --- calls ----------------------------------------------------------------------------------

    async def _ask(self, method: str, path: str, body: bytes) -> LinkReply:
        line = self._line
        if self.is_gone or line is None:
            raise WorkerLost(_AWAY)
        call = secrets.token_hex(8)
        waiting: asyncio.Future[LinkReply] = self._loop.create_future()
        self._calls[call] = waiting
        told: dict[str, Any] = {"id": call, "method": method, "path": path}
        if body:
            told["body"] = orjson.Fragment(body)
        line.put(_line(told))
        try:
            return await waiting
        except asyncio.CancelledError:
            self._cancel(call)
            raise
        finally:
            self._calls.pop(call, None)

    def _cancel(self, call: str) -> None:
        """Whoever asked has gone: the worker stops what it does for it."""
        if self._line is not None and not self.is_gone:
            self._line.put(_line({"cancel": call}))

    def _drop_calls(self) -> None:
        """Nobody knows whether the worker heard them."""
        for waiting in self._calls.values():
            if not waiting.done():
                waiting.set_exception(WorkerLost(_AWAY))
        self._calls.clear()

    def let_read(self, digests: Iterable[Digest]) -> None:
        """Let it have blobs for a while."""
        until = self._loop.time() + _READABLE_S
        for digest in digests:
            self._readable[digest] = until
            self._readable.move_to_end(digest)
        while len(self._readable) > _READABLE:
            self._readable.popitem(last=False)


class _LeaseWire:
    """`Wire` to the runner behind a lease."""

    def __init__(self, worker: RemoteWorker, lease: str) -> None:
        self._worker = worker
        self._lease = lease

    async def send(self, method: str, path: str, body: bytes = b"") -> LinkReply:
        """Ask the runner."""
        return await self._worker.ask_runner(self._lease, method, path, body)


def _line(told: Mapping[str, Any]) -> bytes:
    return orjson.dumps(told) + b"\n"
