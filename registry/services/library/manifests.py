"""Manifests: put, get and delete by tag or digest, referrers; what every new manifest goes through.

A manifest is taken apart before the transaction (`Preparation`); the transaction (`commit`) then
writes rows only. `create`, `pull` and `PUT /v2/…/manifests` all end here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from registry.core.digest import Digest
from registry.core.errors import (
    DigestInvalid,
    DigestMismatch,
    ManifestUnknown,
    RepositoryUnknown,
    SizeInvalid,
)
from registry.core.names import ModelName, RepositoryName, check_tag
from registry.ports import catalog as rows
from registry.ports.blobs import BlobStore
from registry.ports.catalog import Catalog, FactsKind, Reader, Transaction
from registry.services.access.rights import FREE, TagGuard
from registry.services.library.housekeeping import Housekeeping
from registry.services.library.name_pages import Readable, page_of
from registry.services.library.preparation import Preparation, Prepared


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
        self.prepare = Preparation(catalog, store).prepare

    def commit(
        self,
        tx: Transaction,
        repository: rows.Repository,
        prepared: Prepared,
        *,
        links: bool = False,
    ) -> None:
        """Write a prepared manifest into a repository, inside a transaction.

        With `links` its blobs may be anybody's.

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
        tx.put_manifest(repository.id, prepared.row, self.clock(), links=links)
        for digest, facts in prepared.facts.items():
            kind: FactsKind = "text" if isinstance(facts, bytes) else "header"
            if not tx.has_facts(digest, kind):
                tx.put_facts(digest, kind, facts if isinstance(facts, bytes) else facts.to_json())

    def replace_model(
        self,
        tx: Transaction,
        name: ModelName,
        prepared: Prepared,
        guard: TagGuard = FREE,
        at: int | None = None,
    ) -> tuple[Digest | None, list[rows.Freed]]:
        """Make `name` the prepared manifest, dropping what it was before; `at` is when, if not now.

        The repository gets every blob it refers to: the caller has checked that it may use them.
        Returns the old manifest's digest and the blobs that went with it.
        """
        repository = tx.put_repository(name.repository)
        _check_tag(tx, guard, repository.id, name.tag, prepared.row.digest)
        self.commit(tx, repository, prepared, links=True)
        old = tx.tag(repository.id, name.tag)
        when = self.clock() if at is None else at
        tx.put_tag(repository.id, name.tag, prepared.row.digest, when, guard.who)
        if old is None or old.digest == prepared.row.digest:
            return (old.digest if old else None), []
        return old.digest, self.drop(tx, repository.id, old.digest)

    def drop(self, tx: Transaction, repository_id: int, digest: Digest) -> list[rows.Freed]:
        """Drop a manifest that no tag needs any more, and free its blobs.

        Where deleted models can be brought back, it is only marked: `History.sweep` drops it.
        """
        if self.housekeeping.undelete_ns:
            if tx.has_manifest(repository_id, digest):
                tx.condemn(repository_id, digest, self.clock())
                tx.record(repository_id, str(digest))
            return []
        return self.forget(tx, repository_id, digest)

    def forget(self, tx: Transaction, repository_id: int, digest: Digest) -> list[rows.Freed]:
        """`drop` at once and for good."""
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
            if not tags:
                tx.record(repository.id, str(prepared.row.digest))
            for tag in tags:
                _check_tag(tx, guard, repository.id, tag, prepared.row.digest)
                tx.put_tag(repository.id, tag, prepared.row.digest, self.clock(), guard.who)

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
                tx.delete_tag(repository.id, reference, guard.who)
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
