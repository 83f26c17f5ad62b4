"""Manifests and what they refer to: that part of the catalog's SQL."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sqlalchemy import and_, bindparam, delete, false, insert, literal, or_, select, update

from registry.adapters import tables as t
from registry.adapters.catalog_blobs import BlobWriter
from registry.adapters.catalog_names import NameReader, NameWriter
from registry.adapters.catalog_upkeep import SPARE
from registry.adapters.statements import Insert, Row, Statement, digest_of
from registry.core.digest import Digest
from registry.core.errors import ManifestBlobUnknown
from registry.ports.catalog import Manifest, Reference

_P = bindparam
_COLUMNS = (
    t.manifest.c.digest,
    t.manifest.c.media_type,
    t.manifest.c.body,
    t.manifest.c.config,
    t.manifest.c.subject,
    t.manifest.c.artifact_type,
    t.manifest.c.annotations,
    t.manifest.c.card,
)
_IN_REPOSITORY = (
    t.repository_manifest.c.repository_id == _P("repository"),
    t.repository_manifest.c.digest == _P("digest"),
)
_MANIFEST = Statement(select(*_COLUMNS).where(t.manifest.c.digest == _P("digest")))
_REFERENCES = Statement(
    select(
        t.manifest_reference.c.digest,
        t.manifest_reference.c.media_type,
        t.manifest_reference.c.size,
        t.manifest_reference.c.is_blob,
    )
    .where(t.manifest_reference.c.manifest_digest == _P("digest"))
    .order_by(t.manifest_reference.c.position)
)
_HAS_MANIFEST = Statement(select(t.repository_manifest.c.digest).where(*_IN_REPOSITORY))
_REFERRERS = Statement(
    select(*_COLUMNS)
    .join_from(t.manifest, t.repository_manifest)
    .where(
        t.manifest.c.subject == _P("subject"),
        t.repository_manifest.c.repository_id == _P("repository"),
    )
    .order_by(t.repository_manifest.c.created_at, t.manifest.c.digest)
)

_TARGETS = Statement(
    select(t.manifest_reference.c.target)
    .where(t.manifest_reference.c.manifest_digest == _P("digest"))
    .where(t.manifest_reference.c.is_blob == _P("is_blob"))
    .distinct()
)
_CARD = Statement(select(t.manifest.c.card).where(t.manifest.c.digest == _P("digest")))
_SET_CARD = Statement(
    update(t.manifest).where(t.manifest.c.digest == _P("b_digest")).values(card=_P("card"))
)
_ADD_MANIFEST = Statement(
    insert(t.manifest).values({column.name: _P(column.name) for column in t.manifest.c})
)
_ADD_REFERENCE = Statement(
    insert(t.manifest_reference).values(
        {column.name: _P(column.name) for column in t.manifest_reference.c}
    )
)
_ADD_TO_REPOSITORY = Statement(
    insert(t.repository_manifest).values(
        repository_id=_P("repository_id"), digest=_P("digest"), created_at=_P("created_at")
    )
)


def _link_and_use(insert: Callable[[Any], Insert]) -> Any:
    columns = t.repository_blob.c
    known = select(
        _P("b_repository", type_=columns.repository_id.type),
        t.blob.c.digest,
        literal(0),
        literal(1),
    ).where(t.blob.c.digest == _P("b_digest"))
    row = insert(t.repository_blob).from_select(["repository_id", "digest", "until", "uses"], known)
    return row.on_conflict_do_update(
        index_elements=[columns.repository_id, columns.digest],
        set_={"until": 0, "uses": columns.uses + 1},
    )


_SPEND = (
    update(t.repository_blob)
    .where(t.repository_blob.c.repository_id == _P("b_repository"))
    .where(t.repository_blob.c.digest == _P("b_digest"))
)
_SPEND_AGAIN = Statement(_SPEND.values(until=0))
_SPEND_AND_USE = Statement(_SPEND.values(until=0, uses=t.repository_blob.c.uses + 1))
_LINK_AND_USE = Statement(_link_and_use)
_UNUSE = Statement(_SPEND.values(uses=t.repository_blob.c.uses - 1))
_COUNT_USE = Statement(
    update(t.blob).where(t.blob.c.digest == _P("b_digest")).values(uses=t.blob.c.uses + 1)
)
_COUNT_DISUSE = Statement(
    update(t.blob).where(t.blob.c.digest == _P("b_digest")).values(uses=t.blob.c.uses - 1)
)
_TAGS_OF_MANIFEST = Statement(
    select(t.tag.c.name).where(
        t.tag.c.manifest_digest == _P("digest"), t.tag.c.repository_id == _P("repository")
    )
)
_REMOVE = Statement(delete(t.repository_manifest).where(*_IN_REPOSITORY))
_REMOVE_MANIFEST = Statement(
    delete(t.manifest)
    .where(t.manifest.c.digest == _P("digest"))
    .where(
        ~select(t.repository_manifest.c.digest)
        .where(t.repository_manifest.c.digest == t.manifest.c.digest)
        .exists()
    )
)
_PARENT = t.repository_manifest.alias("parent")
_IS_NEEDED = Statement(
    select(t.manifest.c.digest)
    .where(t.manifest.c.digest == _P("digest"))
    .where(
        or_(
            select(t.tag.c.name)
            .where(
                t.tag.c.manifest_digest == t.manifest.c.digest,
                t.tag.c.repository_id == _P("repository"),
            )
            .exists(),
            select(t.manifest_reference.c.position)
            .join_from(
                t.manifest_reference,
                _PARENT,
                _PARENT.c.digest == t.manifest_reference.c.manifest_digest,
            )
            .where(
                t.manifest_reference.c.target == t.manifest.c.digest,
                t.manifest_reference.c.is_blob == false(),
                _PARENT.c.repository_id == _P("repository"),
            )
            .exists(),
            select(_PARENT.c.digest)
            .where(
                _PARENT.c.digest == t.manifest.c.subject,
                _PARENT.c.repository_id == _P("repository"),
            )
            .exists(),
        )
    )
)
_ATTACHED = Statement(
    select(t.manifest.c.digest)
    .join_from(t.manifest, t.repository_manifest)
    .where(
        and_(
            t.manifest.c.subject == _P("digest"),
            t.repository_manifest.c.repository_id == _P("repository"),
        )
    )
)


def _text(digest: Digest | None) -> str | None:
    return None if digest is None else str(digest)


def _digest(text: str | None) -> Digest | None:
    return None if text is None else digest_of(text)


class ManifestReader(NameReader):
    """The reader's methods about manifests."""

    def manifest(self, digest: Digest) -> Manifest | None:
        """See `Reader`."""
        row = self._sql.one(_MANIFEST, digest=str(digest))
        return self._manifest(row) if row else None

    def has_manifest(self, repository_id: int, digest: Digest) -> bool:
        """See `Reader`."""
        values = {"repository": repository_id, "digest": str(digest)}
        return self._sql.one(_HAS_MANIFEST, **values) is not None

    def referrers(self, repository_id: int, subject: Digest) -> list[Manifest]:
        """See `Reader`."""
        rows = self._sql.all(_REFERRERS, repository=repository_id, subject=str(subject))
        return [self._manifest(row) for row in rows]

    def _manifest(self, row: Row) -> Manifest:
        digest, media_type, body, config, subject, artifact_type, annotations, card = row
        references = tuple(
            Reference(digest_of(text), kind, size, bool(is_blob))
            for text, kind, size, is_blob in self._sql.all(_REFERENCES, digest=digest)
        )
        return Manifest(
            digest=digest_of(digest),
            media_type=media_type,
            body=body,
            references=references,
            config=_digest(config),
            subject=_digest(subject),
            artifact_type=artifact_type,
            annotations=annotations,
            card=card,
        )


