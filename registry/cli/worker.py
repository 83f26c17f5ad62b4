"""`registry worker`: serve as a worker of a library elsewhere; tokens to enrol workers with.

What a worker needs is loaded when one runs (`worker_process.py`): other commands start fast.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from registry.cli.admin import Data, administer
from registry.cli.render import complain, remark, write
from registry.core.accounts import parse_lifetime
from registry.core.errors import OperationFailed, RegistryError

if TYPE_CHECKING:
    from registry.cli.administration import Administration

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
    post = {
        "server": server,
        "token": token,
        "name": name,
        "labels": frozenset(label or ()),
        "cache_max": cache_max,
        "store": store,
    }
    import_module("registry.cli.worker_process").run(post, data)


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
