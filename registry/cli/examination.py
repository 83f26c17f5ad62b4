"""What `registry doctor` looks at: settings, machine, database, then the library itself."""

import asyncio
import os
import shutil
import stat
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
from cryptography import x509

from registry.adapters import migrate
from registry.adapters.catalog_sql import resolve
from registry.adapters.database_health import Health, health
from registry.cli.library import opened
from registry.cli.render import remark, size_text
from registry.core.errors import OperationFailed, RegistryError
from registry.services.upkeep.checkup import Checkup, Finding
from registry.settings import Settings, unknown_names

_LITTLE = 5 << 30
_SKEW_S = 5.0
_SOON = timedelta(days=14)


async def examine(settings: Settings, *, deep: bool) -> AsyncIterator[Finding]:
    """Every finding, one after the other; what cannot be looked at is a problem of its own."""
    for finding in (*_settings(settings), *_files(settings)):
        yield finding
    url = resolve(settings.database_url, settings.sqlite_path)
    try:
        standing = migrate.standing(url)
        found = list(_schema(standing))
        for finding in found:
            yield finding
        if any(finding.level == "problem" for finding in found):
            return
        for finding in _database(health(url, deep=deep)):
            yield finding
        async with opened(settings) as services:
            checkup = Checkup(services.catalog, services.store, services.clock)
            async for finding in checkup.run(deep=deep):
                yield finding
            if settings.auth and not await services.accounts.has_admin():
                advice = "make the first with `registry setup-code` or `registry user add`"
                yield Finding("warning", "there is no administrator yet", advice)
    except RegistryError as error:
        yield Finding("problem", str(error), "see the settings of database and store")


def _settings(settings: Settings) -> Iterator[Finding]:
    strange = unknown_names(os.environ)
    if strange:
        yield Finding("warning", f"{', '.join(strange)} mean nothing", "perhaps they are misspelt")
    else:
        yield Finding("ok", "the settings can be used")
    if not (settings.is_loopback or settings.auth):
        yield Finding(
            "warning" if settings.no_auth else "problem",
            f"{settings.host} can be reached from other machines, and authentication is off",
            "set REGISTRY_AUTH=true unless everybody may change everything",
        )
    if settings.external_url:
        yield _answer(settings.external_url)
    elif settings.auth and not settings.is_loopback:
        yield Finding(
            "warning",
            "REGISTRY_EXTERNAL_URL is not set",
            "set it to the URL that clients use: where tokens are got is told by it",
        )


def _answer(url: str) -> Finding:
    try:
        answer = httpx2.get(f"{url}/healthz", timeout=5.0)
    except httpx2.HTTPError as error:
        reason = f"{url} does not answer: {type(error).__name__}"
        return Finding("warning", reason, "fine if the server is stopped; else see proxy and DNS")
    if answer.status_code != 200:
        reason = f"{url} answers with {answer.status_code}"
        return Finding("problem", reason, "REGISTRY_EXTERNAL_URL must lead to this server")
    return Finding("ok", f"{url} answers")


def _files(settings: Settings) -> Iterator[Finding]:
    """Free room, one file system, who may read secrets, how long the certificate is good."""
    if settings.data.is_dir():
        free = shutil.disk_usage(settings.data).free
        what = f"{size_text(free)} are free in the data folder"
        if free < _LITTLE:
            yield Finding("warning", what, "make room; `registry gc` tells what could go")
        else:
            yield Finding("ok", what)
    parts = [settings.data / name for name in ("blobs", "incoming")]
    if all(part.is_dir() for part in parts) and len({part.stat().st_dev for part in parts}) > 1:
        yield Finding(
            "problem",
            "blobs and incoming lie on two file systems: nothing can be taken in",
            "let both be folders of one",
        )
    secrets = [path for path in (settings.sqlite_path, Path(settings.tls_key or "/")) if path]
    secrets += [Path(path) for name, path in os.environ.items() if _names_secret(name)]
    for path in secrets:
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield Finding("warning", f"others may read {path}", f"chmod 600 {path}")
    if settings.tls_cert:
        yield _certificate(Path(settings.tls_cert))


def _names_secret(name: str) -> bool:
    return name.startswith("REGISTRY_") and name.endswith("_FILE")


def _certificate(path: Path) -> Finding:
    try:
        ends = x509.load_pem_x509_certificates(path.read_bytes())[0].not_valid_after_utc
    except (OSError, ValueError):
        return Finding("problem", f"the certificate {path} cannot be read", "see REGISTRY_TLS_CERT")
    left = ends - datetime.now(UTC)
    if left < _SOON:
        return Finding("warning", f"the certificate is good until {ends:%Y-%m-%d}", "renew it")
    return Finding("ok", f"the certificate is good until {ends:%Y-%m-%d}")


def _schema(standing: migrate.Schema) -> Iterator[Finding]:
    newest = standing.known[-1]
    if not standing.current:
        advice = "start `registry serve` once, `registry restore` a backup, or name it with --data"
        yield Finding("problem", "there is no library in the database", advice)
    elif standing.current not in standing.known:
        advice = "install the newer version that made it"
        yield Finding("problem", f"the schema is {standing.current}, not known here", advice)
    elif not standing.is_current:
        advice = "`registry migrate`, or start the server"
        yield Finding("problem", f"the schema is {standing.current}, not {newest}", advice)
    else:
        yield Finding("ok", f"the schema is {newest}, the newest")


def _database(found: Health) -> Iterator[Finding]:
    for fault in found.faults:
        advice = (
            "`registry restore` a backup, or move the file away and `registry doctor --rebuild`"
        )
        yield Finding("problem", f"the database is damaged: {fault}", advice)
    for risk in found.risks:
        yield Finding("warning", risk, "see the settings of the database server")
    if not found.faults and not found.risks:
        yield Finding("ok", f"{found.version} answers and is sound")
    if found.now is not None and abs(found.now - time.time()) > _SKEW_S:
        skew = round(found.now - time.time())
        advice = "keep the clocks of all machines by NTP"
        yield Finding("warning", f"the database's clock is {skew} s ahead of this one's", advice)


async def rebuild(settings: Settings) -> int:
    """Make known whatever the store has a tag or a record of; how many were not.

    Raises:
        OperationFailed: some could not be taken in: each was told of.
    """
    taken = faults = 0
    async with opened(settings) as services:
        async for deed in services.adoption.adopting():
            said = "taken in" if deed.fault is None else f"left out: {deed.fault}"
            remark(f"{deed.name.short}: {said}")
            taken += deed.fault is None
            faults += deed.fault is not None
        if not await services.accounts.has_admin():
            remark(
                "Accounts, keys, grants, policies, workers and tag history were in the database "
                "alone: make them anew with `registry user`, `key`, `grant`, `worker`."
            )
    if faults:
        raise OperationFailed(
            f"{faults} of {taken + faults} tags and manifests could not be taken in"
        )
    return taken


def run(settings: Settings, *, deep: bool) -> list[Finding]:
    """`examine`, all at once."""

    async def all_of_them() -> list[Finding]:
        return [finding async for finding in examine(settings, deep=deep)]

    return asyncio.run(all_of_them())
