"""The tables of accounts, keys and rights, in the same schema as `tables.py`.

Secrets lie here only as digests. Rights and endpoint groups are kept in words, which outlive a new
numbering of the flags.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)

from registry.adapters.tables import _ID, _TEXT, _some, metadata


def _account() -> ForeignKey:
    return ForeignKey("account.id", ondelete="CASCADE")


# `sqlite_autoincrement`: an id is never given twice, since tokens outlive their accounts.
account = Table(
    "account",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name_key", _TEXT, nullable=False),
    Column("kind", _TEXT, nullable=False),
    Column("name", _TEXT, nullable=False),
    Column("is_admin", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("password_hash", _TEXT, nullable=False),
    UniqueConstraint("name_key"),
    Index(None, "is_admin"),
    sqlite_autoincrement=True,
)

team = Table(
    "team",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name_key", _TEXT, nullable=False),
    Column("name", _TEXT, nullable=False),
    UniqueConstraint("name_key"),
    sqlite_autoincrement=True,
)

team_member = Table(
    "team_member",
    metadata,
    Column("account_id", BigInteger, _account(), autoincrement=False),
    Column("team_id", BigInteger, ForeignKey("team.id", ondelete="CASCADE"), autoincrement=False),
    PrimaryKeyConstraint("account_id", "team_id"),
    Index(None, "team_id"),
    sqlite_with_rowid=False,
)

public_key = Table(
    "public_key",
    metadata,
    Column("blob", _TEXT, primary_key=True),
    Column("fingerprint", _TEXT, nullable=False),
    Column("account_id", BigInteger, _account(), nullable=False),
    Column("title", _TEXT, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    Column("rights", _TEXT, nullable=False),
    UniqueConstraint("fingerprint"),
    Index(None, "account_id"),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", _TEXT, primary_key=True),
    Column("account_id", BigInteger, _account(), nullable=False),
    Column("title", _TEXT, nullable=False),
    Column("hint", _TEXT, nullable=False),
    Column("sha256", _TEXT, nullable=False),
    Column("groups", _TEXT, nullable=False),
    Column("scopes", _TEXT),  # JSON, null if the key is not narrowed
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("used_at", BigInteger),
    UniqueConstraint("sha256"),
    Index(None, "account_id"),
    _some("ix_api_key_expiring", "expires_at IS NOT NULL", "expires_at"),
)

session = Table(
    "session",
    metadata,
    Column("sha256", _TEXT, primary_key=True),
    Column("account_id", BigInteger, _account(), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index(None, "account_id"),
    Index(None, "expires_at"),
)

code = Table(
    "code",
    metadata,
    Column("sha256", _TEXT, primary_key=True),
    Column("purpose", _TEXT, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("account_id", BigInteger, _account()),
    Column("subject", _TEXT, nullable=False),
    Column("note", _TEXT, nullable=False),
    Index(None, "account_id"),
    Index(None, "expires_at"),
)

# Rules. `subject_id` is an account's, a team's, or 0 where the kind says all.
access_rule = Table(
    "access_rule",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("kind", _TEXT, nullable=False),  # user, team, users, everybody
    Column("subject_id", BigInteger, nullable=False),
    Column("pattern", _TEXT, nullable=False),
    Column("rights", _TEXT, nullable=False),
    UniqueConstraint("kind", "subject_id", "pattern", "rights"),
    sqlite_autoincrement=True,
)

access_policy = Table(
    "access_policy",
    metadata,
    Column("pattern", _TEXT, primary_key=True),
    Column("visibility", _TEXT, nullable=False),
    Column("immutable", _TEXT, nullable=False),  # JSON list
)

nonce = Table(
    "nonce",
    metadata,
    Column("key", _TEXT),
    Column("nonce", _TEXT),
    Column("until", BigInteger, nullable=False),
    PrimaryKeyConstraint("key", "nonce"),
    Index(None, "until"),
    sqlite_with_rowid=False,
)

audit = Table(
    "audit",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("who", _TEXT, nullable=False),
    Column("via", _TEXT, nullable=False),
    Column("address", _TEXT, nullable=False),
    Column("action", _TEXT, nullable=False),
    Column("target", _TEXT, nullable=False),
    Column("result", _TEXT, nullable=False),
    Column("request_id", _TEXT, nullable=False),
    sqlite_autoincrement=True,
)

# Blobs that an account sent itself: it need not be able to read them anywhere to use them.
account_blob = Table(
    "account_blob",
    metadata,
    Column("account_id", BigInteger, _account(), autoincrement=False),
    Column("digest", _TEXT),
    Column("until", BigInteger, nullable=False),
    PrimaryKeyConstraint("account_id", "digest"),
    Index(None, "until"),
    sqlite_with_rowid=False,
)

# One row: how often anything changed that decides what a caller may do or prove.
account_change = Table(
    "account_change",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
)
