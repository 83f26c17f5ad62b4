"""Repositories, tags, models and the spelling of names: that part of the catalog's SQL."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import and_, bindparam, delete, false, insert, literal, or_, select, true, update

from registry.adapters import tables as t
from registry.adapters.catalog_models import TAGS, ModelReader, name_parts, tag_of
from registry.adapters.statements import Row, Statement
from registry.core.digest import Digest
from registry.core.errors import ManifestUnknown, RepositoryUnknown
from registry.core.names import ModelName, RepositoryName
from registry.core.records import RecordName
from registry.ports.catalog import Repository, Tag

_P = bindparam
_REPOSITORY = Statement(
    select(t.repository.c.id, t.repository.c.path).where(t.repository.c.path_key == _P("key"))
)
HAS_MANIFESTS = (
    select(t.repository_manifest.c.digest)
    .where(t.repository_manifest.c.repository_id == t.repository.c.id)
    .exists()
)
"""Of a repository: others are rows that an upload began."""
_REPOSITORIES = Statement(
    select(t.repository.c.path)
    .where(t.repository.c.path_key > _P("after"))
    .where(HAS_MANIFESTS)
    .order_by(t.repository.c.path_key)
    .limit(_P("count"))
)
_TAG = Statement(
    TAGS.where(t.tag.c.repository_id == _P("repository"), t.tag.c.name_key == _P("key"))
)
_TAG_NAMES = Statement(
    select(t.tag.c.name)
    .where(t.tag.c.repository_id == _P("repository"), t.tag.c.name > _P("after"))
    .order_by(t.tag.c.name)
    .limit(_P("count"))
)
_MANIFEST_TAGS = Statement(
    TAGS.join(t.repository_manifest, t.repository_manifest.c.repository_id == t.tag.c.repository_id)
    .where(
        t.repository_manifest.c.digest == _P("digest"),
        t.tag.c.manifest_digest == t.repository_manifest.c.digest,
    )
    .order_by(t.repository.c.path_key, t.tag.c.name_key)
)
_ADD_REPOSITORY = Statement(
    lambda insert: (
        insert(t.repository)
        .values(path_key=_P("path_key"), path=_P("path"))
        .on_conflict_do_nothing()
        .returning(t.repository.c.id, t.repository.c.path)
    )
)
_IS_EMPTY = Statement(
    select(t.repository.c.id)
    .where(t.repository.c.id == _P("repository"))
    .where(
        ~select(t.repository_manifest.c.digest)
        .where(t.repository_manifest.c.repository_id == t.repository.c.id)
        .exists()
    )
)
_RESPELL = Statement(
    update(t.repository).where(t.repository.c.id == _P("repository")).values(path=_P("path"))
)
_TAG_AND_TARGET = Statement(
    select(
        t.repository.c.path,
        t.tag.c.name,
        t.tag.c.manifest_digest,
        t.manifest.c.digest,
        t.manifest.c.card.is_not(None),
        t.tag.c.is_model,
    )
    .select_from(t.repository)
    .outerjoin(
        t.repository_manifest,
        and_(
            t.repository_manifest.c.repository_id == t.repository.c.id,
            t.repository_manifest.c.digest == _P("digest"),
        ),
    )
    .outerjoin(t.manifest, t.manifest.c.digest == t.repository_manifest.c.digest)
    .outerjoin(
        t.tag, and_(t.tag.c.repository_id == t.repository.c.id, t.tag.c.name_key == _P("key"))
    )
    .where(t.repository.c.id == _P("repository"))
)


def _put_tag(insert: Callable[[Any], Any]) -> Any:
    row = insert(t.tag).values({column.name: _P(column.name) for column in t.tag.c})
    changed = ("manifest_digest", "updated_at", "is_model")
    return row.on_conflict_do_update(
        index_elements=[t.tag.c.repository_id, t.tag.c.name_key],
        set_={name: row.excluded[name] for name in changed},
    )


_PUT_TAG = Statement(_put_tag)
_DELETE_TAG = Statement(
    delete(t.tag).where(t.tag.c.repository_id == _P("repository"), t.tag.c.name_key == _P("key"))
)
_ADD_EVENT = Statement(
    lambda insert: insert(t.tag_event).values(
        {column.name: _P(column.name) for column in t.tag_event.c if column.name != "id"}
    )
)
_USE_SPELLING = Statement(
    lambda insert: (
        insert(t.spelling)
        .values(kind=_P("kind"), key=_P("key"), text=_P("text"), since=_P("since"), uses=1)
        .on_conflict_do_update(
            index_elements=[t.spelling.c.kind, t.spelling.c.key, t.spelling.c.text],
            set_={"uses": t.spelling.c.uses + 1},
        )
    )
)
_SAME_SPELLING = (
    t.spelling.c.kind == _P("b_kind"),
    t.spelling.c.key == _P("b_key"),
    t.spelling.c.text == _P("b_text"),
)
_DROP_SPELLING = Statement(delete(t.spelling).where(*_SAME_SPELLING, t.spelling.c.uses <= 1))
_UNUSE_SPELLING = Statement(
    update(t.spelling).where(*_SAME_SPELLING).values(uses=t.spelling.c.uses - 1)
)
_NAME_COLUMNS = ("host", "namespace", "model", "tag")
_DROP_FOLDER_CHANGE = Statement(
    delete(t.folder_change).where(*(t.folder_change.c[name] == _P(name) for name in _NAME_COLUMNS))
)
_ADD_FOLDER_CHANGE = Statement(
    lambda insert: insert(t.folder_change).values(
        {name: _P(name) for name in (*_NAME_COLUMNS, "manifest_digest")}
    )
)
_PATH = Statement(select(t.repository.c.path).where(t.repository.c.id == _P("repository")))
_DROP_RECORDS = Statement(delete(t.folder_change).where(t.folder_change.c.host == ""))
_ITS_MODEL_TAG = (
    select(t.tag.c.name)
    .where(
        t.tag.c.repository_id == t.repository_manifest.c.repository_id,
        t.tag.c.manifest_digest == t.repository_manifest.c.digest,
        t.tag.c.is_model == true(),
        t.tag.c.manifest_digest < "sha512:",
    )
    .exists()
)
_RECORD_MANIFESTS = Statement(
    insert(t.folder_change).from_select(
        _NAME_COLUMNS,
        select(literal(""), t.repository.c.path_key, literal(""), t.repository_manifest.c.digest)
        .join_from(
            t.repository_manifest,
            t.repository,
            t.repository.c.id == t.repository_manifest.c.repository_id,
        )
        .where(~_ITS_MODEL_TAG),
    )
)
_RECORD_TAGS = Statement(
    insert(t.folder_change).from_select(
        _NAME_COLUMNS,
        select(literal(""), t.repository.c.path_key, literal(""), t.tag.c.name_key)
        .join_from(t.tag, t.repository, t.repository.c.id == t.tag.c.repository_id)
        .where(or_(t.tag.c.is_model == false(), t.tag.c.manifest_digest > "sha512:")),
    )
)
_FORGET_FOLDER_CHANGES = Statement(
    delete(t.folder_change).where(t.folder_change.c.id <= _P("up_to"))
)


def _is_sha512(*digests: str | None) -> bool:
    """Whether one of them is; a file has no place for that."""
    return any(text is not None and text.startswith("sha512:") for text in digests)


class NameReader(ModelReader):
    """The reader's methods about names."""

    def repository(self, name: RepositoryName) -> Repository | None:
        """See `Reader`."""
        row = self._sql.one(_REPOSITORY, key=name.key)
        return Repository(row[0], RepositoryName(row[1])) if row else None

    def repositories(self, after: str, limit: int) -> list[RepositoryName]:
        """See `Reader`."""
        rows = self._sql.all(_REPOSITORIES, after=after.lower(), count=limit)
        return [RepositoryName(path) for (path,) in rows]

    def tag(self, repository_id: int, name: str) -> Tag | None:
        """See `Reader`."""
        row = self._sql.one(_TAG, repository=repository_id, key=name.lower())
        return tag_of(row) if row else None

    def tags(self, repository_id: int, after: str, limit: int) -> list[str]:
        """See `Reader`."""
        rows = self._sql.all(_TAG_NAMES, repository=repository_id, after=after, count=limit)
        return [name for (name,) in rows]

    def manifest_tags(self, digest: Digest) -> list[Tag]:
        """See `Reader`."""
        return [tag_of(row) for row in self._sql.all(_MANIFEST_TAGS, digest=str(digest))]


