"""Long work that processes share: what it is, who does it, who waits for it."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


TEXT = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "job",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("title", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("owner", TEXT, nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("note", TEXT, nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=False),
        sa.Column("result", TEXT, nullable=False),
        sa.Column("error", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
    )
    op.create_index(
        "ix_job_key",
        "job",
        ["key"],
        unique=True,
        sqlite_where=sa.text("finished_at = 0"),
        postgresql_where=sa.text("finished_at = 0"),
    )
    op.create_index("ix_job_created_at_id", "job", ["created_at", "id"])
    op.create_table(
        "job_asker",
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("process", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "holder", name="pk_job_asker"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name="fk_job_asker_job_id", ondelete="CASCADE"
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_job_asker_process", "job_asker", ["process"])


def downgrade() -> None:
    op.drop_table("job_asker")
    op.drop_table("job")
