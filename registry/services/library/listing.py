"""The list of models as bytes, kept ready: what `/api/tags` sends, with its ETag.

One JSON fragment per model is kept, newest first. Any committed write of any process changes
`catalog.version()`; the changes since the last look then tell which fragments to make anew, so a
change costs what changed and not what is there.

A list of more than `MOST_KEPT` models is not kept in memory: it is written into a scratch file page
by page, from one snapshot of the catalog, and sent from there until a model changes (ADR 0018).
"""

import asyncio
import gc
import hashlib
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from dataclasses import dataclass

from registry.core.card import list_entry
from registry.core.names import ModelName, RepositoryName, short_name
from registry.ports.catalog import Catalog, Model, ModelChange, Reader
from registry.ports.scratch import MakeScratch, Scratch

_NS = 1_000_000_000
MOST_KEPT = 20_000  # models; 30 MiB with their bodies. A team's library has hundreds
_MOST_WRITTEN = 8  # lists on the disk, of views and forms
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Listed:
    """A model in the list."""

    name: ModelName
    updated_at: int


@dataclass(frozen=True, slots=True)
class Body:
    """The whole list: `{"models":[…]}` and the ETag of these bytes."""

    content: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Written:
    """The same of a list too long for memory."""

    content: Scratch
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Form:
    """How a list is worded. `entry` makes an item of the short name, when it changed, its card."""

    head: bytes
    entry: Callable[[str, int, str], bytes]
    tail: bytes
    empty: bytes  # the whole of a list without items


@dataclass(frozen=True, slots=True)
class View:
    """What one caller may see. `who` stands for the caller with the rights of just now."""

    who: Hashable
    readable: Callable[[RepositoryName], bool]


_VIEWS = 64
_VIEWED_BYTES = 64 << 20
_Key = tuple[int, str]  # minus whole seconds, short name: the list's order
_Item = tuple[str, int, bytes]  # short name, updated_at, entry; plain, so that gc need not look


