"""Records of the store whose tags and manifests the catalog does not know: taken in.

An index waits until its manifests are known, a tag until its manifest is; some of these are
models, which have a file instead of a record: `Adoption` takes those in between.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from registry.core.digest import Digest
from registry.core.errors import (
    DigestInvalid,
    ManifestInvalid,
    RegistryError,
    Unavailable,
)
from registry.core.names import RepositoryName
from registry.core.records import Record, RecordName, folder_of, reference_of
from registry.ports.catalog import Reader, Transaction
from registry.ports.folder import ModelsFolder, RecordFile
from registry.services.library.manifests import Manifests
from registry.services.library.preparation import Prepared, read_manifest
from registry.services.library.strays import Search

_BATCH = 256
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Deed:
    """A record that was taken in, or what speaks against it and which blobs it mentions."""

    name: RecordName
    fault: str | None = None
    spared: frozenset[Digest] = frozenset()


@dataclass(slots=True)
class _Waiting:
    """Records that cannot be taken in yet, and the manifests that each waits for."""

    places: dict[str, set[str]] = field(default_factory=dict)
    by_manifest: dict[str, list[str]] = field(default_factory=dict)

    def put(self, place: str, manifests: set[str]) -> None:
        self.places[place] = manifests
        for manifest in manifests:
            self.by_manifest.setdefault(manifest, []).append(place)

    def arrived(self, manifest: str) -> list[str]:
        """Those that wait for nothing any more, now that this one is known."""
        ready = []
        for place in self.by_manifest.pop(manifest, []):
            self.places[place].discard(manifest)
            if not self.places[place]:
                del self.places[place]
                ready.append(place)
        return ready


class Records:
    """The records of one store, on their way into the catalog. For one round."""

    def __init__(self, manifests: Manifests, folder: ModelsFolder, search: Search) -> None:
        self._manifests = manifests
        self._catalog = manifests.catalog
        self._folder = folder
        self._search = search
        self._waiting = _Waiting()

    async def adopting(self) -> AsyncIterator[Deed]:
        """Take in what can be; the rest waits for `again`."""
        async for deed in self._take_in_all(await self._strange(), is_last=False):
            yield deed

    async def again(self) -> AsyncIterator[Deed]:
        """Take in what waited; what waits still is at fault."""
        places, self._waiting = list(self._waiting.places), _Waiting()
        async for deed in self._take_in_all(places, is_last=False):
            yield deed
        places, self._waiting = list(self._waiting.places), _Waiting()
        async for deed in self._take_in_all(places, is_last=True):
            yield deed

    async def _strange(self) -> list[str]:
        """The places of records whose tag or manifest is not known."""
        places = await self._folder.records()
        if not places:
            return []
        ids = await self._catalog.scan(_repositories)
        strange: list[str] = []
        for begin in range(0, len(places), _BATCH):
            some = places[begin : begin + _BATCH]
            strange += await self._catalog.scan(lambda tx, s=some: _unknown(tx, ids, s))  # type: ignore[misc]
        return strange

    async def _take_in_all(self, places: list[str], *, is_last: bool) -> AsyncIterator[Deed]:
        while places:
            place = places.pop()
            file = await self._folder.read_record(place)
            if file is None:
                continue
            try:
                record = Record.decode(file.body)
                if record.name.file_path != place:
                    raise ManifestInvalid("it is not in its place")
            except RegistryError as error:
                yield Deed(RecordName(RepositoryName("records"), place), str(error))
                continue
            try:
                missing = set() if is_last else await self._missing(record)
                if missing:
                    self._waiting.put(place, missing)
                    continue
                if await self._take_in(file, record):
                    yield Deed(record.name)
            except Unavailable:  # not the record's fault: all of it comes again
                raise
            except RegistryError as error:
                yield Deed(record.name, str(error), await _mentioned(record))
                continue
            if record.name.is_digest:
                places += self._waiting.arrived(record.name.short)

    async def _missing(self, record: Record) -> set[str]:
        """The manifests that have to be known before this record is taken in."""
        wanted = {record.manifest}
        repository = record.name.repository
        if record.name.is_digest:
            document = await read_manifest(record.body, record.media_type)
            wanted = {child.digest for child in document.children}

        def look(tx: Reader) -> set[Digest]:
            found = tx.repository(repository)
            return {d for d in wanted if found is None or not tx.has_manifest(found.id, d)}

        missing = await self._catalog.scan(look) if wanted else set()
        return {RecordName(repository, str(digest)).short for digest in missing}

    async def _take_in(self, file: RecordFile, record: Record) -> bool:
        """Make one known; False if it came or went meanwhile.

        Raises:
            ManifestInvalid, ManifestUnknown, RepositoryUnknown: it cannot be.
            BlobUnknown, DigestMismatch: a blob is not in the store, or is not what its name says.
        """
        if not record.name.is_digest:
            return await self._catalog.write(lambda tx: self._commit_tag(tx, file, record))
        document = await read_manifest(record.body, record.media_type)
        await self._search.make_known(document.blobs, record.aliases)
        prepared = await self._manifests.prepare(
            record.body, record.media_type, digest=record.manifest
        )
        return await self._catalog.write(lambda tx: self._commit(tx, file, record, prepared))

    def _commit_tag(self, tx: Transaction, file: RecordFile, record: Record) -> bool:
        repository = tx.put_repository(record.name.repository)
        is_known = tx.tag(repository.id, record.name.reference) is not None
        if is_known or not self._stands(tx, file, record):
            return False
        tx.put_tag(repository.id, record.name.reference, record.manifest, file.modified_at)
        return True

    def _commit(
        self, tx: Transaction, file: RecordFile, record: Record, prepared: Prepared
    ) -> bool:
        repository = tx.put_repository(record.name.repository)
        is_known = tx.has_manifest(repository.id, record.manifest)
        if is_known or not self._stands(tx, file, record):
            return False
        self._manifests.commit(tx, repository, prepared, links=True)
        return True

    def _stands(self, tx: Reader, file: RecordFile, record: Record) -> bool:
        """Whether it was not deleted since it was read."""
        return not tx.is_folder_change_due(record.name) and self._folder.holds(file)


def _repositories(tx: Reader) -> dict[str, int]:
    """The ids of all repositories by the folder of their records."""
    ids: dict[str, int] = {}
    after = ""
    while page := tx.repositories(after, _PAGE):
        for name in page:
            found = tx.repository(name)
            if found is not None:
                ids[folder_of(name)] = found.id
        after = page[-1].key
    return ids


def _unknown(tx: Reader, ids: dict[str, int], places: list[str]) -> list[str]:
    return [place for place in places if not _is_known(tx, ids, place)]


def _is_known(tx: Reader, ids: dict[str, int], place: str) -> bool:
    folder, _, file_name = place.partition("/")
    try:
        reference = reference_of(file_name)
    except DigestInvalid:
        return True  # nothing of ours
    repository = ids.get(folder)
    if repository is None:
        return False
    if ":" in reference:
        return tx.has_manifest(repository, Digest.parse(reference))
    return tx.tag(repository, reference) is not None


async def _mentioned(record: Record) -> frozenset[Digest]:
    """The blobs that a record refers to; none if it cannot be read."""
    try:
        document = await read_manifest(record.body, record.media_type)
    except RegistryError:
        return frozenset()
    return frozenset(record.aliases.get(layer.digest, layer.digest) for layer in document.blobs)
