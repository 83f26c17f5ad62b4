"""The tables of the catalog, one schema for SQLite and Postgres. `migrations/` brings them about.

Digests are kept as text (`sha256:<hex>`), times as nanoseconds, keys (what two spellings of a name
have in common) in lower case and compared byte by byte. Columns that hold long values come last: a
row is then read up to the column that is asked for.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects import postgresql

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_ID = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers INTEGER keys only
_TEXT = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")  # byte order everywhere


def _some(name: str, condition: str, *columns: str) -> Index:
    """An index of the few rows that are searched; each further row costs a push a page to write."""
    where: dict[str, Any] = {
        "sqlite_where": text(condition.replace("false", "0")),
        "postgresql_where": text(condition),
    }
    return Index(name, *columns, **where)


def _repository() -> ForeignKey:
    return ForeignKey("repository.id")


def _blob() -> ForeignKey:
    return ForeignKey("blob.digest", ondelete="CASCADE")


repository = Table(
    "repository",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("path_key", _TEXT, nullable=False),
    Column("path", _TEXT, nullable=False),
    UniqueConstraint("path_key"),
    sqlite_autoincrement=True,
)

manifest = Table(
    "manifest",
    metadata,
    Column("digest", _TEXT, primary_key=True),
    Column("media_type", _TEXT, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("config", _TEXT),
    Column("subject", _TEXT),
    Column("artifact_type", _TEXT),
    Column("card", _TEXT),
    Column("annotations", _TEXT),
    Column("body", LargeBinary, nullable=False),
    _some("ix_manifest_subject", "subject IS NOT NULL", "subject"),
)

manifest_reference = Table(
    "manifest_reference",
    metadata,
    Column("manifest_digest", _TEXT, ForeignKey("manifest.digest", ondelete="CASCADE")),
    Column("position", Integer, autoincrement=False),
    Column("target", _TEXT, nullable=False),  # the sha256 of what `digest` names
    Column("is_blob", Boolean, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("digest", _TEXT, nullable=False),  # as the manifest has it, perhaps a sha512
    Column("media_type", _TEXT, nullable=False),
    PrimaryKeyConstraint("manifest_digest", "position"),
    _some("ix_manifest_reference_child", "is_blob = false", "target"),
    sqlite_with_rowid=False,
)

repository_manifest = Table(
    "repository_manifest",
    metadata,
    Column("repository_id", BigInteger, _repository(), autoincrement=False),
    Column("digest", _TEXT, ForeignKey("manifest.digest")),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("repository_id", "digest"),
    Index(None, "digest"),
    sqlite_with_rowid=False,
)

tag = Table(
    "tag",
    metadata,
    Column("repository_id", BigInteger, autoincrement=False),
    Column("name_key", _TEXT),
    Column("name", _TEXT, nullable=False),
    Column("manifest_digest", _TEXT, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("is_model", Boolean, nullable=False),  # it has a card, and a name that Ollama can say
    PrimaryKeyConstraint("repository_id", "name_key"),
    ForeignKeyConstraint(
        ["repository_id", "manifest_digest"],
        ["repository_manifest.repository_id", "repository_manifest.digest"],
    ),
    Index(None, "repository_id", "name"),
    Index(None, "repository_id", "manifest_digest"),
    Index(None, "is_model", "updated_at"),
    sqlite_with_rowid=False,
)

# What became of tags: one row for each put_tag and delete_tag, in the order of their commits.
tag_event = Table(
    "tag_event",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("repository_id", BigInteger, _repository(), nullable=False),
    Column("path", _TEXT, nullable=False),  # the spelling of the time
    Column("name", _TEXT, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("old_digest", _TEXT),
    Column("new_digest", _TEXT),
    Column("subject", _TEXT, nullable=False, server_default=""),  # who, as far as that is known
    Index(None, "repository_id", "id"),
    sqlite_autoincrement=True,
)

# How the parts of names are spelt, and by how many tags; `kind` is 0 to 3: host to tag.
spelling = Table(
    "spelling",
    metadata,
    Column("kind", Integer, autoincrement=False),
    Column("key", _TEXT),
    Column("text", _TEXT),
    Column("since", BigInteger, nullable=False),
    Column("uses", BigInteger, nullable=False),
    PrimaryKeyConstraint("kind", "key", "text"),
    Index(None, "kind", "key", "since"),
    sqlite_with_rowid=False,
)

# `uses` is the number of manifests that refer to the blob.
blob = Table(
    "blob",
    metadata,
    Column("digest", _TEXT, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Column("uses", BigInteger, nullable=False),
    Column("storage_key", _TEXT, nullable=False),
    Column("verified_at", BigInteger, nullable=False, server_default="0"),  # 0: on the way in
    Column("suspect_at", BigInteger, nullable=False, server_default="0"),  # 0: it is sound
    _some("ix_blob_unused", "uses = 0", "used_at"),
    _some("ix_blob_suspect", "suspect_at > 0", "digest"),
)

blob_alias = Table(
    "blob_alias",
    metadata,
    Column("alias", _TEXT, primary_key=True),
    Column("digest", _TEXT, _blob(), nullable=False),
    Index(None, "digest"),
)

# What a repository may read and refer to. `until` 0: not kept by this link, only by `uses`, the
# number of the repository's manifests that refer to the blob.
repository_blob = Table(
    "repository_blob",
    metadata,
    Column("repository_id", BigInteger, _repository(), autoincrement=False),
    Column("digest", _TEXT),
    Column("until", BigInteger, nullable=False),
    Column("uses", BigInteger, nullable=False),
    PrimaryKeyConstraint("repository_id", "digest"),
    Index(None, "digest"),
    _some("ix_repository_blob_held", "uses = 0", "digest", "until"),
    _some("ix_repository_blob_until", "uses = 0", "until"),
    sqlite_with_rowid=False,
)

lease = Table(
    "lease",
    metadata,
    Column("digest", _TEXT, _blob()),
    Column("holder", _TEXT),
    Column("until", BigInteger, nullable=False),
    PrimaryKeyConstraint("digest", "holder"),
    Index(None, "holder"),
    Index(None, "until"),
    sqlite_with_rowid=False,
)

blob_facts = Table(
    "blob_facts",
    metadata,
    Column("digest", _TEXT, _blob()),
    Column("kind", _TEXT),  # header, text
    Column("facts", LargeBinary, nullable=False),
    PrimaryKeyConstraint("digest", "kind"),
)

freed = Table(
    "freed",
    metadata,
    Column("digest", _TEXT),
    Column("storage_key", _TEXT),
    PrimaryKeyConstraint("digest", "storage_key"),
    sqlite_with_rowid=False,
)

upload = Table(
    "upload",
    metadata,
    Column("id", _TEXT, primary_key=True),
    Column("repository_id", BigInteger, _repository(), nullable=False),
    Column("storage_key", _TEXT, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("last_first", BigInteger, nullable=False),
    Column("last_length", BigInteger, nullable=False),
    Column("last_sha256", _TEXT, nullable=False),
    Column("declared_digest", _TEXT, nullable=False),
    Column("state", _TEXT, nullable=False),
    Column("result", _TEXT, nullable=False),
    Column("subject", _TEXT, nullable=False, server_default=""),
    Column("part_size", BigInteger, nullable=False, server_default="0"),
    Column("verifier", _TEXT, nullable=False, server_default=""),
    Column("verifier_beats", BigInteger, nullable=False, server_default="0"),
    Column("reserved", BigInteger, nullable=False, server_default="0"),  # bytes against a quota
    Index(None, "expires_at"),
)

fetch = Table(
    "fetch",
    metadata,
    Column("digest", _TEXT, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("storage_key", _TEXT, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index(None, "updated_at"),
)

fetch_part = Table(
    "fetch_part",
    metadata,
    Column("digest", _TEXT, ForeignKey("fetch.digest", ondelete="CASCADE")),
    Column("start", BigInteger, autoincrement=False),
    Column("stop", BigInteger, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("sha256", _TEXT, nullable=False),
    PrimaryKeyConstraint("digest", "start"),
    sqlite_with_rowid=False,
)

# Tag files of the models folder that are out of date; a name has one row, that of its last change.
folder_change = Table(
    "folder_change",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("host", _TEXT, nullable=False),
    Column("namespace", _TEXT, nullable=False),
    Column("model", _TEXT, nullable=False),
    Column("tag", _TEXT, nullable=False),
    Column("manifest_digest", _TEXT),
    UniqueConstraint("host", "namespace", "model", "tag"),
    sqlite_autoincrement=True,
)

# Contents of blobs that the store may not have yet, or not for good. A blob may have several rows:
# each is forgotten by its number once its own bytes are on the disk.
unwritten = Table(
    "unwritten",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("digest", _TEXT, _blob(), nullable=False),
    Column("storage_key", _TEXT, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Index(None, "digest"),
    sqlite_autoincrement=True,
)

secret = Table(
    "secret",
    metadata,
    Column("name", _TEXT, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
