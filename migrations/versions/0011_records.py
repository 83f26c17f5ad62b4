"""Files in the store for what is no model: due for everything that is there."""

from collections.abc import Sequence

from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute(
        "INSERT INTO folder_change (host, namespace, model, tag) "
        "SELECT '', path_key, '', digest FROM repository_manifest "
        "JOIN repository ON repository.id = repository_id WHERE NOT EXISTS (SELECT 1 FROM tag "
        "WHERE tag.repository_id = repository_manifest.repository_id "
        "AND manifest_digest = digest AND is_model AND digest < 'sha512:')"
    )
    op.execute(
        "INSERT INTO folder_change (host, namespace, model, tag) "
        "SELECT '', path_key, '', name_key FROM tag "
        "JOIN repository ON repository.id = repository_id "
        "WHERE NOT is_model OR manifest_digest > 'sha512:'"
    )


def downgrade() -> None:
    op.execute("DELETE FROM folder_change WHERE host = ''")
