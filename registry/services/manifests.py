"""Manifests: put, get and delete by tag or digest, referrers; what every new manifest goes through.

A manifest is taken apart before the transaction (`prepare`), which reads from the store what the
catalog does not know yet: GGUF headers, texts, the config. The transaction (`commit`) then writes
rows only. `create`, `pull` and `PUT /v2/…/manifests` all end here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from registry.core import media
from registry.core.card import Card, Parts
from registry.core.digest import Digest
from registry.core.errors import (
    DigestInvalid,
    DigestMismatch,
    GgufInvalid,
    ManifestBlobUnknown,
    ManifestUnknown,
    RepositoryUnknown,
    SizeInvalid,
)
from registry.core.facts import Facts
from registry.core.gojson import dumps
from registry.core.image import ImageConfig
from registry.core.manifest import Descriptor, Index, Manifest, parse
from registry.core.names import ModelName, RepositoryName, check_tag
from registry.ports import catalog as rows
from registry.ports.blobs import BlobStore
from registry.ports.catalog import Catalog, Reader, Transaction
from registry.services.gguf_facts import read_facts
from registry.services.housekeeping import Housekeeping
from registry.services.name_pages import Readable, page_of
from registry.services.rights import FREE, TagGuard

MAX_TEXT = 16 << 20
"""A text layer above this size, in bytes, is kept but not read: its model is no model to us."""

_TEXTS = frozenset(
    {media.TEMPLATE, media.PROMPT, media.SYSTEM, media.PARAMS, media.MESSAGES, media.LICENSE}
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A manifest ready to be committed: its row, and facts about its blobs that are new."""

    row: rows.Manifest
    facts: Mapping[Digest, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Put:
    """A manifest on its way in: under a tag or its digest, and under more tags."""

    reference: str
    body: bytes
    content_type: str | None
    extra_tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PutResult:
    """What a put made: the manifest's digest, and the subject it was recorded for."""

    digest: Digest
    subject: Digest | None = None


@dataclass(frozen=True, slots=True)
class TagPage:
    """Some tags of a repository: its name as first spelt, the tags in byte order, more to come?"""

    name: RepositoryName
    tags: list[str]
    more: bool


class Manifests:
    """Use cases around manifests, and what they stand on, for use cases that end here.

    `clock` gives nanoseconds since the epoch.
    """

    def __init__(
        self,
        catalog: Catalog,
        store: BlobStore,
        housekeeping: Housekeeping,
        clock: Callable[[], int],
    ) -> None:
        self.catalog = catalog
        self.store = store
        self.housekeeping = housekeeping
        self.clock = clock

    async def prepare(
        self,
        body: bytes,
        media_type: str | None,
        *,
        digest: Digest | None = None,
        known: Mapping[Digest, bytes] | None = None,
    ) -> Prepared:
        """Read a manifest and the facts of its blobs.

        `digest` is the name it is to be kept under, if not its sha256; `known` holds contents of
        blobs that are not in the catalog yet.

        Raises:
            ManifestInvalid: the bytes are no manifest we take.
            ManifestBlobUnknown: a blob is not in the store.
            SizeInvalid: a descriptor's size is not that of its blob.
        """
        document = parse(body, media_type)
        name = digest or document.digest
        facts: dict[Digest, bytes] = {}
        card = None
        if isinstance(document, Manifest) and is_model(document):
            card, facts = await self._card(document, name, known or {})
        return Prepared(_row(document, name, card), facts)

    async def _card(
        self, manifest: Manifest, name: Digest, known: Mapping[Digest, bytes]
    ) -> tuple[str, dict[Digest, bytes]]:
        wanted = [d for d in manifest.blobs if _is_read(d) and d.digest not in known]
        here = await self.catalog.read(lambda tx: {d.digest: tx.facts(d.digest) for d in wanted})
        facts = dict(known) | {digest: found for digest, found in here.items() if found is not None}
        new = dict(known)
        for layer in wanted:
            if layer.digest not in facts and (found := await self._read(layer)) is not None:
                facts[layer.digest] = new[layer.digest] = found
        return Card.of(take_apart(manifest, facts), name).to_json(), new

    async def _read(self, layer: Descriptor) -> bytes | None:
        """The facts of a blob that the catalog has none of: a GGUF's header, a text's content."""
        blob = await self.catalog.read(lambda tx: tx.blob(layer.digest))
        if blob is None:
            raise ManifestBlobUnknown(str(layer.digest))
        async with await self.store.open(blob.storage_key) as opened:
            if layer.media_type not in media.GGUF_LAYERS:
                return await opened.read(0, opened.size)
            try:
                return (await read_facts(opened)).to_json()
            except GgufInvalid:
                return None  # a registry keeps what it cannot read; show then has no model_info

    def commit(self, tx: Transaction, repository: rows.Repository, prepared: Prepared) -> None:
        """Write a prepared manifest into a repository, inside a transaction.

        Raises:
            ManifestBlobUnknown: something it refers to is not in the repository.
            SizeInvalid: a descriptor's size is not that of its blob.
        """
        for reference in prepared.row.references:
            blob = tx.blob(reference.digest) if reference.blob else None
            if blob is not None and blob.size != reference.size:
                raise SizeInvalid(
                    f"size of {reference.digest} is {blob.size}, the manifest says {reference.size}"
                )
        tx.put_manifest(repository.id, prepared.row, self.clock())
        for digest, facts in prepared.facts.items():
            tx.put_facts(digest, facts)

    def replace_model(
        self,
        tx: Transaction,
        name: ModelName,
        prepared: Prepared,
        guard: TagGuard = FREE,
        at: int | None = None,
    ) -> tuple[Digest | None, list[rows.Freed]]:
        """Make `name` the prepared manifest, dropping what it was before; `at` is when, if not now.

        Every blob it refers to is linked to the repository first: the caller has checked that it
        may use them. Returns the old manifest's digest and the blobs that went with it.
        """
        repository = tx.put_repository(name.repository)
        _check_tag(tx, guard, repository.id, name.tag, prepared.row.digest)
        for reference in prepared.row.references:
            if tx.blob(reference.digest) is None:
                raise ManifestBlobUnknown(str(reference.digest))
            tx.link_blob(repository.id, reference.digest, 0)
        self.commit(tx, repository, prepared)
        old = tx.tag(repository.id, name.tag)
        when = self.clock() if at is None else at
        tx.put_tag(repository.id, name.tag, prepared.row.digest, when)
        if old is None or old.digest == prepared.row.digest:
            return (old.digest if old else None), []
        return old.digest, self.drop(tx, repository.id, old.digest)

    def drop(self, tx: Transaction, repository_id: int, digest: Digest) -> list[rows.Freed]:
        """Drop a manifest that no tag needs any more, and free its blobs."""
        manifest = tx.manifest(digest)
        tx.drop_untagged(repository_id, digest)
        if manifest is None or not self.housekeeping.prunes:
            return []
        blobs = [reference.digest for reference in manifest.references if reference.blob]
        return tx.free(list(dict.fromkeys(blobs)), self.clock())

    async def adopt(
        self, name: ModelName, body: bytes, media_type: str, holder: str, guard: TagGuard = FREE
    ) -> bool:
        """Make a pulled manifest the model `name`; `holder`'s leases on its blobs are given up.

        Returns whether older layers were removed.
        """
        prepared = await self.prepare(body, media_type)

        def work(tx: Transaction) -> list[rows.Freed]:
            _, freed = self.replace_model(tx, tx.known_spelling(name), prepared, guard)
            tx.release(holder)
            return freed

        freed = await self.catalog.write(work)
        await self.housekeeping.settle(freed)
        return bool(freed)

    async def put(self, name: RepositoryName, put: Put, guard: TagGuard = FREE) -> PutResult:
        """Put a manifest into a repository.

        Raises:
            Denied, TagImmutable: `guard` is against one of the tags; nothing is put.
            NameInvalid: a tag that is none.
            DigestInvalid, DigestMismatch: it is put under a digest that is not the body's.
            ManifestInvalid, SizeInvalid: see `prepare` and `commit`.
        """
        digest = None
        tags = [check_tag(tag) for tag in put.extra_tags]
        if ":" in put.reference:
            digest = check_digest(put.reference, put.body)
        else:
            tags.insert(0, check_tag(put.reference))
        prepared = await self.prepare(put.body, put.content_type, digest=digest)

        def work(tx: Transaction) -> None:
            repository = tx.put_repository(name)
            self.commit(tx, repository, prepared)
            for tag in tags:
                _check_tag(tx, guard, repository.id, tag, prepared.row.digest)
                tx.put_tag(repository.id, tag, prepared.row.digest, self.clock())

        await self.catalog.write(work)
        await self.housekeeping.settle([])
        return PutResult(prepared.row.digest, prepared.row.subject)

    async def get(self, name: RepositoryName, reference: str) -> rows.Manifest:
        """A manifest by tag or digest.

        Raises:
            ManifestUnknown: the repository has none such.
        """

        def work(tx: Reader) -> rows.Manifest | None:
            digest = _resolve(tx, name, reference)
            return tx.manifest(digest) if digest else None

        found = await self.catalog.read(work)
        if found is None:
            raise ManifestUnknown(f"manifest unknown: {reference}")
        return found

    async def delete(self, name: RepositoryName, reference: str, guard: TagGuard = FREE) -> None:
        """Delete a tag (only the tag goes), or a manifest by digest (its tags go with it).

        Raises:
            Denied, TagImmutable: `guard` is against it.
            ManifestUnknown: the repository has none such.
        """

        def work(tx: Transaction) -> list[rows.Freed]:
            repository = tx.repository(name)
            digest = _resolve(tx, name, reference)
            if repository is None or digest is None:
                raise ManifestUnknown(f"manifest unknown: {reference}")
            if ":" not in reference:
                guard.delete(reference)
                tx.delete_tag(repository.id, reference)
                return []
            for tag in tx.manifest_tags(digest):
                if tag.repository.id == repository.id:
                    guard.delete(tag.name)
            manifest = tx.manifest(digest)
            tx.delete_manifest(repository.id, digest)
            blobs = [item.digest for item in manifest.references if item.blob] if manifest else []
            for blob in blobs:  # an OCI client deletes blobs itself; until then they stay its own
                tx.link_blob(repository.id, blob, self.clock() + self.housekeeping.lease_ns)
            return []

        await self.catalog.write(work)
        await self.housekeeping.settle([])

    async def tags(self, name: RepositoryName, last: str, limit: int) -> TagPage:
        """Up to `limit` tags after `last`.

        Raises:
            RepositoryUnknown: there is no such repository.
        """

        def work(tx: Reader) -> TagPage:
            repository = tx.repository(name)
            if repository is None:
                raise RepositoryUnknown(f"repository name not known to registry: {name}")
            found = tx.tags(repository.id, last, limit + 1)
            return TagPage(repository.name, found[:limit], len(found) > limit)

        return await self.catalog.read(work)

    async def catalog_page(
        self,
        last: str,
        limit: int,
        readable: Readable | None = None,
    ) -> tuple[list[RepositoryName], bool]:
        """Up to `limit` repositories after `last`, and whether there are more: see `page_of`."""
        return await page_of(self.catalog, last, limit, readable)

    async def referrers(self, name: RepositoryName, subject: Digest) -> list[rows.Manifest]:
        """The manifests of the repository that refer to `subject`; empty for an unknown one."""

        def work(tx: Reader) -> list[rows.Manifest]:
            repository = tx.repository(name)
            return tx.referrers(repository.id, subject) if repository else []

        return await self.catalog.read(work)


def _check_tag(tx: Reader, guard: TagGuard, repository_id: int, name: str, digest: Digest) -> None:
    """Ask the guard, where it is one, about a tag that is to be put."""
    if guard is not FREE:
        old = tx.tag(repository_id, name)
        guard.put(name, old.digest if old else None, digest)


def is_model(manifest: Manifest) -> bool:
    """Whether it is an Ollama model: it has a layer of Ollama's types, or is a stub without any."""
    if manifest.layers:
        return any(layer.media_type.startswith(media.OLLAMA) for layer in manifest.layers)
    return manifest.config is not None and manifest.config.media_type == media.CONFIG


def _is_read(layer: Descriptor) -> bool:
    if layer.media_type in media.GGUF_LAYERS:
        return True
    return layer.size <= MAX_TEXT and (
        layer.media_type in _TEXTS or layer.media_type == media.CONFIG
    )


def take_apart(manifest: Manifest, facts: Mapping[Digest, bytes]) -> Parts:
    """Sort the facts of a model's blobs into config, texts and GGUF facts."""
    config = ImageConfig()
    texts: dict[Digest, bytes] = {}
    ggufs: dict[Digest, Facts] = {}
    if manifest.config is not None and manifest.config.digest in facts:
        config = ImageConfig.parse(facts[manifest.config.digest])
    for layer in manifest.layers:
        if layer.digest not in facts:
            continue
        if layer.media_type in media.GGUF_LAYERS:
            ggufs[layer.digest] = Facts.from_json(facts[layer.digest])
        else:
            texts[layer.digest] = facts[layer.digest]
    return Parts(manifest, config, texts, ggufs)


def check_digest(reference: str, body: bytes) -> Digest:
    """The digest that `reference` says, which must be that of `body`.

    Raises:
        DigestInvalid: no digest we know.
        DigestMismatch: the digest of other bytes.
    """
    digest = Digest.parse(reference)
    got = Digest.of(body, digest.algorithm)
    if got != digest:
        raise DigestMismatch(str(digest), str(got))
    return digest


def _resolve(tx: Reader, name: RepositoryName, reference: str) -> Digest | None:
    repository = tx.repository(name)
    if repository is None:
        return None
    if ":" not in reference:
        tag = tx.tag(repository.id, reference)
        return tag.digest if tag else None
    try:
        digest = Digest.parse(reference)
    except DigestInvalid:
        return None
    return digest if tx.has_manifest(repository.id, digest) else None


def _row(document: Manifest | Index, name: Digest, card: str | None) -> rows.Manifest:
    blobs = [rows.Reference(d.digest, d.media_type, d.size) for d in document.blobs]
    children = [rows.Reference(d.digest, d.media_type, d.size, False) for d in document.children]
    config = document.config if isinstance(document, Manifest) else None
    annotations = dumps(dict(document.annotations)).decode() if document.annotations else None
    return rows.Manifest(
        digest=name,
        media_type=document.media_type,
        body=document.body,
        references=(*blobs, *children),
        config=config.digest if config else None,
        subject=document.subject.digest if document.subject else None,
        artifact_type=document.artifact_type,
        annotations=annotations,
        card=card,
    )
