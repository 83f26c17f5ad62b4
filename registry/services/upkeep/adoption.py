"""What lies in the store and not in the catalog: taken in if a tag names it, else swept.

A folder may have been a real Ollama's before it was ours, or still be one's besides; and a catalog
may be lost, or come back from an old backup. So the folder is read at the start and once a day:
models that the catalog does not know become known, each blob hashed first. Only what no tag file
mentions, and is not new, are leftovers of a crash.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import partial

import structlog
from anyio import to_thread

from registry.core.digest import Digest
from registry.core.errors import ManifestInvalid, RegistryError, Unavailable
from registry.core.manifest import Manifest, parse
from registry.core.names import ModelName
from registry.ports.catalog import FolderChange, Reader, Tag, Transaction
from registry.ports.folder import ModelsFolder, TagFile
from registry.services.library.manifests import Manifests
from registry.services.library.preparation import Prepared, is_model, is_text, read_manifest
from registry.services.library.records import Deed as RecordDeed
from registry.services.library.records import Records
from registry.services.library.strays import Search, Strays

SINCE = "catalog-since"
"""The secret that tells when the catalog was begun: ns since the epoch, in decimal digits."""
_BATCH = 256
_AT_ONCE = 8
"""Models taken in beside each other: they share the syncs of the database."""
_NS = 1_000_000_000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Deed:
    """A model that was taken in, or what speaks against it and which blobs it mentions."""

    name: ModelName
    fault: str | None = None
    spared: frozenset[Digest] = frozenset()


class Adoption:
    """The duty. `leftover_s` is the age in seconds at which bytes that nobody mentions go.

    None goes before the catalog itself is `young_s` old.
    """

    def __init__(
        self,
        manifests: Manifests,
        folder: ModelsFolder,
        leftover_s: int,
        strays: Strays | None = None,
        young_s: int = 86_400,
    ) -> None:
        self._manifests = manifests
        self._catalog = manifests.catalog
        self._store = manifests.store
        self._folder = folder
        self._leftover_ns = leftover_s * _NS
        self._young_ns = young_s * _NS
        self._strays = strays or Strays(manifests.catalog, manifests.store)

    async def run(self) -> int:
        """Take in what tags name, then delete what nobody mentions; return how many blobs went."""
        await self._manifests.housekeeping.settle([])  # tags that were deleted have no file then
        _, spared = await self.adopt()
        if await self._is_young():
            return 0
        return await self._strays.sweep(self._manifests.clock() - self._leftover_ns, spared)

    async def _is_young(self) -> bool:
        """Whether this catalog was begun, or restored, lately.

        Then another one, lost or left out of the settings by mistake, may know what this does not:
        whoever notices has a while to bring it back.
        """
        now = self._manifests.clock()
        since = await self._catalog.read(lambda tx: tx.secret(SINCE))
        if since is None:
            begun = str(now).encode()
            since = await self._catalog.write(lambda tx: tx.put_secret(SINCE, begun))
        return now - int(since) < self._young_ns

    async def adopt(self) -> tuple[int, frozenset[Digest]]:
        """Make every model of the folder known.

        Returns:
            How many were not. And what the tag files mention whose models could not be taken in: it
            is not ours to delete.
        """
        taken = 0
        spared: set[Digest] = set()
        async for deed in self.adopting():
            if deed.fault is None:
                taken += 1
                continue
            log.warning("a model of the folder is left out", model=str(deed.name), error=deed.fault)
            spared |= deed.spared
        if taken:
            log.info("models of the folder were taken in", models=taken)
        return taken, frozenset(spared)

    async def adopting(self) -> AsyncIterator[Deed | RecordDeed]:
        """The same one by one; what has records comes first, since those are the more exact."""
        search = Search(self._store, self._strays, self._manifests.clock())
        records = Records(self._manifests, self._folder, search)
        async for done in records.adopting():
            yield done
        async for deed in self._adopting_models(search):
            yield deed
        async for done in records.again():
            yield done
        await self._manifests.housekeeping.settle([])

    async def _adopting_models(self, search: Search) -> AsyncIterator[Deed]:
        names = await self._strangers()
        for begin in range(0, len(names), _AT_ONCE):
            work = [self._adopt(name, search) for name in names[begin : begin + _AT_ONCE]]
            for deed in await asyncio.gather(*work, return_exceptions=True):  # all have ended
                if isinstance(deed, BaseException):
                    raise deed
                if deed is not None:
                    yield deed

    async def _adopt(self, name: ModelName, search: Search) -> Deed | None:
        """Take one model in; None if it went, or came, meanwhile."""
        file = await self._folder.read(name)
        if file is None:
            return None
        try:
            return Deed(name) if await self._take_in(file, search) else None
        except Unavailable:  # not the model's fault: all of it comes again
            raise
        except RegistryError as error:
            return Deed(name, str(error), _mentioned(file.body))

    async def publish(self) -> int:
        """Write the file of every tag anew, as the catalog has it: after a restore; how many.

        Also every record; those of tags that are no models are not counted.
        """
        await self._catalog.write(lambda tx: tx.record_all())
        await self._manifests.housekeeping.settle([])
        models = await self._catalog.scan(lambda tx: tx.models())
        for begin in range(0, len(models), _BATCH):
            tags = [model.tag for model in models[begin : begin + _BATCH]]
            changes = await self._catalog.scan(partial(_changes, tags=tags))
            await to_thread.run_sync(self._folder.apply, changes)
            await to_thread.run_sync(self._folder.sync, changes)
        return len(models)

    async def _strangers(self) -> list[ModelName]:
        """The tags of the folder that the catalog does not know."""
        names = await self._folder.names()
        unknown: list[ModelName] = []
        for begin in range(0, len(names), _BATCH):
            some = names[begin : begin + _BATCH]
            unknown += await self._catalog.scan(partial(_unknown, names=some))
        return unknown

    async def _take_in(self, file: TagFile, search: Search) -> bool:
        """Make one model known; False if it came or went meanwhile.

        Raises:
            ManifestInvalid: the file is no manifest.
            BlobUnknown, DigestMismatch: a blob is not in the folder, or is not what its name says.
        """
        document = await read_manifest(file.body)
        if not isinstance(document, Manifest) or not is_model(document):
            raise ManifestInvalid("it is no model")
        contents = await search.make_known(document.blobs)
        texts = {
            d.digest: contents[d.digest]
            for d in document.blobs
            if d.digest in contents and is_text(d)
        }
        prepared = await self._manifests.prepare(file.body, document.media_type, known=texts)
        return await self._catalog.write(lambda tx: self._commit(tx, file, prepared))

    def _commit(self, tx: Transaction, file: TagFile, prepared: Prepared) -> bool:
        # A tag deleted since the file was read has lost its file, or is due to
        if tx.find_model(file.name) is not None or tx.is_folder_change_due(file.name):
            return False
        if not self._folder.holds(file):
            return False
        name = tx.known_spelling(file.name)
        self._manifests.replace_model(tx, name, prepared, at=file.modified_at)
        return True


def _unknown(tx: Reader, names: Iterable[ModelName]) -> list[ModelName]:
    return [name for name in names if tx.find_model(name) is None]


def _changes(tx: Reader, tags: Iterable[Tag]) -> list[FolderChange]:
    found = ((tag, tx.manifest(tag.digest)) for tag in tags)
    return [FolderChange(0, tag.model, row.body) for tag, row in found if row is not None]


def _mentioned(body: bytes) -> frozenset[Digest]:
    """The blobs that a manifest refers to; none if it cannot be read."""
    try:
        document = parse(body)
    except RegistryError:
        return frozenset()
    return frozenset(layer.digest for layer in document.blobs)
