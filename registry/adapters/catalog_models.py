"""Models: tags whose manifests are models, how names are spelt, the models folder; read-only.

That part of the catalog's SQL which listings and point lookups of the Ollama API use.
"""

import gc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, bindparam, func, select, true

from registry.adapters import tables as t
from registry.adapters.statements import Queries, Row, Statement, digest_of
from registry.core.names import ModelName, RepositoryName
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

    def is_folder_change_due(self, name: ModelName) -> bool:
        """See `Reader`."""
        parts = {
            "host": name.host,
            "namespace": name.namespace,
            "model": name.model,
            "tag": name.tag,
        }
        return self._sql.one(_IS_DUE, **parts) is not None

    def folder_changes(self, limit: int, after: int = 0) -> list[FolderChange]:
        """See `Reader`."""
        rows = self._sql.all(_FOLDER_CHANGES, count=limit, after=after)
        return [FolderChange(row[0], ModelName(*row[1:5]), row[5]) for row in rows]
