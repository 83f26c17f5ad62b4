"""Which existing servers are workers, and what is decided for models: as the catalog has it.

Works whether or not a server runs; a running one takes changes up within seconds (`muster.py`).
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from registry.core.errors import Conflict, ModelUnknown, NotFound, RequestInvalid
from registry.core.fleet import KINDS, check_labels, check_server_url, check_worker_name
from registry.core.names import ModelName
from registry.core.placement import Placement
from registry.ports.catalog import Catalog, Reader, Transaction
from registry.ports.fleet import Enlisted, NewWorker
from registry.services.inference.worker_keys import forget, is_enrolled

LOCAL = "local"
DEAD_S = 50.0
"""A process that showed no sign of life for so long is gone."""
_NS = 1_000_000_000
_WORKERS_MAX = 1_000
_MODELS_MAX = 1_000
_KEY_MAX = 4_096
_ID_MAX = 500
_SLOTS_MAX = 4_096
_ALL = "*"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Sighting:
    """A worker as one process that serves this library last saw it; `state` as it told."""

    replica: str
    age_s: float
    state: Mapping[str, Any]


class Fleet:
    """Rows of workers and placements."""

    def __init__(self, catalog: Catalog, clock: Callable[[], int]) -> None:
        self._catalog = catalog
        self._clock = clock

    async def workers(self) -> list[Enlisted]:
        """Existing servers that are workers, by name."""
        return await self._catalog.read(lambda tx: tx.workers())

    async def add(self, wish: NewWorker) -> Enlisted:
        """Make an existing server a worker.

        Raises:
            RequestInvalid: the wish cannot be fulfilled.
            Conflict: there is a worker of that name, or there are very many.
        """
        made = self._checked(wish)

        def work(tx: Transaction) -> None:
            known = {row.name for row in tx.workers()}
            if made.name in known or made.name == LOCAL or is_enrolled(tx, made.name):
                raise Conflict(f"there is a worker {made.name} already")
            if len(known) >= _WORKERS_MAX:
                raise Conflict("there are too many workers")
            tx.put_worker(made)

        await self._catalog.write(work)
        return made

    async def remove(self, name: str) -> None:
        """Make a server a worker no longer, or an enrolled worker.

        What runs on a server for us goes on; an enrolled worker's link ends within seconds.

        Raises:
            NotFound: there is no such worker.
        """
        key, now = name.lower(), self._clock()

        def work(tx: Transaction) -> bool:
            tx.drain(key, drained=False)  # one that takes the name later begins anew
            return tx.delete_worker(key) or forget(tx, key, now)

        if not await self._catalog.write(work):
            raise _no_worker(name)

    async def drain(self, name: str, *, drained: bool = True) -> None:
        """Send nothing new to a worker of any kind, or something again.

        Raises:
            NotFound: there is no such worker.
        """
        key = name.lower()

        def work(tx: Transaction) -> None:
            row = next((row for row in tx.workers() if row.name == key), None)
            if row is not None:
                tx.put_worker(replace(row, drained=drained))
            elif key == LOCAL or is_enrolled(tx, key):
                tx.drain(key, drained=drained)
            else:
                raise _no_worker(name)

        await self._catalog.write(work)

    async def drained(self) -> frozenset[str]:
        """Workers of all kinds that get nothing new."""

        def work(tx: Reader) -> frozenset[str]:
            return tx.drained() | {row.name for row in tx.workers() if row.drained}

        return await self._catalog.read(work)

    async def seen(self) -> list[Sighting]:
        """What living processes last saw of workers, by name."""
        now = self._clock()
        found = []
        for row in await self._catalog.read(lambda tx: tx.replicas()):
            age_s = (now - row.seen_at) / _NS
            if abs(age_s) < DEAD_S:
                found += [Sighting(row.id, age_s, state) for state in json.loads(row.workers)]
        return sorted(found, key=lambda item: (str(item.state.get("name")), item.replica))

    async def placements(self) -> list[tuple[ModelName, Placement]]:
        """What is decided for models, by name."""
        return await self._catalog.read(lambda tx: tx.placements())

    async def place(self, name: ModelName, labels: tuple[str, ...]) -> Placement:
        """Let a model run only on workers that have all these labels; none: anywhere.

        Raises:
            ModelUnknown: there is no such model.
            RequestInvalid: a label that is no word.
        """
        checked = check_labels(labels)
        return await self._decide(name, lambda old: replace(old, labels=checked))

    async def pin(self, name: ModelName, *, pinned: bool = True) -> Placement:
        """Keep a model loaded, or no longer.

        Raises:
            ModelUnknown: there is no such model.
        """
        return await self._decide(name, lambda old: replace(old, pinned=pinned))

    async def _decide(self, name: ModelName, change: Callable[[Placement], Placement]) -> Placement:
        def work(tx: Transaction) -> Placement:
            known = {str(one).lower(): placement for one, placement in tx.placements()}
            old = known.get(str(name).lower(), Placement())
            new = change(old)
            if new != Placement() and tx.find_model(name) is None:
                raise ModelUnknown(f"model '{name.short}' not found")
            tx.put_placement(name, new)
            return new

        return await self._catalog.write(work)

    def _checked(self, wish: NewWorker) -> Enlisted:
        if wish.kind not in KINDS:
            raise RequestInvalid(f"a worker's kind is one of {', '.join(KINDS)}")
        if not 0 <= wish.slots <= _SLOTS_MAX:
            raise RequestInvalid(f"a worker has 0 to {_SLOTS_MAX} slots per model")
        if len(wish.key) > _KEY_MAX or not wish.key.isascii() or not wish.key.isprintable():
            raise RequestInvalid("the key must be of printable ASCII characters")
        return Enlisted(
            name=check_worker_name(wish.name),
            kind=wish.kind,
            url=check_server_url(wish.url),
            created_at=self._clock(),
            labels=check_labels(wish.labels),
            models=_mapped(wish),
            slots=wish.slots,
            key=wish.key,
        )


def _mapped(wish: NewWorker) -> dict[str, str]:
    """The map of models with full names; without one, all that the server lists."""
    if wish.kind == "ollama":
        if wish.models:
            raise RequestInvalid("an Ollama server gets any model: it takes no map of them")
        return {}
    if len(wish.models) > _MODELS_MAX:
        raise RequestInvalid("too many models in the map")
    found = {}
    for ours, theirs in (wish.models or {_ALL: _ALL}).items():
        if not 0 < len(theirs) <= _ID_MAX or _CONTROL.search(theirs):
            raise RequestInvalid("the server's name of a model must be 1 to 500 characters")
        found[ours if ours == _ALL else str(ModelName.checked(ours)).lower()] = theirs
    return found


def _no_worker(name: str) -> NotFound:
    return NotFound(f"there is no worker {name[:80]!r}")
