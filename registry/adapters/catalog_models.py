"""Models: tags whose manifests are models, how names are spelt, the models folder; read-only.

That part of the catalog's SQL which listings and point lookups of the Ollama API use.
"""

import gc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    false,
    func,
    or_,
    select,
    true,
)

from registry.adapters import tables as t
from registry.adapters import tables_upkeep as u
from registry.adapters.statements import Queries, Row, Statement, digest_of
from registry.core.names import DEFAULT_NAMESPACE, ModelName, RepositoryName
from registry.core.records import Record, RecordName
from registry.ports.catalog import FolderChange, Model, ModelChange, Repository, Tag

T = TypeVar("T")

_P = bindparam
_TAG_COLUMNS = (
    t.repository.c.id,
    t.repository.c.path,
    t.tag.c.name,
    t.tag.c.manifest_digest,
    t.tag.c.updated_at,
)
_ITS_REPOSITORY = t.repository.c.id == t.tag.c.repository_id
TAGS = select(*_TAG_COLUMNS).join_from(t.tag, t.repository, _ITS_REPOSITORY)


def _models(*columns: ColumnElement[Any]) -> Select[Any]:
    return (
        select(*columns)
        .join_from(t.tag, t.repository, _ITS_REPOSITORY)
        .join(t.manifest, t.manifest.c.digest == t.tag.c.manifest_digest)
        .where(t.tag.c.is_model == true())
    )


_MODELS = _models(*_TAG_COLUMNS, t.manifest.c.card)

