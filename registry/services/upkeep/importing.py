"""Import: models out of files that others made, taken in as if they had been pushed.

Each blob is hashed on its way in, whether it is copied or shared; each model appears whole or not
at all. One that cannot be taken leaves the others alone and is told of at the end.
"""

import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from anyio import CancelScope

from registry.core.digest import Digest
from registry.core.errors import (
    Conflict,
    NameInvalid,
    OperationFailed,
    RegistryError,
    SizeInvalid,
    TooLarge,
)
from registry.core.events import Done, Events, Status, Transfer
from registry.core.manifest import Descriptor, Index, Manifest
from registry.core.names import ModelName
from registry.ports.blobs import Incoming
from registry.ports.carriage import Offer, Source
from registry.ports.catalog import Freed, Transaction
from registry.services.library.blobs import Blobs
from registry.services.library.manifests import Manifests
from registry.services.library.preparation import Prepared, read_manifest

_HOLD_NS = 6 * 3_600 * 10**9
_TICK = 16 << 20
_DEPTH = 3
_MAX_BELOW = 64 << 20  # bytes of manifests


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be imported: these labels, or all; one of them under another name."""

    labels: tuple[str, ...] = ()
    rename: ModelName | None = None
    replace: bool = False


@dataclass(frozen=True, slots=True)
class _Found:
    """A manifest as bytes, and taken apart."""

    document: Manifest | Index
    media_type: str | None


class Import:
    """One import from a source."""

    def __init__(self, blobs: Blobs, manifests: Manifests, source: Source, limit: int) -> None:
        """Take models from `source`; `limit` is the largest blob in bytes."""
        self._blobs = blobs
        self._catalog = blobs.catalog
        self._store = blobs.store
        self._manifests = manifests
        self._source = source
        self._limit = limit
        self._holder = f"import:{secrets.token_hex(8)}"
        self._came: list[Digest] = []
        self.taken: list[str] = []

    async def run(self, wanted: Wanted) -> Events:
        """Take them in.

        Raises:
            OperationFailed: the source cannot be read, has not what is wanted, or some of it could
                not be taken: each was told of by then.
        """
        labels = _chosen(await self._source.labels(), wanted)
        faults: list[str] = []
        for label in labels:
            try:
                async with aclosing(self._take(label, wanted)) as events:
                    async for event in events:
                        yield event
            except RegistryError as error:
                faults.append(label)
                yield Status(f"left out {label}: {error}")
            finally:
                with CancelScope(shield=True):
                    await self._let_go()
        if faults:
            raise OperationFailed(f"{len(faults)} of {len(labels)} models could not be imported")
        yield Done()

    async def _let_go(self) -> None:
        """Give up the holds, and what came with a model that was not taken after all."""
        came, self._came = self._came, []

        def work(tx: Transaction) -> list[Freed]:
            tx.release(self._holder)
            return tx.free(came, self._blobs.clock())

        if await self._catalog.write(work):
            await self._manifests.housekeeping.purge()

    async def _take(self, label: str, wanted: Wanted) -> Events:
        offer = await self._source.offer(label)
        name = wanted.rename or offer.name
        if name is None or not name.is_valid:
            raise NameInvalid("it has no name that a model can have; give it one with --as")
        yield Status(f"importing {name.short}")
        manifests = await self._tree(offer)
        for layer in _layers(manifests):
            async with aclosing(self._bring(layer)) as events:
                async for event in events:
                    yield event
        if await self._file(name, offer, manifests, wanted.replace):
            self.taken.append(name.short)
        else:
            yield Status(f"{name.short} is here already")

    async def _tree(self, offer: Offer) -> list[_Found]:
        """The manifest and, for an index, those below it; what is referred to comes first."""
        found: list[_Found] = []
        waiting = [(offer.body, offer.media_type, 0)]
        size = 0
        while waiting:
            body, kind, depth = waiting.pop()
            document = await read_manifest(body, kind)
            found.append(_Found(document, kind))
            if document.children and depth == _DEPTH:
                raise TooLarge("an index has indexes of indexes below it")
            for child in document.children:
                content = await self._source.manifest(child.digest)
                size += len(content)
                if size > _MAX_BELOW:
                    raise TooLarge("an index has too many manifests below it")
                if Digest.of(content, child.digest.algorithm) != child.digest:
                    raise OperationFailed(f"a manifest is not {child.digest}")
                waiting.append((content, child.media_type, depth + 1))
        return found[::-1]

    async def _bring(self, layer: Descriptor) -> Events:
        """Have a blob, and hold it."""
        if layer.size > self._limit:
            raise TooLarge(f"{layer.digest} is larger than {self._limit} bytes")
        until = self._blobs.clock() + _HOLD_NS

        def hold(tx: Transaction, _: object = None) -> None:
            absent.extend(tx.lease([layer.digest], self._holder, until))

        absent: list[Digest] = []
        await self._catalog.write(hold)
        if not absent:
            return
        loan = await self._source.lend(layer.digest)
        if loan is not None:
            incoming = await self._store.resume(loan.key, loan.size)
        else:
            incoming = await self._store.create(layer.size)
        try:
            if loan is None:
                async with aclosing(self._copy(layer, incoming)) as copied:
                    async for done in copied:
                        yield Transfer("importing", layer.digest, layer.size, done)
            if incoming.size != layer.size:
                raise SizeInvalid(f"{layer.digest} has {incoming.size} bytes, not {layer.size}")
            blob = await self._blobs.commit(incoming, layer.digest, hold)
            self._came.append(blob.digest)
        finally:
            await incoming.discard()
        if layer.size >= _TICK:
            yield Transfer("importing", layer.digest, layer.size, layer.size)

    async def _copy(self, layer: Descriptor, incoming: Incoming) -> AsyncGenerator[int]:
        told = 0
        async for chunk in self._source.chunks(layer.digest):
            if incoming.size + len(chunk) > layer.size:
                raise SizeInvalid(f"{layer.digest} has more than its {layer.size} bytes")
            await incoming.write(chunk)
            if incoming.size - told >= _TICK:
                told = incoming.size
                yield told

    async def _file(
        self, name: ModelName, offer: Offer, manifests: list[_Found], replace: bool
    ) -> bool:
        """Make the model known; False if it is already."""
        prepared = [
            await self._manifests.prepare(item.document.body, item.media_type) for item in manifests
        ]

        def work(tx: Transaction) -> bool:
            known = tx.known_spelling(name)
            repository = tx.repository(known.repository)
            old = tx.tag(repository.id, known.tag) if repository else None
            if old is not None and old.digest == prepared[-1].row.digest:
                return False
            if old is not None and not replace:
                raise Conflict("another model of that name is here; --replace replaces it")
            self._commit(tx, known, prepared, offer.modified_at)
            return True

        done = await self._catalog.write(work)
        await self._manifests.housekeeping.settle([])
        return done

    def _commit(
        self, tx: Transaction, name: ModelName, prepared: list[Prepared], at: int | None
    ) -> None:
        repository = tx.put_repository(name.repository)
        for child in prepared[:-1]:
            self._manifests.commit(tx, repository, child, links=True)
            tx.record(repository.id, str(child.row.digest))
        self._manifests.replace_model(tx, name, prepared[-1], at=at)


def _chosen(labels: list[str], wanted: Wanted) -> list[str]:
    """Those labels that are wanted, however they are spelt.

    Raises:
        OperationFailed: one is not there, or several are to get one name.
    """
    found = labels
    if wanted.labels:
        known = {_key(label): label for label in labels}
        absent = [label for label in wanted.labels if _key(label) not in known]
        if absent:
            raise OperationFailed(f"there is no {absent[0]!r} in it")
        found = [known[_key(label)] for label in wanted.labels]
    if wanted.rename is not None and len(found) != 1:
        raise OperationFailed(f"there are {len(found)} models in it: --as needs one, by its name")
    return found


def _key(label: str) -> str:
    name = ModelName.parse(label)
    return str(name).lower() if name.is_valid else label


def _layers(manifests: list[_Found]) -> Iterator[Descriptor]:
    seen: set[Digest] = set()
    for item in manifests:
        for layer in item.document.blobs:
            if layer.digest not in seen:
                seen.add(layer.digest)
                yield layer
