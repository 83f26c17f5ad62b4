"""The tables of long work, in the same schema as `tables.py`."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, PrimaryKeyConstraint, Table, text

from registry.adapters.tables import _TEXT, metadata

job = Table(
    "job",
    metadata,
    Column("id", _TEXT, primary_key=True),
    Column("kind", _TEXT, nullable=False),
    Column("key", _TEXT, nullable=False),
    Column("title", _TEXT, nullable=False),
    Column("model", _TEXT, nullable=False),
    Column("subject", _TEXT, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("state", _TEXT, nullable=False),
    Column("owner", _TEXT, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("note", _TEXT, nullable=False),
    Column("finished_at", BigInteger, nullable=False),  # 0: it is not
    Column("result", _TEXT, nullable=False),
    Column("error", _TEXT, nullable=False),
    Index(
        "ix_job_key",
        "key",
        unique=True,  # of equal work one piece is under way
        sqlite_where=text("finished_at = 0"),
        postgresql_where=text("finished_at = 0"),
    ),
    Index(None, "created_at", "id"),
)

job_asker = Table(
    "job_asker",
    metadata,
    Column("job_id", _TEXT, ForeignKey("job.id", ondelete="CASCADE")),
    Column("holder", _TEXT),
    Column("process", _TEXT, nullable=False),
    Column("subject", _TEXT, nullable=False),
    Column("model", _TEXT, nullable=False),
    Column("beat", BigInteger, nullable=False),
    PrimaryKeyConstraint("job_id", "holder"),
    Index(None, "process"),
    sqlite_with_rowid=False,
)