_MODEL = Statement(
    TAGS.where(
        t.repository.c.path_key == _P("path_key"),
        t.tag.c.name_key == _P("key"),
        t.tag.c.is_model == true(),
    )
)
_ALL_MODELS = Statement(_MODELS.order_by(t.tag.c.updated_at.desc()))
_EACH_MODEL = Statement(
    _models(t.repository.c.path, t.tag.c.name, t.tag.c.updated_at, t.manifest.c.card)
)
_NS = 1_000_000_000
_LAST_SECOND = (1 << 63) // _NS - 1
_PAGE_ROWS = 4_000  # with their cards some 3 MiB; a fuller second is sorted anew for each page
_SECOND = t.tag.c.updated_at // _NS
_OF_THE_DEFAULT = and_(
    func.substr(t.repository.c.path, 1, len(DEFAULT_NAMESPACE) + 1) == f"{DEFAULT_NAMESPACE}/",
    t.repository.c.path.not_like("%/%/%"),
)
_SHORT = (
    case(  # core.names.short_name
        (_OF_THE_DEFAULT, func.substr(t.repository.c.path, len(DEFAULT_NAMESPACE) + 2)),
        else_=t.repository.c.path,
    )
    .concat(":")
    .concat(t.tag.c.name)
)
_LAST_OF_PAGE = Statement(
    select(t.tag.c.updated_at)
    .where(t.tag.c.is_model == true(), t.tag.c.updated_at < _P("until"))
    .order_by(t.tag.c.updated_at.desc())
    .offset(_P("skipped"))
    .limit(1)
)
_ITS_KEYS = (
    select(
        t.repository.c.path,
        t.tag.c.name,
        t.tag.c.updated_at,
        t.tag.c.manifest_digest,
        _SECOND.label("second"),
        _SHORT.label("short"),
    )
    .join_from(t.tag, t.repository, _ITS_REPOSITORY)
    .where(
        t.tag.c.is_model == true(),
        t.tag.c.updated_at >= _P("since"),
        t.tag.c.updated_at < _P("until"),
        or_(t.tag.c.updated_at < _P("newest"), _P("after") < _SHORT),
    )
    .order_by(_SECOND.desc(), _SHORT)
    .limit(_P("count"))
    .subquery()
)
_PAGE = Statement(  # the cards of this page only: those that it was chosen from may be many
    select(
        _ITS_KEYS.c.path,
        _ITS_KEYS.c.name,
        _ITS_KEYS.c.updated_at,
        t.manifest.c.card,
        _ITS_KEYS.c.short,
    )
    .join_from(_ITS_KEYS, t.manifest, t.manifest.c.digest == _ITS_KEYS.c.manifest_digest)
    .order_by(_ITS_KEYS.c.second.desc(), _ITS_KEYS.c.short)
)
_SOME_MODELS = (
    select(t.tag.c.updated_at).where(t.tag.c.is_model == true()).limit(_P("most")).subquery()
)
_COUNT = Statement(select(func.count()).select_from(_SOME_MODELS))
_ONE_MODEL = Statement(
    _MODELS.where(t.tag.c.repository_id == _P("repository"), t.tag.c.name_key == _P("key"))
)
_LAST_EVENT = Statement(select(func.max(t.tag_event.c.id)))
_CHANGED_TAGS = Statement(
    select(
        func.max(t.tag_event.c.id),
        t.tag_event.c.repository_id,
        t.tag_event.c.path,
        t.tag_event.c.name,
    )
    .where(t.tag_event.c.id > _P("after"))
    .group_by(t.tag_event.c.repository_id, t.tag_event.c.path, t.tag_event.c.name)
    .order_by(func.max(t.tag_event.c.id))
)
_SPELLINGS = Statement(
    select(
        *(
            select(t.spelling.c.text)
            .where(t.spelling.c.kind == kind, t.spelling.c.key == _P(part))
            .order_by(t.spelling.c.since, t.spelling.c.text)
            .limit(1)
            .scalar_subquery()
            for kind, part in enumerate(("host", "namespace", "model", "tag"))
        )
    )
)
_FOLDER_CHANGES = Statement(
    select(
        t.folder_change.c.id,
        t.folder_change.c.host,
        t.folder_change.c.namespace,
        t.folder_change.c.model,
        t.folder_change.c.tag,
        t.manifest.c.body,
    )
    .outerjoin_from(
        t.folder_change, t.manifest, t.manifest.c.digest == t.folder_change.c.manifest_digest
    )
    .where(t.folder_change.c.id > _P("after"))
    .order_by(t.folder_change.c.id)
    .limit(_P("count"))
)
_IS_DUE = Statement(
    select(t.folder_change.c.id).where(
        *(t.folder_change.c[part] == _P(part) for part in ("host", "namespace", "model", "tag"))
    )
)
_RECORDED_TAG = Statement(
    select(t.repository.c.path, t.tag.c.name, t.tag.c.manifest_digest)
    .join_from(t.repository, t.tag, _ITS_REPOSITORY)
    .where(
        t.repository.c.path_key == _P("path_key"),
        t.tag.c.name_key == _P("key"),
        # a model's tag has a file, whose digest is its sha256
        or_(t.tag.c.is_model == false(), t.tag.c.manifest_digest > "sha512:"),
    )
)
_RECORDED_MANIFEST = Statement(
    select(t.repository.c.path, t.manifest.c.media_type, t.manifest.c.body)
    .join_from(
        t.repository,
        t.repository_manifest,
        t.repository_manifest.c.repository_id == t.repository.c.id,
    )
    .join(t.manifest, t.manifest.c.digest == t.repository_manifest.c.digest)
    .where(
        t.repository.c.path_key == _P("path_key"),
        t.manifest.c.digest == _P("key"),
        # one that can be brought back is deleted nevertheless
        ~select(u.condemned.c.at)
        .where(
            u.condemned.c.repository_id == t.repository.c.id,
            u.condemned.c.digest == t.manifest.c.digest,
        )
        .exists(),
    )
)
_ALIASES = Statement(
    select(t.manifest_reference.c.digest, t.manifest_reference.c.target).where(
        t.manifest_reference.c.manifest_digest == _P("digest"),
        t.manifest_reference.c.target != t.manifest_reference.c.digest,
    )
)


def name_parts(name: ModelName | RecordName) -> dict[str, str]:
    """The columns of a name in `folder_change`. A record's host is empty."""
    if isinstance(name, RecordName):
        return {"host": "", "namespace": name.repository.key, "model": "", "tag": name.key}
    return {"host": name.host, "namespace": name.namespace, "model": name.model, "tag": name.tag}


def tag_of(row: Row) -> Tag:
    """The tag that a row of `TAGS` begins with."""
    repository = Repository(row[0], RepositoryName(row[1]))
    return Tag(repository, row[2], digest_of(row[3]), row[4])


def _newest_first(row: Row) -> tuple[int, str, str]:
    """The order of models. SQLite would sort with the cards in hand: twice as slow."""
    return -row[4], row[1].lower(), row[2].lower()


