"""What is kept of a blob says which kind it is: a header that was read, or the content itself."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


TEXT = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")
HEADER = "X'7b22706172616d657465725f636f756e74223a'"
"""`{"parameter_count":`, with which facts of headers begin."""
WEIGHTS = ", ".join(
    f"'application/vnd.ollama.image.{kind}'" for kind in ("model", "adapter", "projector", "draft")
)


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    begins = r"'\x7b22706172616d657465725f636f756e74223a'::bytea" if postgres else HEADER
    first = "substring(facts from 1 for 19)" if postgres else "substr(facts, 1, 19)"
    _anew(kind=True)
    op.execute(
        "INSERT INTO blob_facts (digest, kind, facts) SELECT digest, CASE WHEN "  # noqa: S608
        f"{first} = {begins} AND EXISTS (SELECT 1 FROM manifest_reference WHERE "
        f"manifest_reference.target = facts_before.digest AND media_type IN ({WEIGHTS})) "
        "THEN 'header' ELSE 'text' END, facts FROM facts_before"
    )
    op.execute("DROP TABLE facts_before")


def downgrade() -> None:
    _anew(kind=False)
    op.execute(
        "INSERT INTO blob_facts (digest, facts) "
        "SELECT digest, facts FROM facts_before AS one WHERE kind = 'header' OR NOT EXISTS "
        "(SELECT 1 FROM facts_before AS two WHERE two.digest = one.digest AND kind = 'header')"
    )
    op.execute("DROP TABLE facts_before")


def _anew(*, kind: bool) -> None:
    """Put the rows aside and make the table again, with a kind or without."""
    op.execute("CREATE TABLE facts_before AS SELECT * FROM blob_facts")
    op.drop_table("blob_facts")
    key = ["digest", "kind"] if kind else ["digest"]
    op.create_table(
        "blob_facts",
        sa.Column("digest", TEXT, nullable=False),
        *([sa.Column("kind", TEXT, nullable=False)] if kind else []),
        sa.Column("facts", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["digest"], ["blob.digest"], name="fk_blob_facts_digest", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(*key, name="pk_blob_facts"),
    )
