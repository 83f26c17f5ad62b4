"""What `/api/v1` takes and gives about storage, gc, scrub, quotas, retention and history."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints

from registry.web.api_v1_fleet_schemas import ModelText
from registry.web.api_v1_schemas import (
    BIGGEST,
    TEN_YEARS_S,
    Answer,
    Ask,
    Pattern,
    Seconds,
    TagPattern,
    _whole,
)

NAMESPACE = r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_-]{0,79})?$"
REGISTRY = r"^https?://[A-Za-z0-9][A-Za-z0-9.-]*(:[1-9][0-9]{0,3}|:[1-5][0-9]{4})?/?$"
CURSOR = r"^[A-Za-z0-9_.:/-]*$"

Namespace = Annotated[str, StringConstraints(pattern=NAMESPACE)]
Cursor = Annotated[str, StringConstraints(pattern=CURSOR, max_length=512)]
Whole = Annotated[int, Field(ge=0, le=BIGGEST), BeforeValidator(_whole)]
Grace = Annotated[int, Field(ge=0, le=TEN_YEARS_S), BeforeValidator(_whole)]
Id = Annotated[int, Field(ge=0, le=1 << 60), BeforeValidator(_whole)]
Limit = Annotated[int, Field(ge=1, le=1000)]


_KEEPS_SOMETHING: list[Any] = [
    {"required": [name], "properties": {name: least}}
    for name, least in (
        ("keep_last", {"minimum": 1}),
        ("keep_s", {"minimum": 1}),
        ("keep_tags", {"minItems": 1}),
    )
]


class StorageQuery(Ask):
    """What of the storage is asked for."""

    name: Cursor = Field(
        "", description="a namespace: its models; a model: its tags; nothing: all namespaces"
    )
    after: Cursor = Field("", description="`next` of the page before")
    limit: Limit = 100


class Heap(Answer):
    """How many things, their bytes together, and the oldest's time."""

    count: int
    bytes: int
    since: datetime | None


class Damaged(Answer):
    """A blob whose bytes were found to be wrong."""

    digest: str
    bytes: int
    found_at: datetime
    repositories: list[str] = Field(description="some that have it")


class Share(Answer):
    """What a name takes: each blob counts once; `unique` would be free without it."""

    name: str
    blobs: int
    bytes: int
    unique: int


class Quota(Answer):
    """What a namespace may take; `used` is never too little."""

    namespace: str
    bytes: int
    used: int


class Quotas(Answer):
    """All quotas."""

    quotas: list[Quota]


class Storage(Answer):
    """Bytes: all of them, and those of a page of names."""

    blobs: Heap
    unused: Heap = Field(description="blobs that no model refers to")
    uploads: Heap = Field(description="uploads under way")
    fetches: Heap = Field(description="fetches from other registries under way")
    damaged: list[Damaged]
    quotas: list[Quota]
    names: list[Share]
    next: str | None


class PlanQuery(Ask):
    """How a collection is to be planned."""

    grace_s: Grace | None = Field(None, description="instead of the setting's")
    untagged: bool = Field(False, description="manifests that have had no tag for the grace, too")
    orphans: bool = Field(True, description="list the store, too")


class Finding(Answer):
    """Bytes, and why they go or stay."""

    reason: str
    text: str
    count: int
    bytes: int
    since: datetime | None


class Plan(Answer):
    """What a collection would do now."""

    goes: list[Finding]
    stays: list[Finding]


class CollectionAsk(Ask):
    """A collection to be done."""

    grace_s: Grace | None = Field(None, description="instead of the setting's")
    untagged: bool = Field(False, description="manifests that have had no tag for the grace, too")


class ScrubAsk(Ask):
    """A scrub to be done."""

    subset: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,3}/[1-9][0-9]{0,3}$")] = "1/1"
    bytes_per_second: Whole = Field(0, description="0: as fast as it goes")
    only_damaged: bool = False
    repair_from: Annotated[str, StringConstraints(pattern=REGISTRY, max_length=500)] | None = Field(
        None, description="URL of a registry that has the same blobs"
    )


class Line(Answer):
    """One line of the stream; the last has the status `success`, or there is an `error`."""

    status: str = ""
    error: str = ""
    count: int = 0
    size: int = 0
    digest: str = ""
    total: int = 0
    completed: int = 0


class QuotaAsk(Ask):
    """A quota to be set."""

    namespace: Namespace
    bytes: Annotated[int, Field(ge=0, le=1 << 62), BeforeValidator(_whole)]


class OneNamespace(Ask):
    """Which quota."""

    namespace: Namespace


class Rule(Ask):
    """What is kept of the repositories that a pattern covers; all else goes.

    It must keep something: a rule that says nothing else would delete every tag.
    """

    model_config = ConfigDict(json_schema_extra={"anyOf": _KEEPS_SOMETHING})

    pattern: Pattern
    keep_last: Annotated[int, Field(ge=0, le=10**9), BeforeValidator(_whole)] = Field(
        0, description="so many tags, those that were moved last"
    )
    keep_s: Seconds | Literal[0] = Field(0, description="tags moved in the last so many seconds")
    keep_tags: list[TagPattern] = Field(default=[], max_length=20)


class Rules(Answer):
    """All rules of retention."""

    rules: list[Rule]


class OnePattern(Ask):
    """Which rule."""

    pattern: Pattern


class RetentionAsk(Ask):
    """Whether tags that no rule keeps are to be deleted, or only named."""

    dry_run: bool


class HistoryQuery(Ask):
    """Whose history."""

    model: ModelText
    before: Id = 0
    limit: Limit = 100


class Change(Answer):
    """A change of a tag. `kept`: what it was then can be restored."""

    id: int
    at: datetime
    who: str
    old: str | None
    new: str | None
    kept: bool


class Changes(Answer):
    """Changes of a tag, newest first."""

    model: str
    changes: list[Change]


class RestoreAsk(Ask):
    """What a tag is to point at again."""

    model: ModelText
    to: Id = Field(0, description="id of a change; 0: what it was before its last one")


class Restored(Answer):
    """Where the tag points now."""

    model: str
    digest: str
