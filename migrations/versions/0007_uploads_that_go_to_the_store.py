"""Upload sessions whose bytes clients send to the store themselves."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


TEXT = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")
NUMBERS = ("part_size", "verifier_beats")


def upgrade() -> None:
    op.add_column("upload", sa.Column("verifier", TEXT, nullable=False, server_default=""))
    for name in NUMBERS:
        op.add_column("upload", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    for name in ("verifier", *NUMBERS):
        op.drop_column("upload", name)
