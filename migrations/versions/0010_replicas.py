"""Processes that serve one library, what each sees of workers, and workers that get nothing new."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


TEXT = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "replica",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("url", TEXT, nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("workers", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_replica"),
    )
    op.create_table(
        "drained_worker",
        sa.Column("name", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_drained_worker"),
    )


def downgrade() -> None:
    op.drop_table("drained_worker")
    op.drop_table("replica")
