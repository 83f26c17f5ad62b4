"""Contents of small blobs are kept until the store has them for good."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


TEXT = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "unwritten",
        sa.Column("id", ID),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("storage_key", TEXT, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_unwritten"),
        sa.ForeignKeyConstraint(
            ["digest"], ["blob.digest"], name="fk_unwritten_digest", ondelete="CASCADE"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_unwritten_digest", "unwritten", ["digest"])


def downgrade() -> None:
    op.drop_table("unwritten")
