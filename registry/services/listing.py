"""The list of models as bytes, kept ready: what `/api/tags` sends, with its ETag.

One JSON fragment per model is kept, newest first. Any committed write of any process changes
`catalog.version()`; the changes since the last look then tell which fragments to make anew, so a
change costs what changed and not what is there.
"""

import asyncio
import hashlib
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass

from registry.core.card import list_entry
from registry.core.names import ModelName
from registry.ports.catalog import Catalog, Model, ModelChange, Reader

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Listed:
    """A model in the list."""

    name: ModelName
    updated_at: int
    entry: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """The whole list: `{"models":[…]}` and the ETag of these bytes."""

    content: bytes
    etag: str


_Key = tuple[int, str]  # minus whole seconds, short name: the list's order


class Listing:
    """The list and its upkeep. `when` words a time in nanoseconds as the API does."""

    def __init__(self, catalog: Catalog, when: Callable[[int], str]) -> None:
        self._catalog = catalog
        self._when = when
        self._lock = asyncio.Lock()
        self._version = -1
        self._change = -1
        self._order: list[_Key] = []
        self._models: dict[str, Listed] = {}  # by short name in lower case
        self._body: Body | None = None

    async def body(self) -> Body:
        """The answer of `/api/tags`."""
        async with self._lock:
            await self._refresh()
            if self._body is None:
                entries = [self._models[name.lower()].entry for _, name in self._order]
                content = b'{"models":[' + b",".join(entries) + b"]}"
                self._body = Body(content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
            return self._body

    async def models(self) -> list[Listed]:
        """The models in the list's order."""
        async with self._lock:
            await self._refresh()
            return [self._models[name.lower()] for _, name in self._order]

    async def _refresh(self) -> None:
        version = self._catalog.version()
        if version == self._version:
            return
        if self._change < 0:
            await self._load()
        else:
            await self._follow()
        self._version = version  # taken before the read: what came later shows at the next look

    async def _load(self) -> None:
        def work(tx: Reader) -> tuple[int, list[Model]]:
            return tx.last_change(), tx.models()

        change, models = await self._catalog.scan(work)
        made = await asyncio.to_thread(lambda: [self._listed(model) for model in models])
        self._models = {item.name.short.lower(): item for item in made}
        self._order = sorted(_key(item) for item in made)
        self._change, self._body = change, None

    async def _follow(self) -> None:
        """Take over what was changed since the last look."""

        def work(tx: Reader) -> tuple[int, list[ModelChange]]:
            return tx.last_change(), tx.model_changes(self._change)

        change, changes = await self._catalog.read(work)
        for item in changes:
            self._replace(item.name, self._listed(item.model) if item.model else None)
        if change != self._change:
            self._change, self._body = change, None

    def _replace(self, name: ModelName, new: Listed | None) -> None:
        old = self._models.pop(name.short.lower(), None)
        if old is not None:
            del self._order[bisect_left(self._order, _key(old))]
        if new is not None:
            self._models[new.name.short.lower()] = new
            insort(self._order, _key(new))

    def _listed(self, model: Model) -> Listed:
        name, updated = model.tag.model, model.tag.updated_at
        return Listed(name, updated, list_entry(name.short, self._when(updated), model.card))


def _key(item: Listed) -> _Key:
    return -(item.updated_at // _NS), item.name.short
