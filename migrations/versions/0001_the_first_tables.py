"""The first tables."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


TEXT = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "blob",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=False),
        sa.Column("uses", sa.BigInteger(), nullable=False),
        sa.Column("storage_key", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_blob"),
    )
    op.create_index(
        "ix_blob_unused",
        "blob",
        ["used_at"],
        unique=False,
        sqlite_where=sa.text("uses = 0"),
        postgresql_where=sa.text("uses = 0"),
    )
    op.create_table(
        "fetch",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("storage_key", TEXT, nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_fetch"),
    )
    op.create_index("ix_fetch_updated_at", "fetch", ["updated_at"])
    op.create_table(
        "folder_change",
        sa.Column("id", ID, nullable=False),
        sa.Column("host", TEXT, nullable=False),
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("tag", TEXT, nullable=False),
        sa.Column("manifest_digest", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_folder_change"),
        sa.UniqueConstraint(
            "host", "namespace", "model", "tag", name="uq_folder_change_host_namespace_model_tag"
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "freed",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("storage_key", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("digest", "storage_key", name="pk_freed"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "manifest",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("media_type", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("config", TEXT, nullable=True),
        sa.Column("subject", TEXT, nullable=True),
        sa.Column("artifact_type", TEXT, nullable=True),
        sa.Column("card", TEXT, nullable=True),
        sa.Column("annotations", TEXT, nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_manifest"),
    )
    op.create_index(
        "ix_manifest_subject",
        "manifest",
        ["subject"],
        unique=False,
        sqlite_where=sa.text("subject IS NOT NULL"),
        postgresql_where=sa.text("subject IS NOT NULL"),
    )
    op.create_table(
        "repository",
        sa.Column("id", ID, nullable=False),
        sa.Column("path_key", TEXT, nullable=False),
        sa.Column("path", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_repository"),
        sa.UniqueConstraint("path_key", name="uq_repository_path_key"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "secret",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_secret"),
    )
    op.create_table(
        "spelling",
        sa.Column("kind", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("text", TEXT, nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("uses", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "key", "text", name="pk_spelling"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_spelling_kind_key_since", "spelling", ["kind", "key", "since"])
    op.create_table(
        "blob_alias",
        sa.Column("alias", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["digest"], ["blob.digest"], name="fk_blob_alias_digest", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("alias", name="pk_blob_alias"),
    )
    op.create_index("ix_blob_alias_digest", "blob_alias", ["digest"])
    op.create_table(
        "blob_facts",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("facts", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["digest"], ["blob.digest"], name="fk_blob_facts_digest", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", name="pk_blob_facts"),
    )
    op.create_table(
        "fetch_part",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("stop", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["digest"], ["fetch.digest"], name="fk_fetch_part_digest", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", "start", name="pk_fetch_part"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "lease",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["digest"], ["blob.digest"], name="fk_lease_digest", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", "holder", name="pk_lease"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_lease_holder", "lease", ["holder"])
    op.create_index("ix_lease_until", "lease", ["until"])
    op.create_table(
        "manifest_reference",
        sa.Column("manifest_digest", TEXT, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("is_blob", sa.Boolean(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("media_type", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["manifest_digest"],
            ["manifest.digest"],
            name="fk_manifest_reference_manifest_digest",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("manifest_digest", "position", name="pk_manifest_reference"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_manifest_reference_child",
        "manifest_reference",
        ["target"],
        unique=False,
        sqlite_where=sa.text("is_blob = 0"),
        postgresql_where=sa.text("is_blob = false"),
    )
    op.create_table(
        "repository_blob",
        sa.Column("repository_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("uses", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repository.id"], name="fk_repository_blob_repository_id"
        ),
        sa.PrimaryKeyConstraint("repository_id", "digest", name="pk_repository_blob"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_repository_blob_held",
        "repository_blob",
        ["digest", "until"],
        unique=False,
        sqlite_where=sa.text("uses = 0"),
        postgresql_where=sa.text("uses = 0"),
    )
    op.create_index(
        "ix_repository_blob_until",
        "repository_blob",
        ["until"],
        unique=False,
        sqlite_where=sa.text("uses = 0"),
        postgresql_where=sa.text("uses = 0"),
    )
    op.create_table(
        "repository_manifest",
        sa.Column("repository_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["digest"], ["manifest.digest"], name="fk_repository_manifest_digest"
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repository.id"], name="fk_repository_manifest_repository_id"
        ),
        sa.PrimaryKeyConstraint("repository_id", "digest", name="pk_repository_manifest"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_repository_manifest_digest", "repository_manifest", ["digest"])
    op.create_table(
        "tag_event",
        sa.Column("id", ID, nullable=False),
        sa.Column("repository_id", sa.BigInteger(), nullable=False),
        sa.Column("path", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("old_digest", TEXT, nullable=True),
        sa.Column("new_digest", TEXT, nullable=True),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repository.id"], name="fk_tag_event_repository_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tag_event"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "upload",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("repository_id", sa.BigInteger(), nullable=False),
        sa.Column("storage_key", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("last_first", sa.BigInteger(), nullable=False),
        sa.Column("last_length", sa.BigInteger(), nullable=False),
        sa.Column("last_sha256", TEXT, nullable=False),
        sa.Column("declared_digest", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("result", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repository.id"], name="fk_upload_repository_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_upload"),
    )
    op.create_index("ix_upload_expires_at", "upload", ["expires_at"])
    op.create_table(
        "tag",
        sa.Column("repository_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name_key", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("manifest_digest", TEXT, nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("is_model", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id", "manifest_digest"],
            ["repository_manifest.repository_id", "repository_manifest.digest"],
            name="fk_tag_repository_id_manifest_digest",
        ),
        sa.PrimaryKeyConstraint("repository_id", "name_key", name="pk_tag"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_tag_is_model_updated_at", "tag", ["is_model", "updated_at"])
    op.create_index(
        "ix_tag_repository_id_manifest_digest", "tag", ["repository_id", "manifest_digest"]
    )
    op.create_index("ix_tag_repository_id_name", "tag", ["repository_id", "name"])


def downgrade() -> None:
    op.drop_table("tag")
    op.drop_table("upload")
    op.drop_table("tag_event")
    op.drop_table("repository_manifest")
    op.drop_table("repository_blob")
    op.drop_table("manifest_reference")
    op.drop_table("lease")
    op.drop_table("fetch_part")
    op.drop_table("blob_facts")
    op.drop_table("blob_alias")
    op.drop_table("spelling")
    op.drop_table("secret")
    op.drop_table("repository")
    op.drop_table("manifest")
    op.drop_table("freed")
    op.drop_table("folder_change")
    op.drop_table("fetch")
    op.drop_table("blob")
