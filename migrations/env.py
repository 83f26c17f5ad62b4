"""Alembic's environment: on the connection of `registry/adapters/migrate.py`, or the settings'."""

from alembic import context
from sqlalchemy import Connection, create_engine

from registry.adapters.catalog_sql import resolve
from registry.adapters.tables import metadata
from registry.settings import Settings


def run(connection: Connection) -> None:
    """Run what the command line or `migrate` asked for."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,  # SQLite changes a table by making a new one
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:  # alembic's own command line, for writing migrations
    settings = Settings.load()
    with create_engine(resolve(settings.database_url, settings.sqlite_path)).begin() as opened:
        run(opened)
