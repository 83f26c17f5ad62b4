"""Who moved a tag, deleted manifests kept for a time, checked blobs, quotas, retention rules."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


TEXT = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


def upgrade() -> None:
    op.add_column("tag_event", sa.Column("subject", TEXT, nullable=False, server_default=""))
    op.create_index("ix_tag_event_repository_id_id", "tag_event", ["repository_id", "id"])
    op.add_column("blob", _number("verified_at"))
    op.add_column("blob", _number("suspect_at"))
    suspect = sa.text("suspect_at > 0")
    op.create_index(
        "ix_blob_suspect", "blob", ["digest"], sqlite_where=suspect, postgresql_where=suspect
    )
    op.add_column("upload", _number("reserved"))
    op.create_table(
        "condemned",
        sa.Column("repository_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("repository_id", "digest", name="pk_condemned"),
        sa.ForeignKeyConstraint(
            ["repository_id", "digest"],
            ["repository_manifest.repository_id", "repository_manifest.digest"],
            name="fk_condemned_repository_id_digest",
            ondelete="CASCADE",
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_condemned_at", "condemned", ["at"])
    op.create_table(
        "quota",
        sa.Column("namespace_key", TEXT, nullable=False),
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("namespace_key", name="pk_quota"),
    )
    op.create_table(
        "retention_rule",
        sa.Column("pattern", TEXT, nullable=False),
        sa.Column("keep_last", sa.BigInteger, nullable=False),
        sa.Column("keep_s", sa.BigInteger, nullable=False),
        sa.Column("keep_tags", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("pattern", name="pk_retention_rule"),
    )


def downgrade() -> None:
    op.drop_table("retention_rule")
    op.drop_table("quota")
    op.drop_table("condemned")
    op.drop_column("upload", "reserved")
    op.drop_index("ix_blob_suspect", "blob")
    op.drop_column("blob", "suspect_at")
    op.drop_column("blob", "verified_at")
    op.drop_index("ix_tag_event_repository_id_id", "tag_event")
    op.drop_column("tag_event", "subject")