class Listing:
    """The list and its upkeep. `when` words a time in nanoseconds as the API does."""

    def __init__(self, catalog: Catalog, when: Callable[[int], str], scratch: MakeScratch) -> None:
        self._catalog = catalog
        self._when = when
        self._scratch = scratch
        self._tags = Form(b'{"models":[', self._entry, b"]}", b'{"models":[]}')
        self._lock = asyncio.Lock()
        self._version = -1
        self._change = -1
        self._order: list[_Key] = []
        self._models: dict[str, _Item] = {}  # by short name in lower case
        self._body: Body | None = None
        self._views: OrderedDict[Hashable, tuple[int, Body]] = OrderedDict()
        self._is_long = False
        self._written: OrderedDict[Hashable, tuple[int, Written]] = OrderedDict()

    async def written(self, view: View | None = None, form: Form | None = None) -> Written | None:
        """The answer of `/api/tags`, or that in another form, if the list is too long for `body`.

        Raises:
            StorageFull: there is no room for it on the disk.
        """
        chosen = form or self._tags
        key = chosen, view and view.who
        async with self._lock:
            await self._refresh()
            if not self._is_long:
                return None
            kept = self._written.pop(key, None)
            if kept is None or kept[0] < self._change:
                kept = await self._catalog.scan(lambda tx: self._write(tx, chosen, view))
            self._written[key] = kept
            while len(self._written) > _MOST_WRITTEN:
                self._written.popitem(last=False)
            return kept[1]

    async def body(self, view: View | None = None) -> Body:
        """The answer of `/api/tags`, or what a view leaves of it, in memory."""
        if view is not None:
            return await self._seen_by(view)
        async with self._lock:
            await self._refresh()
            if self._body is None:
                body = _body([entry for _, _, entry in await self._items()])
                if self._is_long:
                    return body
                self._body = body
            return self._body

    async def models(self, view: View | None = None) -> list[Listed]:
        """The models in the list's order, or those that a view leaves, in memory."""
        async with self._lock:
            await self._refresh()
            items = await self._items()
        listed = [Listed(ModelName.parse(short), updated) for short, updated, _ in items]
        if view is None:
            return listed
        return [item for item in listed if view.readable(item.name.repository)]

    async def _items(self) -> list[_Item]:
        """What the list has, in order. A long one is read for this: it became so just now."""
        if not self._is_long:
            return [self._models[name.lower()] for _, name in self._order]
        return sorted(await self._catalog.scan(lambda tx: tx.each_model(self._listed)), key=_key)

    async def _seen_by(self, view: View) -> Body:
        """The list for a view, kept while neither the list nor the view changes."""
        async with self._lock:
            await self._refresh()
            change = self._change
            kept = self._views.get(view.who)
            if kept is not None and kept[0] == change:
                self._views.move_to_end(view.who)
                return kept[1]
            items = await self._items()
        body = await asyncio.to_thread(_filtered, items, view)
        self._views[view.who] = (change, body)
        while len(self._views) > _VIEWS or (
            len(self._views) > 1 and self._viewed_bytes() > _VIEWED_BYTES
        ):
            self._views.popitem(last=False)
        return body

    def _viewed_bytes(self) -> int:
        return sum(len(body.content) for _, body in self._views.values())

    async def _refresh(self) -> None:
        version = self._catalog.version()
        if version == self._version:
            return
        if self._change < 0 or self._is_long:
            await self._load()
        else:
            await self._follow()
            if len(self._models) > MOST_KEPT:
                await self._load()
        self._version = version  # taken before the read: what came later shows at the next look

    async def _load(self) -> None:
        def work(tx: Reader) -> tuple[int, list[_Item] | None]:
            if tx.count_models(MOST_KEPT + 1) > MOST_KEPT:
                return tx.last_change(), None
            with _without_collection():
                return tx.last_change(), tx.each_model(self._listed)

        change, found = await self._catalog.scan(work)
        self._is_long = found is None
        items = found or []
        self._models = {item[0].lower(): item for item in items}
        self._order = sorted(map(_key, items))
        self._change, self._body = change, None
        if self._is_long:
            self._views.clear()
        else:
            self._written.clear()

    def _write(self, tx: Reader, form: Form, view: View | None) -> tuple[int, Written]:
        """Write the list into a file, as it is in the transaction's snapshot."""
        scratch, digest, size = self._scratch(), hashlib.sha256(), 0
        block = bytearray(form.head)
        separator, may_read = b"", _by_path(view)

        def flush() -> None:
            nonlocal size
            size += len(block)
            digest.update(block)
            scratch.write(bytes(block))
            block.clear()

        def take(path: str, tag: str, updated: int, card: str) -> None:
            nonlocal separator
            if not may_read(path):
                return
            block.extend(separator + form.entry(short_name(path, tag), updated, card))
            separator = b","
            if len(block) >= _BLOCK:
                flush()

        tx.hand_models(take)
        block[:] = block + form.tail if separator else form.empty
        flush()
        return tx.last_change(), Written(scratch, size, _etag(digest.hexdigest()))

    async def _follow(self) -> None:
        """Take over what was changed since the last look."""

        def work(tx: Reader) -> tuple[int, list[ModelChange]]:
            return tx.last_change(), tx.model_changes(self._change)

        change, changes = await self._catalog.read(work)
        for item in changes:
            self._replace(item.name, self._listed_model(item.model) if item.model else None)
        if change != self._change:
            self._change, self._body = change, None

    def _replace(self, name: ModelName, new: _Item | None) -> None:
        old = self._models.pop(name.short.lower(), None)
        if old is not None:
            del self._order[bisect_left(self._order, _key(old))]
        if new is not None:
            self._models[new[0].lower()] = new
            insort(self._order, _key(new))

    def _listed_model(self, model: Model) -> _Item:
        tag = model.tag
        return self._listed(tag.repository.name.path, tag.name, tag.updated_at, model.card)

    def _listed(self, path: str, tag: str, updated: int, card: str) -> _Item:
        short = short_name(path, tag)
        return short, updated, self._entry(short, updated, card)

    def _entry(self, short: str, updated: int, card: str) -> bytes:
        return list_entry(short, self._when(updated), card)


def _key(item: _Item) -> _Key:
    return -(item[1] // _NS), item[0]


@contextmanager
def _without_collection() -> Generator[None]:
    """No garbage collection meanwhile: it would look at each new item again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _filtered(items: list[_Item], view: View) -> Body:
    """The list of what a view leaves of the items; long lists take a while."""
    seen: dict[str, bool] = {}  # by the name without its tag
    entries = []
    for short, _, entry in items:
        path = short.rpartition(":")[0]
        if path not in seen:
            seen[path] = view.readable(ModelName.parse(short).repository)
        if seen[path]:
            entries.append(entry)
    return _body(entries)


def _body(entries: list[bytes]) -> Body:
    content = b'{"models":[' + b",".join(entries) + b"]}"
    return Body(content, _etag(hashlib.sha256(content).hexdigest()))


def _etag(digest: str) -> str:
    return f'"{digest[:32]}"'


def _by_path(view: View | None) -> Callable[[str], bool]:
    """Whether the view shows what is at a repository's path."""
    return lambda path: view is None or view.readable(RepositoryName(path))
