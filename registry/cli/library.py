"""The library itself, opened by a command, beside a server or without one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from registry import __version__
from registry.adapters import migrate
from registry.adapters.backup_folder import BackupFolder
from registry.adapters.catalog_sql import resolve
from registry.adapters.database_rows import DatabaseRows
from registry.app import build, prepare
from registry.cli.administration import Deed, recorded
from registry.cli.client import Report
from registry.cli.render import Board
from registry.core.dump import Summary
from registry.core.errors import OperationFailed
from registry.core.events import Advance, Event, Events, Transfer
from registry.services import Services
from registry.services.upkeep.backup import Backup, Restore
from registry.settings import Settings


@asynccontextmanager
async def opened(settings: Settings, deed: Deed | None = None) -> AsyncIterator[Services]:
    """The services of a library; its schema is brought up to date first.

    `deed`, if there is one, goes into the audit with what came of it.

    Raises:
        RegistryError: the database or the store cannot be used.
    """
    prepare(settings)
    services = build(settings)
    try:
        with recorded(services.audit, deed):
            yield services
    finally:
        await services.housekeeping.finish()
        await services.accounts.close()
        await services.audit.close()
        await services.upstreams.close()
        await services.catalog.close()


async def drawn(events: Events) -> None:
    """Show events on standard error, to the last."""
    with Board() as board:
        async for event in events:
            board.show(_report(event))


def _report(event: Event) -> Report:
    if isinstance(event, Transfer | Advance):
        return Report(event.text, str(event.digest), event.total, event.completed)
    return Report(event.text)


def rows_of(settings: Settings) -> DatabaseRows:
    """The rows of the settings' database."""
    return DatabaseRows(resolve(settings.database_url, settings.sqlite_path))


def backup(settings: Settings, folder: Path, *, with_blobs: bool, link: bool) -> Summary:
    """Make a backup.

    Raises:
        OperationFailed: there is no library, it has another schema, or not all could be saved.
    """
    folder = folder.absolute()
    standing = migrate.standing(resolve(settings.database_url, settings.sqlite_path))
    if not standing.current:
        raise OperationFailed("there is no library in the database; name its folder with --data")
    if not standing.is_current:
        raise OperationFailed(
            f"the schema is {standing.current}, this version's is {standing.known[-1]}: make the "
            "backup with the version that the library runs with"
        )

    async def work() -> Summary:
        deed = Deed("backup", "with bytes" if with_blobs else "without bytes")
        async with opened(settings, deed) as services:
            saving = Backup(services.blobs, rows_of(settings), BackupFolder(folder), __version__)
            await drawn(saving.run(with_blobs=with_blobs, link=link))
            assert saving.summary is not None
            return saving.summary

    return asyncio.run(work())


def restore(settings: Settings, folder: Path, *, force: bool, verify: bool) -> tuple[int, int]:
    """Bring a backup back; how many blobs were copied, and how many tags there are.

    Raises:
        RegistryError: see `Restore.run`.
    """
    folder = folder.absolute()

    async def bytes_and_rows() -> int:
        async with opened(settings) as services:
            store = services.store
        work = Restore(store, rows_of(settings), BackupFolder(folder))
        await drawn(work.run(force=force, verify=verify))
        return work.copied

    async def tags() -> int:
        async with opened(settings, Deed("restore", "")) as services:
            return await services.adoption.publish()

    return asyncio.run(bytes_and_rows()), asyncio.run(tags())
