"""A library that takes workers and a worker linked to it, over real HTTP in the test's loop.

The node is a stand-in: its runner says what a test writes down, as llama-server would.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from starlette.applications import Starlette

from registry.adapters.llama_http import LlamaRunning
from registry.adapters.workers_remote import RemoteWorkers, Watch
from registry.core.digest import Digest
from registry.core.errors import RegistryError
from registry.ports.workers import Crash, Dialect, Loaded, LoadSpec, Running, Worker, WorkerFacts
from registry.services.inference.replicas import Replicas
from registry.services.inference.routing import Router
from registry.services.inference.worker_keys import WorkerKeys
from registry.settings import Limits, Settings
from registry.web import errors, worker_link
from registry.workers.agent import Agent
from registry.workers.cache import BlobCache
from registry.workers.library import Library
from registry.workers.transfer import Source
from tests.support.library import Library as Models
from tests.support.library import library
from tests.support.serving import serving


def said(*texts: str) -> list[bytes]:
    """What a runner sends for a completion of these pieces."""
    events = [{"content": text, "stop": False} for text in texts]
    end = {"content": "", "stop": True, "stop_type": "eos", "timings": {}}
    return [b"data: " + json.dumps(event).encode() + b"\n\n" for event in (*events, end)]


@dataclass
class Script:
    """What the runner answers: chunks, seconds to wait, an error that breaks it off."""

    steps: Sequence[bytes | float | RegistryError] = field(default_factory=lambda: said("Hello"))
    status: int = 200


class ScriptedReply:
    """`Reply` of a script; `sent` counts the chunks that were taken."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.status = script.status
        self.sent = 0
        self.closed = asyncio.Event()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for step in self._script.steps:
            if isinstance(step, RegistryError):
                raise step
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                self.sent += 1
                yield step

    async def read(self, limit: int) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])[:limit]

    async def close(self) -> None:
        self.closed.set()


class ScriptedNode(Worker):
    """A node of one runner. `refusal` is raised by `acquire`, which takes `load_s`."""

    def __init__(self) -> None:
        self.script = Script()
        self.refusal: RegistryError | None = None
        self.load_s = 0.0
        self.known = WorkerFacts("scripted", "1", 1 << 30, 1 << 29)
        self.specs: list[LoadSpec] = []
        self.asked: list[tuple[str, str, bytes]] = []
        self.replies: list[ScriptedReply] = []
        self.released: list[float | None] = []
        self.unloaded: list[Digest] = []

    @property
    def name(self) -> str:
        return "scripted"

    @property
    def dialect(self) -> Dialect:
        return Dialect.LLAMA

    def facts(self) -> WorkerFacts:
        return self.known

    async def acquire(self, spec: LoadSpec) -> Running:
        self.specs.append(spec)
        await asyncio.sleep(self.load_s)
        if self.refusal is not None:
            raise self.refusal
        loaded = Loaded(spec.key, spec.name, spec.manifest, spec.model.digest)
        self.known = replace(self.known, loaded=(loaded,))
        return LlamaRunning(self, self.name, 5, self._give_back)

    async def send(self, method: str, path: str, body: bytes = b"") -> ScriptedReply:
        """`Wire` of its runner."""
        self.asked.append((method, path, body))
        reply = ScriptedReply(self.script)
        self.replies.append(reply)
        return reply

    async def _give_back(self, keep_alive_s: float | None) -> None:
        self.released.append(keep_alive_s)

    async def unload(self, model: Digest) -> None:
        self.unloaded.append(model)

    async def close(self) -> None:
        pass


@dataclass
class Place:
    """Both ends. `workers` are those that came and have not gone."""

    lib: Models
    remotes: RemoteWorkers
    keys: WorkerKeys
    workers: dict[str, Worker]
    url: str
    folder: Path
    crashes: list[tuple[str, Crash]]
    services: SimpleNamespace
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    libraries: list[Library] = field(default_factory=list)

    async def enrol(self, name: str = "gpu") -> str:
        return await self.keys.enrol(await self.keys.make_token(60), name)

    def link(self, node: Worker, credential: str, session: str = "s1") -> Agent:
        """Start an agent for the node."""
        there = Library(self.url, session)
        there.sign(credential)
        self.libraries.append(there)
        agent = Agent(node, there, self.cache(there), 60.0)
        self.tasks.append(asyncio.create_task(agent.run()))
        return agent

    def cache(self, there: Library, **options: Any) -> BlobCache:
        """A worker's cache over that library."""
        source = Source(there.url, there.headers)
        cache = BlobCache(self.folder / "cache", source, frozenset, **options)
        cache.prepare()
        return cache

    async def worker(self, name: str = "gpu") -> Worker:
        """The worker, as soon as it has come."""
        async with asyncio.timeout(5):
            while name not in self.workers:
                await asyncio.sleep(0.005)
        return self.workers[name]

    async def gone(self, name: str = "gpu", within_s: float = 5) -> None:
        """Wait until it has gone."""
        async with asyncio.timeout(within_s):
            while name in self.workers:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def taking_workers(folder: Path, **times: Any) -> AsyncIterator[Place]:
    """A served library; `times` are `Watch`'s."""
    async with library(folder / "data") as lib:
        workers: dict[str, Worker] = {}

        def came(worker: Worker) -> None:
            workers[worker.name] = worker

        def left(name: str) -> None:
            workers.pop(name, None)

        crashes: list[tuple[str, Crash]] = []

        def crashed(worker: str, crash: Crash) -> None:
            crashes.append((worker, crash))

        remotes = RemoteWorkers(Watch(came, left, crashed, **times))
        keys = WorkerKeys(lib.catalog, lib.clock)
        app = Starlette(
            routes=list(worker_link.routes), exception_handlers={RegistryError: errors.answer}
        )
        app.state.services = SimpleNamespace(
            settings=Settings.load({}, data=folder),
            clock=lib.clock,
            catalog=lib.catalog,
            blobs=lib.blobs,
            links=remotes,
            worker_keys=keys,
            replicas=Replicas(lib.catalog, Router(), "", lib.clock),
        )
        async with serving(app, Limits()) as port:
            url = f"http://127.0.0.1:{port}"
            place = Place(lib, remotes, keys, workers, url, folder, crashes, app.state.services)
            try:
                yield place
            finally:
                for task in place.tasks:
                    task.cancel()
                await asyncio.gather(*place.tasks, return_exceptions=True)
                for name in list(workers):
                    remotes.dismiss(name)
                for there in place.libraries:
                    await there.close()


def answer_of(running: Running, body: Mapping[str, Any] | None = None) -> AsyncIterator[Any]:
    """Ask for a completion."""
    return running.complete(body or {"prompt": "hi"})
