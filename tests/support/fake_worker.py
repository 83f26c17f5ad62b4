"""A worker that plays scripts: it has slots and a queue, loads, streams, fails and dies as told."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from registry.core.digest import Digest
from registry.core.errors import RegistryError, Unavailable, WorkerLost
from registry.core.names import ModelName
from registry.ports.workers import (
    Dialect,
    Embedded,
    Loaded,
    LoadSpec,
    Piece,
    RunnerOptions,
    Running,
    Stop,
    Timings,
    Weights,
    Worker,
    WorkerFacts,
)

MODEL = Weights(Digest.of(b"weights"), 7)
HELLO = (
    Piece("Hel"),
    Piece("lo"),
    Piece(tokens=(3, 4), stop=Stop(timings=Timings(5, 10.0, 2, 20.0))),
)


def spec_of(name: str = "tiny", *, options: RunnerOptions | None = None) -> LoadSpec:
    """A model of that name; other names have other weights."""
    weights = Weights(Digest.of(name.encode()), 1000)
    manifest = Digest.of(f"manifest of {name}".encode())
    return LoadSpec(
        ModelName.parse(name),
        manifest,
        weights,
        options=options or RunnerOptions(),
        architecture="llama",
        memory=1000,
    )


@dataclass
class Script:
    """What the worker does. `frames` are what `native` answers.

    `load_s` is how long a model takes to load, `pause_s` passes before each piece. `dies_at` is
    the piece, counted from 0, in whose place the worker dies; `refusal` is raised by `acquire`,
    `complaint` by every request to a runner.
    """

    pieces: Sequence[Piece] = HELLO
    frames: Sequence[Mapping[str, Any]] = ()
    load_s: float = 0.0
    pause_s: float = 0.0
    dies_at: int | None = None
    refusal: RegistryError | None = None
    complaint: RegistryError | None = None


@dataclass
class Lease:
    """What was asked of a lease, and how it was given back."""

    spec: LoadSpec
    asked: list[tuple[str, Any]] = field(default_factory=list)
    released: list[float | None] = field(default_factory=list)


class FakeWorker(Worker):
    """A worker in this process; `die` and `revive` are its power switch.

    Every model gets `slots` slots. `leases` has all that were given, in order.
    """

    def __init__(
        self,
        name: str = "fake",
        script: Script | None = None,
        *,
        dialect: Dialect = Dialect.LLAMA,
        slots: int = 1,
        memory: int = 1 << 34,
    ) -> None:
        self._name = name
        self._dialect = dialect
        self._slots = slots
        self._memory = memory
        self._facts = WorkerFacts("fake", "1", memory)
        self._free: dict[str, asyncio.Semaphore] = {}
        self._loaded: dict[str, Loaded] = {}
        self._dead = asyncio.Event()
        self.script = script or Script()
        self.leases: list[Lease] = []
        self.acquires = 0
        self.unloaded: list[Digest] = []
        self.closed = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def dialect(self) -> Dialect:
        return self._dialect

    def facts(self) -> WorkerFacts:
        loaded = tuple(self._loaded.values())
        free = self._memory - sum(item.size for item in loaded)
        return replace(self._facts, loaded=loaded, memory_free=free)

    def change(self, **values: Any) -> None:
        """Set some of its facts."""
        self._facts = replace(self._facts, **values)

    def die(self) -> None:
        """Lose everything at once, leases too."""
        self._dead.set()
        self._loaded.clear()
        self._free.clear()

    def revive(self) -> None:
        """Come back with nothing loaded."""
        self._dead = asyncio.Event()

    async def acquire(self, spec: LoadSpec) -> Running:
        self.acquires += 1
        self._check()
        if self.script.refusal is not None:
            raise self.script.refusal
        key = spec.key
        if key in self._loaded:
            self._count(key, waiting=1)
        else:
            await self._load(spec)
        try:
            while (found := self._loaded.get(key)) and found.loading:
                await self._alive(asyncio.sleep(0.001))
            if found is None:  # whoever loaded it went away
                return await self.acquire(spec)
            free = self._free[key]
            await self._alive(free.acquire())
        finally:
            self._count(key, waiting=-1)
        self._count(key, busy=1)
        lease = Lease(spec)
        self.leases.append(lease)
        return FakeRunning(self, lease, free)

    async def unload(self, model: Digest) -> None:
        self.unloaded.append(model)
        self._loaded = {key: item for key, item in self._loaded.items() if item.model != model}

    async def close(self) -> None:
        self.closed = True

    async def _load(self, spec: LoadSpec) -> None:
        key = spec.key
        self._make_room(spec.memory)
        self._free[key] = asyncio.Semaphore(self._slots)
        self._loaded[key] = Loaded(
            key,
            spec.name,
            spec.manifest,
            spec.model.digest,
            size=spec.memory,
            num_ctx=spec.options.num_ctx,
            slots=self._slots,
            waiting=1,
            loading=True,
        )
        try:
            await self._alive(asyncio.sleep(self.script.load_s))
        except BaseException:
            self._loaded.pop(key, None)
            raise
        if key in self._loaded:
            self._loaded[key] = replace(self._loaded[key], loading=False)

    def _make_room(self, memory: int) -> None:
        """Evict what is idle, in the order it was loaded."""
        for key, item in list(self._loaded.items()):
            if self.facts().memory_free < memory and not (
                item.busy or item.waiting or item.loading
            ):
                del self._loaded[key]
        if self.facts().memory_free < memory:
            raise Unavailable("no memory to be had", 1)

    async def _alive(self, work: Any) -> None:
        """Do it, unless the worker dies first."""
        doing = asyncio.ensure_future(work)
        dying = asyncio.ensure_future(self._dead.wait())
        try:
            await asyncio.wait({doing, dying}, return_when=asyncio.FIRST_COMPLETED)
            self._check()
        finally:
            dying.cancel()
            doing.cancel()

    def _check(self) -> None:
        if self._dead.is_set():
            raise WorkerLost

    def _count(self, key: str, busy: int = 0, waiting: int = 0) -> None:
        known = self._loaded.get(key)
        if known is not None:
            self._loaded[key] = replace(
                known, busy=known.busy + busy, waiting=known.waiting + waiting
            )


class FakeRunning(Running):
    """A lease on a fake worker."""

    def __init__(self, owner: FakeWorker, lease: Lease, slot: asyncio.Semaphore) -> None:
        self._owner = owner
        self._lease = lease
        self._slot = slot

    @property
    def dialect(self) -> Dialect:
        return self._owner.dialect

    @property
    def worker(self) -> str:
        return self._owner.name

    @property
    def load_ns(self) -> int:
        return 1_000_000

    async def complete(self, body: Mapping[str, Any]) -> AsyncIterator[Piece]:
        await self._asked("complete", body)
        async for piece in self._play(self._owner.script.pieces):
            yield piece

    async def chat(self, body: Mapping[str, Any]) -> AsyncIterator[Piece]:
        await self._asked("chat", body)
        async for piece in self._play(self._owner.script.pieces):
            yield piece

    async def native(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
        await self._asked(path, body)
        async for frame in self._play(self._owner.script.frames):
            yield frame

    async def embed(self, texts: Sequence[str], *, normalize: bool = True) -> Embedded:
        """Two numbers: of unit length, or the text's length in their place."""
        await self._asked("embed", list(texts))
        one = [[0.6, 0.8] if normalize else [float(len(text)), 0.0] for text in texts]
        return Embedded(one, sum(len(text.split()) for text in texts))

    async def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Code points; the beginning is marked by token 1."""
        await self._asked("tokenize", text)
        return [*([1] if special else []), *map(ord, text)]

    async def detokenize(self, tokens: Sequence[int]) -> str:
        await self._asked("detokenize", list(tokens))
        return "".join(chr(token) for token in tokens if token != 1)

    async def apply_template(self, body: Mapping[str, Any]) -> str:
        await self._asked("apply_template", body)
        return "".join(f"<{item['role']}>{item['content']}" for item in body["messages"])

    async def release(self, keep_alive_s: float | None) -> None:
        self._lease.released.append(keep_alive_s)
        self._owner._count(self._lease.spec.key, busy=-1)
        self._slot.release()

    async def _asked(self, what: str, body: Any) -> None:
        self._lease.asked.append((what, body))
        self._owner._check()
        if self._owner.script.complaint is not None:
            raise self._owner.script.complaint

    async def _play(self, items: Sequence[Any]) -> AsyncIterator[Any]:
        script = self._owner.script
        for position, item in enumerate(items):
            if position == script.dies_at:
                self._owner.die()
            await self._owner._alive(asyncio.sleep(script.pause_s))
            yield item
