"""The tables of workers, placements and usage, in the same schema as `tables.py`."""

from sqlalchemy import BigInteger, Boolean, Column, Integer, PrimaryKeyConstraint, Table

from registry.adapters.tables import _TEXT, metadata

worker = Table(
    "worker",
    metadata,
    Column("name", _TEXT, primary_key=True),
    Column("kind", _TEXT, nullable=False),
    Column("url", _TEXT, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("labels", _TEXT, nullable=False),  # JSON list
    Column("models", _TEXT, nullable=False),  # JSON object
    Column("slots", Integer, nullable=False),
    Column("drained", Boolean, nullable=False),
    Column("key", _TEXT, nullable=False),
)

drained_worker = Table("drained_worker", metadata, Column("name", _TEXT, primary_key=True))

replica = Table(
    "replica",
    metadata,
    Column("id", _TEXT, primary_key=True),
    Column("url", _TEXT, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("workers", _TEXT, nullable=False),  # JSON list
)

placement = Table(
    "placement",
    metadata,
    Column("model_key", _TEXT, primary_key=True),
    Column("model", _TEXT, nullable=False),
    Column("labels", _TEXT, nullable=False),  # JSON list
    Column("pinned", Boolean, nullable=False),
)

usage = Table(
    "usage",
    metadata,
    Column("hour", BigInteger, autoincrement=False),
    Column("account", _TEXT),
    Column("model", _TEXT),
    Column("worker", _TEXT),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("milliseconds", BigInteger, nullable=False),
    PrimaryKeyConstraint("hour", "account", "model", "worker"),
    sqlite_with_rowid=False,
)
