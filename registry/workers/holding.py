"""A runner as its worker holds it: slots that are taken in turn, and how long it stays.

Source: spec inference-and-gguf 4; ollama-api 17.2.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from registry.adapters.runner_wire import RunnerWire
from registry.core.errors import WorkerLost
from registry.ports.workers import Loaded, LoadSpec
from registry.workers.launch import slots_of
from registry.workers.processes import Child
from registry.workers.residency import Resident

_NS = 1_000_000_000


class Held:
    """A runner: being loaded, loaded, or gone. On one event loop.

    `idle` is called when its last lease is given back and its time is up.
    """

    def __init__(self, spec: LoadSpec, idle: Callable[["Held"], None]) -> None:
        self.spec = spec
        self.key = spec.key  # costs some microseconds to word
        self.child: Child | None = None
        self.wire: RunnerWire | None = None
        self.loading: asyncio.Task[None] | None = None
        self.pinned = False
        self.busy = 0
        self.gone = asyncio.Event()
        self.stopped = False
        """We have ended it, or are about to."""
        self.leaving = False
        """Others need its room: nobody new is let in."""
        self._visitors = 0
        self._slots = slots_of(spec.options)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._keep_alive_s: float | None = 0.0
        self._until: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle = idle
        self._loop = asyncio.get_running_loop()

    @property
    def size(self) -> int:
        """Bytes it holds, as the engine tells it; before that, as was estimated."""
        return (self.child.log.size if self.child else 0) or self.spec.memory

    @property
    def size_vram(self) -> int:
        """Bytes of those that are on a GPU."""
        return self.child.log.size_vram if self.child else 0

    @property
    def ready(self) -> bool:
        """Whether its model is loaded."""
        return self.child is not None and not self.gone.is_set()

    @property
    def in_use(self) -> bool:
        """Whether somebody has or awaits a slot, or it is loading."""
        return not self.ready or self.busy > 0 or self._visitors > 0

    async def visit(self) -> None:
        """Wait until it is loaded, and for a slot of it. Meanwhile it does not make room.

        Raises:
            WorkerFailed: it cannot be loaded.
            WorkerLost: the runner went away.
        """
        self._visitors += 1
        try:
            if not self.ready and self.loading is not None:
                await asyncio.shield(self.loading)
            await self._take()
        finally:
            self._visitors -= 1
            self._settle()

    async def _take(self) -> None:
        if self.gone.is_set():
            raise WorkerLost
        if self.busy < self._slots and not self._waiting:
            self.busy += 1
            return
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give()  # it was our turn just as we left
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def give(self, keep_alive_s: float | None = 0.0, *, used: bool = False) -> None:
        """Give a slot back; where it was `used`, the runner stays for `keep_alive_s` from now."""
        if used:
            self._keep_alive_s = keep_alive_s
        self.busy -= 1
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self.busy += 1
                turn.set_result(None)
                return
        self._settle()

    def let_go(self) -> None:
        """Do not stay: unload as soon as nobody uses it, or those for whom it is being loaded."""
        self.leaving = self.leaving or not self.ready
        self._keep_alive_s = 0.0
        self._settle()

    def lost(self) -> None:
        """It is gone; whoever waits for a slot is told."""
        self.gone.set()
        self._stop_timer()
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(WorkerLost())

    def rest(self, keep_alive_s: float | None) -> None:
        """Loaded, and nobody took it: stay for so long."""
        self._keep_alive_s = keep_alive_s
        self._settle()

    def resident(self) -> Resident:
        """As `residency` wants it."""
        left = None if self._until is None else max(0.0, self._until - self._loop.time())
        if self.leaving:
            left = 0.0
        return Resident(self.key, self.size, self.in_use, self.pinned, left)

    def loaded(self, now_ns: int) -> Loaded:
        """As `WorkerFacts` wants it."""
        spec = self.spec
        return Loaded(
            self.key,
            spec.name,
            spec.manifest,
            spec.model.digest,
            size=self.size,
            size_vram=self.size_vram,
            num_ctx=spec.options.num_ctx,
            slots=self._slots,
            busy=self.busy,
            waiting=len(self._waiting),
            loading=not self.ready,
            expires_at=self._expires_at(now_ns),
        )

    def _expires_at(self, now_ns: int) -> int | None:
        if self._keep_alive_s is None:
            return None
        if self._until is None:
            return now_ns + int(self._keep_alive_s * _NS)
        return now_ns + int(max(0.0, self._until - self._loop.time()) * _NS)

    def _settle(self) -> None:
        """Nobody uses it: go now, or when the time is up."""
        self._stop_timer()
        if self.in_use:
            return  # also when it is gone
        if self.leaving or (self._keep_alive_s is not None and self._keep_alive_s <= 0):
            self._idle(self)
        elif self._keep_alive_s is not None:
            self._until = self._loop.time() + self._keep_alive_s
            self._timer = self._loop.call_later(self._keep_alive_s, self._idle, self)

    def _stop_timer(self) -> None:
        self._until = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
