"""The tables of deleted manifests that wait, quotas and retention rules, as in `tables.py`."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    Table,
)

from registry.adapters.tables import _TEXT, metadata

# Manifests whose last tag was deleted or moved and that can still be brought back: since when.
condemned = Table(
    "condemned",
    metadata,
    Column("repository_id", BigInteger, autoincrement=False),
    Column("digest", _TEXT),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("repository_id", "digest"),
    ForeignKeyConstraint(
        ["repository_id", "digest"],
        ["repository_manifest.repository_id", "repository_manifest.digest"],
        ondelete="CASCADE",
    ),
    Index(None, "at"),
    sqlite_with_rowid=False,
)

# `used` is never less than what the namespace's repositories have: blobs are added as they come,
# and what went is noticed when the sum is made anew, before anything is refused.
quota = Table(
    "quota",
    metadata,
    Column("namespace_key", _TEXT, primary_key=True),
    Column("namespace", _TEXT, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
)

retention_rule = Table(
    "retention_rule",
    metadata,
    Column("pattern", _TEXT, primary_key=True),
    Column("keep_last", BigInteger, nullable=False),
    Column("keep_s", BigInteger, nullable=False),
    Column("keep_tags", _TEXT, nullable=False),  # JSON list of patterns
)