@contextmanager
def _without_collection() -> Generator[None]:
    """No garbage collection meanwhile: it would go through each new row again and again.

    For 100,000 models that is 0.7 s of 1.2 s, and nothing here is garbage.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class ModelReader(Queries):
    """The reader's methods about models."""

    def find_model(self, name: ModelName) -> Tag | None:
        """See `Reader`."""
        row = self._sql.one(_MODEL, path_key=name.repository.key, key=name.tag.lower())
        return tag_of(row) if row else None

    def known_spelling(self, name: ModelName) -> ModelName:
        """See `Reader`."""
        row = self._sql.one(
            _SPELLINGS,
            host=name.host.lower(),
            namespace=name.namespace.lower(),
            model=name.model.lower(),
            tag=name.tag.lower(),
        )
        host, namespace, model, tag = row or (None,) * 4
        return ModelName(
            host or name.host, namespace or name.namespace, model or name.model, tag or name.tag
        )

    def models(self) -> list[Model]:
        """See `Reader`."""
        with _without_collection():
            rows = self._sql.all(_ALL_MODELS)
            rows.sort(key=_newest_first)
            return [Model(tag_of(row), row[5]) for row in rows]

    def each_model(self, make: Callable[[str, str, int, str], T]) -> list[T]:
        """See `Reader`."""
        return self._sql.each(_EACH_MODEL, make)

    def hand_models(self, take: Callable[[str, str, int, str], None]) -> None:
        """See `Reader`. Whole seconds, as many as fill a page, by the index of times.

        A second with more models than that is sorted again for each page of it.
        """
        second, after = _LAST_SECOND, ""  # what is newer, and in it up to there, was handed over
        while True:
            until = (second + 1) * _NS
            last = self._sql.one(_LAST_OF_PAGE, until=until, skipped=_PAGE_ROWS - 1)
            since = last[0] // _NS if last else 0
            bounds = {"since": since * _NS, "until": until, "newest": second * _NS}
            rows = self._sql.all(_PAGE, after=after, count=_PAGE_ROWS, **bounds)
            for path, name, updated, card, _ in rows:
                take(path, name, updated, card)
            if len(rows) == _PAGE_ROWS:
                second, after = rows[-1][2] // _NS, rows[-1][4]
            elif last:
                second, after = since - 1, ""
            else:
                return

    def count_models(self, most: int) -> int:
        """See `Reader`."""
        row = self._sql.one(_COUNT, most=most)
        return row[0] if row else 0

    def last_change(self) -> int:
        """See `Reader`."""
        row = self._sql.one(_LAST_EVENT)
        return (row and row[0]) or 0

    def model_changes(self, after: int) -> list[ModelChange]:
        """See `Reader`."""
        changes = []
        for _, repository_id, path, name in self._sql.all(_CHANGED_TAGS, after=after):
            row = self._sql.one(_ONE_MODEL, repository=repository_id, key=name.lower())
            model = Model(tag_of(row), row[5]) if row and (row[1], row[2]) == (path, name) else None
            changes.append(ModelChange(RepositoryName(path).model_name(name), model))
        return changes

    def is_folder_change_due(self, name: ModelName | RecordName) -> bool:
        """See `Reader`."""
        return self._sql.one(_IS_DUE, **name_parts(name)) is not None

    def folder_changes(self, limit: int, after: int = 0) -> list[FolderChange]:
        """See `Reader`."""
        changes = []
        for id_, host, *parts, body in self._sql.all(_FOLDER_CHANGES, count=limit, after=after):
            if host:
                changes.append(FolderChange(id_, ModelName(host, *parts), body))
            else:
                name = RecordName(RepositoryName(parts[0]), parts[2])
                changes.append(FolderChange(id_, name, None))
        return changes

    def recorded(self, name: RecordName) -> Record | None:
        """See `UpkeepReader`."""
        return self._manifest_record(name) if name.is_digest else self._tag_record(name)

    def _tag_record(self, name: RecordName) -> Record | None:
        row = self._sql.one(_RECORDED_TAG, path_key=name.repository.key, key=name.key)
        if row is None:
            return None
        return Record(RecordName(RepositoryName(row[0]), row[1]), digest_of(row[2]))

    def _manifest_record(self, name: RecordName) -> Record | None:
        row = self._sql.one(_RECORDED_MANIFEST, path_key=name.repository.key, key=name.key)
        if row is None:
            return None
        path, media_type, body = row
        named = RecordName(RepositoryName(path), name.reference)
        aliases = self._sql.all(_ALIASES, digest=name.key) if b"sha512:" in body else []
        own = {digest_of(alias): digest_of(target) for alias, target in aliases}
        return Record(named, digest_of(name.key), media_type, body, own)
