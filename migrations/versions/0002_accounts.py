"""Accounts, credentials, rights, the audit."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


TEXT = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _of_account(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["account_id"], ["account.id"], name=f"fk_{table}_account_id", ondelete="CASCADE"
    )


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("id", ID, nullable=False),
        sa.Column("name_key", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("is_admin", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("password_hash", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_account"),
        sa.UniqueConstraint("name_key", name="uq_account_name_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_account_is_admin", "account", ["is_admin"])
    op.create_table(
        "team",
        sa.Column("id", ID, nullable=False),
        sa.Column("name_key", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_team"),
        sa.UniqueConstraint("name_key", name="uq_team_name_key"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "team_member",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("team_id", sa.BigInteger(), autoincrement=False, nullable=False),
        _of_account("team_member"),
        sa.ForeignKeyConstraint(
            ["team_id"], ["team.id"], name="fk_team_member_team_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "team_id", name="pk_team_member"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_team_member_team_id", "team_member", ["team_id"])
    _credentials()
    _rights()


def _credentials() -> None:
    op.create_table(
        "public_key",
        sa.Column("blob", TEXT, nullable=False),
        sa.Column("fingerprint", TEXT, nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("title", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.Column("rights", TEXT, nullable=False),
        _of_account("public_key"),
        sa.PrimaryKeyConstraint("blob", name="pk_public_key"),
        sa.UniqueConstraint("fingerprint", name="uq_public_key_fingerprint"),
    )
    op.create_index("ix_public_key_account_id", "public_key", ["account_id"])
    op.create_table(
        "api_key",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("title", TEXT, nullable=False),
        sa.Column("hint", TEXT, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("groups", TEXT, nullable=False),
        sa.Column("scopes", TEXT, nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        _of_account("api_key"),
        sa.PrimaryKeyConstraint("id", name="pk_api_key"),
        sa.UniqueConstraint("sha256", name="uq_api_key_sha256"),
    )
    op.create_index("ix_api_key_account_id", "api_key", ["account_id"])
    op.create_index(
        "ix_api_key_expiring",
        "api_key",
        ["expires_at"],
        sqlite_where=sa.text("expires_at IS NOT NULL"),
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_table(
        "session",
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        _of_account("session"),
        sa.PrimaryKeyConstraint("sha256", name="pk_session"),
    )
    op.create_index("ix_session_account_id", "session", ["account_id"])
    op.create_index("ix_session_expires_at", "session", ["expires_at"])
    op.create_table(
        "code",
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("purpose", TEXT, nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=True),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("note", TEXT, nullable=False),
        _of_account("code"),
        sa.PrimaryKeyConstraint("sha256", name="pk_code"),
    )
    op.create_index("ix_code_account_id", "code", ["account_id"])
    op.create_index("ix_code_expires_at", "code", ["expires_at"])
    op.create_table(
        "nonce",
        sa.Column("key", TEXT, nullable=False),
        sa.Column("nonce", TEXT, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", "nonce", name="pk_nonce"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_nonce_until", "nonce", ["until"])


def _rights() -> None:
    op.create_table(
        "access_rule",
        sa.Column("id", ID, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("subject_id", sa.BigInteger(), nullable=False),
        sa.Column("pattern", TEXT, nullable=False),
        sa.Column("rights", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_access_rule"),
        sa.UniqueConstraint(
            "kind",
            "subject_id",
            "pattern",
            "rights",
            name="uq_access_rule_kind_subject_id_pattern_rights",
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "access_policy",
        sa.Column("pattern", TEXT, nullable=False),
        sa.Column("visibility", TEXT, nullable=False),
        sa.Column("immutable", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("pattern", name="pk_access_policy"),
    )
    op.create_table(
        "audit",
        sa.Column("id", ID, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("who", TEXT, nullable=False),
        sa.Column("via", TEXT, nullable=False),
        sa.Column("address", TEXT, nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("result", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "account_blob",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        _of_account("account_blob"),
        sa.PrimaryKeyConstraint("account_id", "digest", name="pk_account_blob"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_account_blob_until", "account_blob", ["until"])
    op.create_table(
        "account_change",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_account_change"),
    )


def downgrade() -> None:
    for table in (
        "account_change", "account_blob", "audit", "access_policy", "access_rule", "nonce", "code",
        "session", "api_key", "public_key", "team_member", "team", "account",
    ):  # fmt: skip
        op.drop_table(table)
