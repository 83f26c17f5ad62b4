"""What lies in the data folder and not in the catalog: taken in if a tag names it, else swept.

A folder may have been a real Ollama's before it was ours, or still be one's besides; and a catalog
may be lost, or come back from an old backup. So the folder is read at the start and once a day:
models that the catalog does not know become known, each blob hashed first. Only what no tag file
mentions, and is not new, are leftovers of a crash.
"""

import hashlib
from collections.abc import Iterable
from functools import partial

import structlog
from anyio import to_thread

from registry.core.digest import Digest
from registry.core.errors import BlobUnknown, DigestMismatch, ManifestInvalid, RegistryError
from registry.core.manifest import Descriptor, Manifest, parse
from registry.core.names import ModelName
from registry.ports.catalog import FolderChange, Reader, Tag, Transaction
from registry.ports.folder import ModelsFolder, TagFile
from registry.services.manifests import Manifests
from registry.services.preparation import Prepared, is_model, read_manifest

_BATCH = 256
_NS = 1_000_000_000

log = structlog.get_logger()


class Adoption:
    """The duty. `leftover_s` is the age in seconds at which bytes that nobody mentions go."""

    def __init__(self, manifests: Manifests, folder: ModelsFolder, leftover_s: int) -> None:
        self._manifests = manifests
        self._catalog = manifests.catalog
        self._store = manifests.store
        self._folder = folder
        self._leftover_ns = leftover_s * _NS

    async def run(self) -> int:
        """Take in what tags name, then delete what nobody mentions; return how many blobs went."""
        await self._manifests.housekeeping.settle([])  # tags that were deleted have no file then
        spared = await self.adopt()
        before = self._manifests.clock() - self._leftover_ns
        count = 0
        batch: list[Digest] = []
        async for key, _ in self._store.keys(before):
            digest = Digest.parse(key)
            if digest not in spared:
                batch.append(digest)
            if len(batch) >= _BATCH:
                count += await self._remove(batch)
                batch = []
        return count + await self._remove(batch)

    async def adopt(self) -> frozenset[Digest]:
        """Make every model of the folder known.

        Returns:
            What the tag files mention whose models could not be taken in: it is not ours to delete.
        """
        spared: set[Digest] = set()
        taken = 0
        for name in await self._strangers():
            file = await self._folder.read(name)
            if file is None:
                continue
            try:
                taken += await self._take_in(file)
            except RegistryError as error:
                log.warning("a model of the folder is left out", model=str(name), error=str(error))
                spared |= _mentioned(file.body)
        if taken:
            await self._manifests.housekeeping.settle([])
            log.info("models of the folder were taken in", models=taken)
        return frozenset(spared)

    async def publish(self) -> int:
        """Write the file of every tag anew, as the catalog has it: after a restore; how many."""
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

    async def _take_in(self, file: TagFile) -> bool:
        """Make one model known; False if it came or went meanwhile.

        Raises:
            ManifestInvalid: the file is no manifest.
            BlobUnknown, DigestMismatch: a blob is not in the folder, or is not what its name says.
        """
        document = await read_manifest(file.body)
        if not isinstance(document, Manifest) or not is_model(document):
            raise ManifestInvalid("it is no model")
        found = {layer.digest: await self._verified(layer) for layer in document.blobs}
        now = self._manifests.clock()

        def put_blobs(tx: Transaction) -> None:
            for layer in document.blobs:
                tx.put_blob(layer.digest, layer.size, found[layer.digest], now)

        await self._catalog.write(put_blobs)
        prepared = await self._manifests.prepare(file.body, document.media_type)
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

    async def _verified(self, layer: Descriptor) -> str:
        """The storage key of a blob that is known, or whose bytes are what its name says."""
        blob = await self._catalog.read(lambda tx: tx.blob(layer.digest))
        if blob is not None:
            return blob.storage_key
        key = self._store.key_of(layer.digest)
        if key is None:
            raise BlobUnknown(str(layer.digest))
        hasher = hashlib.sha256()
        async with await self._store.open(key) as opened:
            if opened.size != layer.size:
                raise BlobUnknown(str(layer.digest))
            async for chunk in opened.chunks(0, opened.size):
                await to_thread.run_sync(hasher.update, chunk)
        if hasher.hexdigest() != layer.digest.hex:
            raise DigestMismatch(str(layer.digest), f"sha256:{hasher.hexdigest()}")
        return key

    async def _remove(self, batch: list[Digest]) -> int:
        """Delete those that no row mentions.

        Safe beside uploads: one that published its bytes and has no row yet puts them back when
        its transaction finds them gone (`Incoming.confirm`).
        """

        def absent(tx: Reader) -> list[Digest]:
            return [digest for digest in batch if tx.blob(digest) is None]

        def remove(tx: Transaction) -> int:
            orphans = absent(tx)
            for digest in orphans:
                self._store.remove(digest.file_name)
            return len(orphans)

        if not batch or not await self._catalog.scan(absent):
            return 0
        return await self._catalog.write(remove)


def _unknown(tx: Reader, names: Iterable[ModelName]) -> list[ModelName]:
    return [name for name in names if tx.find_model(name) is None]


def _changes(tx: Reader, tags: Iterable[Tag]) -> list[FolderChange]:
    found = ((tag, tx.manifest(tag.digest)) for tag in tags)
    return [FolderChange(0, tag.model, row.body) for tag, row in found if row is not None]


def _mentioned(body: bytes) -> set[Digest]:
    """The blobs that a manifest refers to; none if it cannot be read."""
    try:
        document = parse(body)
    except RegistryError:
        return set()
    return {layer.digest for layer in document.blobs}
