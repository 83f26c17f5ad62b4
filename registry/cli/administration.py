"""What the administration commands work on: the database itself, whether or not a server runs.

A running server notices: it keeps what it read of accounts only until they change. Each change is
an entry of the audit, under the name of the system's user who typed the command.
"""

import asyncio
import getpass
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from registry.adapters import migrate
from registry.adapters.catalog_sql import open_catalog, resolve
from registry.cli.host import settings_of
from registry.core.errors import OperationFailed, RegistryError
from registry.ports.accounts import AuditEntry
from registry.services.access.accounts import Accounts
from registry.services.access.audit import Audit
from registry.services.access.tokens import Tokens
from registry.services.inference.fleet import Fleet
from registry.services.inference.usage import Ledger
from registry.services.inference.worker_keys import WorkerKeys
from registry.services.library.signing_keys import SigningKeys
from registry.services.sharing.job_desk import JobDesk
from registry.services.sharing.sharing import Sharing
from registry.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deed:
    """What a command changes, for the audit."""

    action: str
    target: str


@dataclass(frozen=True, slots=True)
class Administration:
    """What a command is handed."""

    settings: Settings
    accounts: Accounts
    audit: Audit
    tokens: Tokens
    signing_keys: SigningKeys
    worker_keys: WorkerKeys
    fleet: Fleet
    ledger: Ledger
    jobs: JobDesk
    clock: Callable[[], int]


def run(
    data: Path | None,
    work: Callable[[Administration], Awaitable[T]],
    deed: Deed | None = None,
    create: bool = False,
) -> T:
    """Do `work` on the database of the settings; with `create` it is made if there is none.

    Raises:
        OperationFailed: there is no database, or the settings are invalid.
        RegistryError: what `work` raises.
    """
    settings = settings_of(data)
    if not create:
        check_library(settings)
    migrate.upgrade(resolve(settings.database_url, settings.sqlite_path))
    return asyncio.run(_run(settings, work, deed))


async def _run(
    settings: Settings, work: Callable[[Administration], Awaitable[T]], deed: Deed | None
) -> T:
    catalog = open_catalog(settings.database_url, settings.sqlite_path, settings.database)
    accounts = Accounts(catalog, settings, catalog.now)
    audit = Audit(catalog, settings.retention, catalog.now)
    try:
        with recorded(audit, deed):
            return await work(
                Administration(
                    settings,
                    accounts,
                    audit,
                    Tokens(catalog, settings.credentials, catalog.now),
                    SigningKeys(catalog, catalog.now),
                    WorkerKeys(catalog, catalog.now),
                    Fleet(catalog, catalog.now),
                    Ledger(catalog, catalog.now),
                    JobDesk(Sharing(catalog)),
                    catalog.now,
                )
            )
    finally:
        await audit.close()
        await accounts.close()
        await catalog.close()


def check_library(settings: Settings) -> None:
    """Let pass where a library is: a command that looks for one must not make an empty one.

    Raises:
        OperationFailed: there is none.
    """
    url = resolve(settings.database_url, settings.sqlite_path)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        raise OperationFailed(
            f"there is no library in {settings.data}; name its folder with --data or REGISTRY_DATA"
        )


@contextmanager
def recorded(audit: Audit, deed: Deed | None) -> Iterator[None]:
    """Tell the audit of a deed, if it is one, and what came of it."""
    result = "broke off"
    try:
        yield
        result = "done"
    except RegistryError as error:
        result = f"failed: {error}"
        raise
    finally:
        if deed is not None:
            audit.record(entry_of(deed, result))


def entry_of(deed: Deed, result: str) -> AuditEntry:
    """What the audit is told of a deed at the command line."""
    return AuditEntry(
        at=time.time_ns(),
        who=system_user(),
        via="command line",
        address="",
        action=deed.action,
        target=deed.target,
        result=result,
        request_id="",
    )


def system_user() -> str:
    """Who runs the command, as the machine knows them."""
    try:
        return f"{getpass.getuser()} on the host"
    except (OSError, KeyError):  # a container may run under a number that has no name
        return "somebody on the host"
