"""Upload sessions are for one subject; which repositories have a blob."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


TEXT = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("upload", sa.Column("subject", TEXT, nullable=False, server_default=""))
    op.create_index("ix_repository_blob_digest", "repository_blob", ["digest"])


def downgrade() -> None:
    op.drop_index("ix_repository_blob_digest", "repository_blob")
    op.drop_column("upload", "subject")
