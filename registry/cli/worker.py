"""`registry worker`: serve as a worker of a library elsewhere; tokens to enrol workers with.

The engine and the HTTP client are loaded when a worker runs, so that other commands start fast.
"""

import asyncio
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from registry import __version__, logs
from registry.cli.admin import Data, administer
from registry.cli.render import complain, remark, write
from registry.core.accounts import parse_lifetime
from registry.core.errors import OperationFailed, RegistryError, RequestInvalid
from registry.settings import Settings, SettingsInvalid

if TYPE_CHECKING:
    from registry.cli.administration import Administration

_SIZE = re.compile(r"([0-9]{1,9})([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_HUNDRED_YEARS_S = 100 * 31_536_000

worker = typer.Typer(
    name="worker",
    help="Run models for a library on another machine; tokens for those that do.",
    invoke_without_command=True,
)


@worker.callback()
def run(
    context: typer.Context,
    server: Annotated[
        str,
        typer.Option(envvar="REGISTRY_WORKER_SERVER", help="URL of the library.", metavar="URL"),
    ] = "",
    token: Annotated[
        str,
        typer.Option(
            envvar="REGISTRY_WORKER_TOKEN", help="Enrolment token; needed the first time."
        ),
    ] = "",
    name: Annotated[
        str, typer.Option(help="What it is called there.", show_default="as this machine")
    ] = "",
    label: Annotated[
        list[str] | None, typer.Option(help="What models can be placed by: --label gpu.")
    ] = None,
    cache_max: Annotated[
        str,
        typer.Option(help="Room for fetched models: 200G.", show_default="what the disk has"),
    ] = "",
    store: Annotated[
        Path | None,
        typer.Option(help="The library's data folder, if it is mounted here: nothing is fetched."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of credential and cache.", show_default="per user")
    ] = None,
) -> None:
    """Run models for the library at --server, until SIGTERM or Ctrl-C lets what runs end."""
    if context.invoked_subcommand is not None:
        return
    if not server:
        complain("say which library to work for: --server URL")
        raise typer.Exit(2)
    try:
        settings = Settings.load(data=data)
        remote = import_module("registry.workers.remote")
        post = remote.Post(
            server=remote.check_url(server),
            token=token,
            name=name,
            labels=frozenset(label or ()),
            cache_bytes=parse_size(cache_max) if cache_max else 0,
            store=store or settings.data,
        )
        logs.configure(settings.log_level, json=settings.log_json)
        asyncio.run(remote.serve(post, settings, lambda known: write(_greeting(known, server))))
    except (SettingsInvalid, RegistryError) as error:
        complain(str(error))
        raise typer.Exit(1) from error


def _greeting(name: str, server: str) -> str:
    return f"registry {__version__}: worker {name} of {server} (Ctrl-C lets what runs end)"


@worker.command("token")
def make_token(
    reusable: Annotated[
        bool, typer.Option("--reusable", help="Good for any number of workers.")
    ] = False,
    expires: Annotated[str, typer.Option(help="1h, 7d, 1y or never.")] = "1h",
    data: Data = None,
) -> None:
    """Make a token that enrols a worker and show it, this once."""
    try:
        life_s = parse_lifetime(expires) or _HUNDRED_YEARS_S
    except RegistryError as error:
        complain(str(error))
        raise typer.Exit(2) from error

    async def work(place: "Administration") -> str:
        return await place.worker_keys.make_token(life_s, reusable=reusable)

    write(administer(data, work, ("worker.token", "reusable" if reusable else "once")))
    remark("On the machine that is to run models:")
    remark("registry worker --server URL --token TOKEN")


@worker.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    data: Data = None,
) -> None:
    """Take a worker's credential away: its link ends within seconds."""

    async def work(place: "Administration") -> None:
        if not await place.worker_keys.revoke(name):
            raise OperationFailed(f"no worker called {name[:80]!r} is enrolled")

    administer(data, work, ("worker.revoke", name[:80]))


def parse_size(text: str) -> int:
    """Read `200G`, `512MiB`, `1000`, in bytes; units are powers of 1024.

    Raises:
        RequestInvalid: it is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or not int(match[1]):
        raise RequestInvalid(f"{text[:40]!r} is no size: write it like 200G")
    return int(match[1]) * _UNITS[match[2].upper()]
