"""Existing servers as workers: what all kinds of them have in common.

Such a server is asked from time to time how it is; between two answers, and when a request could
not be answered, it is taken for what was last seen. It arbitrates by itself: what is sent to it and
has no slot waits there.

Source: spec inference-and-gguf 3.2, 3.3.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import structlog

from registry.adapters.worker_http import Site, SiteWire
from registry.core.errors import RegistryError, Unavailable
from registry.ports.workers import Loaded, LoadSpec, WorkerFacts

_POLL_S = 5.0
_POLL_LIMIT_S = 10.0
_SEEN = 1_000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class External:
    """An existing server. `slots` are requests it serves at once per model, 0 if it should tell.

    `models` maps our models' full names to its own ids; "*" stands for all it lists. `library` is
    our own URL as that server reaches it.
    """

    name: str
    site: Site
    slots: int = 0
    labels: frozenset[str] = frozenset()
    models: Mapping[str, str] = field(default_factory=dict)
    library: str = ""


class Polled:
    """Facts kept up to date by asking, and a count of what we have sent there."""

    def __init__(self, external: External, changed: Callable[[], None] = lambda: None) -> None:
        self.external = external
        self.wire = SiteWire(external.site, self._suspect)
        self._asking = SiteWire(external.site, stall_s=_POLL_LIMIT_S)
        self._changed = changed
        self._known = WorkerFacts(labels=external.labels, reachable=False)
        self._seen: OrderedDict[str, Loaded] = OrderedDict()
        self._poller: asyncio.Task[None] | None = None
        self._soon = asyncio.Event()

    @property
    def name(self) -> str:
        """The worker's name."""
        return self.external.name

    def facts(self) -> WorkerFacts:
        """What was last seen, with what was sent since."""
        return replace(self._known, loaded=tuple(self._loaded()))

    def start(self) -> None:
        """Begin to ask."""
        self._poller = asyncio.get_running_loop().create_task(self._poll())

    async def close(self) -> None:
        """Stop asking, drop all connections."""
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller
        await self.wire.close()
        await self._asking.close()

    async def look(self) -> None:
        """Ask once."""
        was = self._known.reachable
        try:
            async with asyncio.timeout(_POLL_LIMIT_S):
                self._known = await self._asked(self._asking)
        except (RegistryError, TimeoutError) as error:
            self._known = replace(self._known, reachable=False)
            if was:
                log.warning("a worker does not answer", worker=self.name, error=str(error))
        else:
            if not was:
                log.info("a worker answers", worker=self.name, engine=self._known.engine)
        self._changed()

    async def _asked(self, wire: SiteWire) -> WorkerFacts:
        """What the server says of itself."""
        raise NotImplementedError

    def _loaded(self) -> list[Loaded]:
        """What is loaded there as far as we know."""
        return list(self._seen.values())

    def _enter(self, key: str, spec: LoadSpec, slots: int) -> None:
        """Count a request to a runner.

        Raises:
            Unavailable: the server did not answer when it was last asked.
        """
        if not self._known.reachable:
            raise Unavailable(f"the worker {self.name} does not answer", 5)
        known = self._seen.get(key) or Loaded(
            key, spec.name, spec.manifest, spec.model.digest, num_ctx=spec.options.num_ctx
        )
        self._seen[key] = replace(known, slots=slots, busy=known.busy + 1)
        self._seen.move_to_end(key)
        idle = next(iter(self._seen))
        if len(self._seen) > _SEEN and not self._seen[idle].busy:
            del self._seen[idle]

    def _leave(self, key: str) -> None:
        """It is done."""
        known = self._seen.get(key)
        if known is not None:
            self._seen[key] = replace(known, busy=max(0, known.busy - 1))

    def _suspect(self) -> None:
        """A request could not be answered: nothing is sent there until it answers again."""
        self._known = replace(self._known, reachable=False)
        self._soon.set()

    async def _poll(self) -> None:
        while True:
            await self.look()
            self._soon.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._soon.wait(), _POLL_S)
                await asyncio.sleep(0.5)  # it has only just gone