class NameWriter(NameReader):
    """The transaction's methods about names."""

    def put_repository(self, name: RepositoryName) -> Repository:
        """See `Transaction`."""
        row = self._sql.one(_REPOSITORY, key=name.key) or self._add_repository(name)
        if row[1] != name.path and self._sql.one(_IS_EMPTY, repository=row[0]):
            # nothing bears the old spelling any more, so it is not the first one either
            self._sql.run(_RESPELL, repository=row[0], path=name.path)
            return Repository(row[0], name)
        return Repository(row[0], RepositoryName(row[1]))

    def _add_repository(self, name: RepositoryName) -> Row:
        row = self._sql.one(_ADD_REPOSITORY, path_key=name.key, path=name.path)
        row = row or self._sql.one(_REPOSITORY, key=name.key)  # another transaction was first
        assert row is not None
        return row

    def put_tag(
        self, repository_id: int, name: str, digest: Digest, now: int, who: str = ""
    ) -> Tag:
        """See `Transaction`."""
        row = self._sql.one(
            _TAG_AND_TARGET, repository=repository_id, key=name.lower(), digest=str(digest)
        )
        if row is None:
            raise RepositoryUnknown("repository name not known to registry")
        path, known, old, target, has_card, was_model = row
        if target is None:
            raise ManifestUnknown(f"manifest unknown: {digest}")
        repository = Repository(repository_id, RepositoryName(path))
        tag = Tag(repository, known or name, digest, now)
        model = tag.model
        is_model = bool(has_card) and model.is_valid
        self._sql.run(
            _PUT_TAG,
            repository_id=repository_id,
            name_key=name.lower(),
            name=name,
            manifest_digest=str(digest),
            updated_at=now,
            is_model=is_model,
        )
        if known is None:
            self._use_spelling(model, now)
        self._record(tag, (old, str(digest)), now, who)
        references: list[str] = []
        if not is_model or (known is not None and not was_model) or _is_sha512(old, str(digest)):
            references += tag.name, str(digest)
        if was_model and old != str(digest):
            references.append(old)  # this tag's file is another manifest's now
        self._change_files(tag, str(digest) if is_model else None, references)
        return tag

    def delete_tag(self, repository_id: int, name: str, who: str = "") -> Digest | None:
        """See `Transaction`."""
        tag = self.tag(repository_id, name)
        if tag is None:
            return None
        is_model = self.find_model(tag.model) is not None
        self._sql.run(_DELETE_TAG, repository=repository_id, key=name.lower())
        self._unuse_spelling(tag.model)
        self._record(tag, (str(tag.digest), None), self._clock(), who)
        references = [str(tag.digest)]
        if not is_model or tag.digest.algorithm != "sha256":
            references.insert(0, tag.name)
        self._change_files(tag, None, references)
        return tag.digest

    def record(self, repository_id: int, reference: str) -> None:
        """See `UpkeepWriter`."""
        row = self._sql.one(_PATH, repository=repository_id)
        if row is not None:
            self._note_changes([(RecordName(RepositoryName(row[0]), reference), None)])

    def record_all(self) -> None:
        """See `UpkeepWriter`."""
        for statement in (_DROP_RECORDS, _RECORD_TAGS, _RECORD_MANIFESTS):
            self._sql.run(statement)

    def forget_folder_changes(self, up_to_id: int) -> None:
        """See `Transaction`."""
        self._sql.run(_FORGET_FOLDER_CHANGES, up_to=up_to_id)

    def _record(self, tag: Tag, change: tuple[str | None, str | None], now: int, who: str) -> None:
        """Note what a tag was and is."""
        old, new = change
        self._sql.run(
            _ADD_EVENT,
            repository_id=tag.repository.id,
            path=tag.repository.name.path,
            name=tag.name,
            at=now,
            old_digest=old,
            new_digest=new,
            subject=who,
        )

    def _change_files(self, tag: Tag, digest: str | None, references: Sequence[str]) -> None:
        """Note what a tag's file is to hold, and records of its repository that may differ."""
        changes: list[tuple[ModelName | RecordName, str | None]] = []
        if tag.model.is_valid:  # the models folder holds no others
            changes.append((tag.model, digest))
        repository = tag.repository.name
        changes += [(RecordName(repository, reference), None) for reference in references]
        self._note_changes(changes)

    def _note_changes(self, changes: Sequence[tuple[ModelName | RecordName, str | None]]) -> None:
        names = [(name_parts(name), digest) for name, digest in changes]
        self._sql.many(_DROP_FOLDER_CHANGE, [parts for parts, _ in names])
        rows = [{**parts, "manifest_digest": digest} for parts, digest in names]
        self._sql.many(_ADD_FOLDER_CHANGE, rows)

    def _use_spelling(self, name: ModelName, now: int) -> None:
        texts = (name.host, name.namespace, name.model, name.tag)
        rows = [
            {"kind": kind, "key": text.lower(), "text": text, "since": now}
            for kind, text in enumerate(texts)
        ]
        self._sql.many(_USE_SPELLING, rows)

    def _unuse_spelling(self, name: ModelName) -> None:
        for kind, text in enumerate((name.host, name.namespace, name.model, name.tag)):
            same = {"b_kind": kind, "b_key": text.lower(), "b_text": text}
            if not self._sql.run(_DROP_SPELLING, **same):
                self._sql.run(_UNUSE_SPELLING, **same)