class ManifestWriter(ManifestReader, NameWriter, BlobWriter):
    """The transaction's methods about manifests."""

    def put_manifest(
        self, repository_id: int, manifest: Manifest, now: int, *, links: bool = False
    ) -> None:
        """See `Transaction`."""
        targets = [self._target(reference) for reference in manifest.references]
        pairs = zip(targets, manifest.references, strict=True)
        blobs = {target: reference.digest for target, reference in pairs if reference.blob}
        if self.has_manifest(repository_id, manifest.digest):
            self._put_again(repository_id, manifest, blobs)
            return
        self.charge(repository_id, list(blobs))
        use = _LINK_AND_USE if links else _SPEND_AND_USE
        for target, digest in blobs.items():
            if not self._sql.run(use, b_repository=repository_id, b_digest=target):
                raise ManifestBlobUnknown(str(digest))
        for reference in manifest.references:
            if not reference.blob and not self.has_manifest(repository_id, reference.digest):
                raise ManifestBlobUnknown(str(reference.digest))
        if not self._refresh_card(manifest):
            self._add_manifest(manifest, targets, now)
            for target in blobs:
                self._sql.run(_COUNT_USE, b_digest=target)
        self._sql.run(
            _ADD_TO_REPOSITORY,
            repository_id=repository_id,
            digest=str(manifest.digest),
            created_at=now,
        )

    def _put_again(self, repository_id: int, manifest: Manifest, blobs: Iterable[str]) -> None:
        for target in blobs:
            self._sql.run(_SPEND_AGAIN, b_repository=repository_id, b_digest=target)
        if self._sql.run(SPARE, repository=repository_id, digest=str(manifest.digest)):
            self.record(repository_id, str(manifest.digest))
        self._refresh_card(manifest)

    def _target(self, reference: Reference) -> str:
        """What a reference is found by: a blob's own digest, though it was named by sha512."""
        return self._own(reference.digest) if reference.blob else str(reference.digest)

    def _refresh_card(self, manifest: Manifest) -> bool:
        """Whether the manifest is known; if so, take over its card: newer versions read more."""
        digest = str(manifest.digest)
        known = self._sql.one(_CARD, digest=digest)
        if known is not None and known[0] != manifest.card:
            self._sql.run(_SET_CARD, b_digest=digest, card=manifest.card)
            for tag in self.manifest_tags(manifest.digest):
                self.put_tag(tag.repository.id, tag.name, tag.digest, tag.updated_at)
        return known is not None

    def _add_manifest(self, manifest: Manifest, targets: list[str], now: int) -> None:
        self._sql.run(
            _ADD_MANIFEST,
            digest=str(manifest.digest),
            media_type=manifest.media_type,
            created_at=now,
            config=_text(manifest.config),
            subject=_text(manifest.subject),
            artifact_type=manifest.artifact_type,
            card=manifest.card,
            annotations=manifest.annotations,
            body=manifest.body,
        )
        self._sql.many(_ADD_REFERENCE, list(_reference_rows(manifest, targets)))

    def delete_manifest(self, repository_id: int, digest: Digest) -> bool:
        """See `Transaction`."""
        here = {"repository": repository_id, "digest": str(digest)}
        if not self.has_manifest(repository_id, digest):
            return False
        for (name,) in self._sql.all(_TAGS_OF_MANIFEST, **here):
            self.delete_tag(repository_id, name)
        blobs = self._sql.all(_TARGETS, digest=str(digest), is_blob=True)
        self._sql.run(_REMOVE, **here)
        self.record(repository_id, str(digest))
        was_last = self._sql.run(_REMOVE_MANIFEST, digest=str(digest)) > 0
        for (target,) in blobs:
            self._sql.run(_UNUSE, b_repository=repository_id, b_digest=target)
            if was_last:
                self._sql.run(_COUNT_DISUSE, b_digest=target)
        return True

    def drop_untagged(self, repository_id: int, digest: Digest) -> None:
        """See `Transaction`."""
        waiting = [str(digest)]
        while waiting:
            here = {"repository": repository_id, "digest": waiting.pop()}
            if self._sql.one(_IS_NEEDED, **here):
                continue
            children = self._sql.all(_TARGETS, digest=here["digest"], is_blob=False)
            if self.delete_manifest(repository_id, digest_of(str(here["digest"]))):
                waiting.extend(text for (text,) in children)
                waiting.extend(text for (text,) in self._sql.all(_ATTACHED, **here))


def _reference_rows(manifest: Manifest, targets: Iterable[str]) -> Iterator[dict[str, Any]]:
    for position, (reference, target) in enumerate(zip(manifest.references, targets, strict=True)):
        yield {
            "manifest_digest": str(manifest.digest),
            "position": position,
            "target": target,
            "is_blob": reference.blob,
            "size": reference.size,
            "digest": str(reference.digest),
            "media_type": reference.media_type,
        }
