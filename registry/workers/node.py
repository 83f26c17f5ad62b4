"""A node: a worker that runs models in child processes of this process.

Loading is one at a time; requests for models that are loaded pass meanwhile. What is idle makes
room for what is asked for; what is busy is let finish, and lets nobody new in. A runner that dies
is forgotten: its leases raise WorkerLost, and the next request loads it anew.

Source: spec inference-and-gguf 2, 4.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

import structlog

from registry.adapters.llama_http import LlamaRunning
from registry.core.digest import Digest
from registry.core.errors import CannotRun, Unavailable, WorkerFailed, WorkerLost
from registry.ports.workers import Crash, Dialect, LoadSpec, Running, Weights, WorkerFacts
from registry.settings import Worker as WorkerSettings
from registry.workers import machine
from registry.workers.engine import Engine
from registry.workers.holding import Held
from registry.workers.launch import Files
from registry.workers.processes import KILLS, LoadFailed
from registry.workers.residency import Budget, Resident, Verdict, drainable, evictable, make_room
from registry.workers.starting import Starter

BUSY = "server busy, please try again.  maximum pending requests exceeded"
_SHARE = 0.9
_MEMORY_FOR_S = 1.0
_CROWDED_RETRY_S = 30
_TRIES = 3
_DRAIN_S = 600.0
_TELLING_BYTES = 1 << 20
"""Smaller models tell nothing of the speed of loading."""

log = structlog.get_logger()

Fetch = Callable[[Weights], Awaitable[Path]]
"""Where a blob lies on this machine, fetched if it does not; raises WorkerFailed, Unavailable."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What a node is told. `cached` tells which blobs are at hand, None that all of them are.

    `changed` is called when it may take somebody it would not have taken before, `crashed` when a
    model has taken its runner down.
    """

    name: str
    settings: WorkerSettings
    engine: Engine
    fetch: Fetch
    cached: Callable[[], frozenset[Digest]] | None = None
    labels: frozenset[str] = frozenset()
    clock: Callable[[], int] = time.time_ns
    changed: Callable[[], None] = lambda: None
    crashed: Callable[[Crash], None] = lambda crash: None


class _StoppedAtLoad(WorkerLost):
    """Somebody stopped a runner that had not got ready; another one may."""


class Node:
    """A `Worker` on one event loop; `close` ends its runners."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._starter = Starter(config.settings, config.engine, self._break)
        self._held: dict[str, Held] = {}
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._draining = False
        self._memory = machine.Memory(0, 0)
        self._memory_at = -_MEMORY_FOR_S
        self._vram: int | None = None
        self._looking: asyncio.Task[None] | None = None
        self._load_bytes_per_s = 0

    @property
    def name(self) -> str:
        """Its name."""
        return self._config.name

    @property
    def dialect(self) -> Dialect:
        """That of llama-server, which every runner is."""
        return Dialect.LLAMA

    def facts(self) -> WorkerFacts:
        """What it runs and what room is left."""
        config, now = self._config, self._config.clock()
        if self._looking is None:
            self._looking = self._task(self._look_for_devices())
        held = sum(item.size for item in self._held.values())
        return WorkerFacts(
            engine=config.engine.name,
            version=config.engine.version,
            memory_total=self._limit() if self._knows_limit else 0,
            memory_free=max(0, self._budget().memory - held),
            labels=config.labels,
            loaded=tuple(item.loaded(now) for item in self._held.values()),
            cached=config.cached() if config.cached else frozenset(),
            draining=self._draining,
            load_bytes_per_s=self._load_bytes_per_s,
            has_all=config.cached is None,
        )

    async def acquire(self, spec: LoadSpec) -> Running:
        """A slot of a runner of the spec; see the port."""
        if self._config.engine.problem:
            raise CannotRun(self._config.engine.problem)
        if self._waiting >= self._config.settings.max_queue:
            raise Unavailable(BUSY)
        self._waiting += 1
        began = time.monotonic_ns()
        try:
            held, loaded = await self._slot(spec)
        finally:
            self._waiting -= 1
        held.pinned = spec.pinned
        load_ns = time.monotonic_ns() - began if loaded else 0
        assert held.wire is not None

        async def give_back(keep_alive_s: float | None) -> None:
            held.give(keep_alive_s, used=True)
            self._note()

        return LlamaRunning(held.wire, self.name, load_ns, give_back)

    async def unload(self, model: Digest) -> None:
        """Let go of every runner of these weights, once idle; of idle ones, now."""
        for held in list(self._held.values()):
            if held.spec.model.digest == model:
                held.pinned = False
                held.let_go()
        await self._settled()

    async def drain(self) -> None:
        """Take nothing new, let what runs end, for ten minutes at most; then `close`."""
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                while any(held.busy or held.in_use for held in self._held.values()):
                    self._changed.clear()
                    await self._changed.wait()
        await self.close()

    async def close(self) -> None:
        """End every runner; leases that are out raise WorkerLost."""
        self._draining = True
        for task in list(self._tasks):
            task.cancel()
        for held in list(self._held.values()):
            self._dismiss(held)
        await self._settled()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._starter.close()

    # --- slots

    async def _slot(self, spec: LoadSpec) -> tuple[Held, bool]:
        """A taken slot, and whether the model was loaded for it."""
        loaded, key, lost = False, spec.key, WorkerLost()
        for _ in range(_TRIES):
            if self._draining:
                raise Unavailable("this worker is shutting down")
            held = self._held.get(key)
            while held is not None and held.leaving:
                await held.gone.wait()
                held = self._held.get(key)
            if held is None:
                held = self._held[key] = Held(spec, self._dismiss)
                held.pinned = spec.pinned
                held.loading = self._task(self._load(held))
            loaded = loaded or not held.ready
            try:
                await held.visit()
            except WorkerLost as error:
                lost = error
                continue
            return held, loaded
        if isinstance(lost, _StoppedAtLoad):  # so often: it will be no different the next time
            raise CannotRun(str(lost)) from lost
        raise lost

    # --- loading

    async def _load(self, held: Held) -> None:
        """Get everything ready, and never leave a runner behind that is not."""
        try:
            files = await self._files(held.spec)
            async with self._turn:
                await self._look_for_devices()
                await self._start(held, files)
        except BaseException:
            self._forget(held)
            raise
        self._watch(held)
        held.rest(self._config.settings.keep_alive_s)
        self._note()

    async def _files(self, spec: LoadSpec) -> Files:
        fetch = self._config.fetch
        model = await fetch(spec.model)
        adapters = [str(await fetch(item)) for item in spec.adapters]
        projectors = [str(await fetch(item)) for item in spec.projectors[:1]]
        return Files(str(model), tuple(adapters), "".join(projectors), spec.model.size)

    async def _start(self, held: Held, files: Files) -> None:
        """Make room and start; once more with all the room there is if memory ran out.

        Raises:
            CannotRun: the engine refuses, or it is too large.
            WorkerLost: somebody stopped the runner meanwhile.
        """
        await self._make_room(held)
        began = time.monotonic()
        try:
            try:
                await self._starter.start(held, files)
            except LoadFailed as error:
                if not (error.no_memory and await self._evict_all()):
                    raise
                log.info("out of memory while loading: once more with all of it")
                await self._starter.start(held, files)
        except LoadFailed as error:
            log.warning("a model cannot be loaded", model=str(held.spec.name), reason=str(error))
            if error.killed:
                raise _StoppedAtLoad(f"error loading model: {error}") from error
            raise CannotRun(f"error loading model: {error}") from error
        size = sum(blob.size for blob in held.spec.blobs)
        if size >= _TELLING_BYTES:
            self._load_bytes_per_s = int(size / max(0.001, time.monotonic() - began))
        log.info(
            "model loaded",
            model=str(held.spec.name),
            seconds=round(time.monotonic() - began, 3),
            bytes=held.size,
        )

    async def _make_room(self, held: Held) -> None:
        need = held.spec.memory
        while True:
            await self._settled()
            self._changed.clear()
            residents = self._residents()
            plan = make_room(residents, need, self._budget())
            if plan.verdict is Verdict.NEVER:
                raise self._too_large(need)
            for key in plan.evict:
                self._dismiss(self._held[key])
            if plan.verdict is Verdict.NOW:
                await self._settled()
                return
            for key in drainable(residents, need, self._budget()):
                self._held[key].leaving = True  # whoever comes now waits behind this load
            await self._changed.wait()

    def _residents(self) -> list[Resident]:
        """What is in memory: others that are to be loaded stand behind this load."""
        return [item.resident() for item in self._held.values() if item.ready]

    async def _evict_all(self) -> bool:
        """Let everything go that can; whether there was anything."""
        keys = evictable(self._residents())
        for key in keys:
            self._dismiss(self._held[key])
        await self._settled()
        return bool(keys)

    # --- endings

    def _watch(self, held: Held) -> None:
        """Forget it when its process ends, whatever the reason."""

        async def watch() -> None:
            assert held.child is not None
            code = await held.child.wait()
            self._forget(held)
            if held.stopped:
                return
            name, reason = held.spec.name, held.child.log.reason
            log.warning("a runner ended unexpectedly", model=str(name), code=code, reason=reason)
            if code not in KILLS:
                why = reason or "the engine crashed"
                self._config.crashed(Crash(held.spec.model.digest, name.short, why))

        self._task(watch())

    def _break(self, held: Held) -> None:
        """Nobody gets a lease on what is dead or hangs, though its process be not buried yet."""
        if held.child is not None and not held.stopped:
            self._forget(held)
            held.child.kill()

    def _dismiss(self, held: Held) -> None:
        """End a runner, busy or not."""
        held.stopped = True
        self._forget(held)
        if held.child is not None:
            task = asyncio.create_task(self._starter.stop(held))
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    def _forget(self, held: Held) -> None:
        if self._held.get(held.key) is held:
            del self._held[held.key]
        held.lost()
        self._note()

    def _note(self) -> None:
        self._changed.set()
        self._config.changed()

    async def _settled(self) -> None:
        """Wait until all that is being stopped has stopped, and its memory is back."""
        while self._stopping:
            await asyncio.wait(set(self._stopping))

    # --- means

    async def _look_for_devices(self) -> None:
        """Until it is known what there is, nobody is told that a model is too large."""
        devices = await self._starter.accelerators()
        if self._vram is None:
            self._vram = sum(device.memory_free for device in devices)
            self._note()

    @property
    def _knows_limit(self) -> bool:
        return self._vram is not None or self._config.settings.memory_bytes > 0

    def _limit(self) -> int:
        """Bytes that models may take in all."""
        return self._config.settings.memory_bytes or int(
            (self._machine().total + (self._vram or 0)) * _SHARE
        )

    def _budget(self) -> Budget:
        """What there is for models now: what others of this machine hold is not there.

        Memory of accelerators counts as it was found at the beginning.
        """
        ready = [item for item in self._held.values() if item.ready]
        ours = sum(item.size - item.size_vram for item in ready)
        memory = min(self._limit(), self._machine().free + ours + (self._vram or 0))
        return Budget(memory, self._config.settings.max_loaded)

    def _machine(self) -> machine.Memory:
        now = time.monotonic()
        if now - self._memory_at >= _MEMORY_FOR_S:
            self._memory, self._memory_at = machine.memory(), now
        return self._memory

    def _too_large(self, need: int) -> WorkerFailed | Unavailable:
        if need > self._limit():
            return CannotRun(
                f"model requires more system memory ({_gib(need)}) "
                f"than is available ({_gib(self._limit())})"
            )
        free = self._budget().memory
        return Unavailable(
            f"model requires more system memory ({_gib(need)}) than others leave ({_gib(free)})",
            _CROWDED_RETRY_S,
        )

    def _task(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits for it gets it; perhaps nobody does any more


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
