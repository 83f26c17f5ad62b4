"""Administration: `registry user`, `setup-code` and `audit`; the other groups are added here too.

The commands work on the database of `--data` itself, also while a server runs. What they need of
the service is loaded when one runs, so that other commands start fast. Secrets are never arguments:
passwords are asked for or come from standard input, keys and codes are shown once.
"""

import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from registry.cli.render import age_text, complain, remark, table, write
from registry.core.errors import OperationFailed, RegistryError

if TYPE_CHECKING:
    from registry.cli.administration import Administration

T = TypeVar("T")

_STDIN_MAX = 65_536
_PAGE = 500

Data = Annotated[
    Path | None, typer.Option(help="Folder of the library.", show_default="REGISTRY_DATA")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(metavar="NAME")]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]


class Kind(StrEnum):
    """What an account can be."""

    USER = "user"
    ROBOT = "robot"
    NODE = "node"


def administer(
    data: Path | None,
    work: "Callable[[Administration], Awaitable[T]]",
    deed: tuple[str, str] | None = None,
    create: bool = False,
) -> T:
    """Do `work` on the database; what goes wrong ends the command with one sentence.

    `deed`, the action and its target, goes into the audit.
    """
    try:
        module = import_module("registry.cli.administration")
        done: T = module.run(data, work, module.Deed(*deed) if deed else None, create)
    except RegistryError as error:
        complain(str(error))
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(130) from error
    return done


def group(name: str, text: str) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(name=name, help=text, no_args_is_help=True)


def show(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print rows as JSON or as a table; None is shown as a dash."""
    if as_json:
        write(json.dumps(rows, indent=2, default=str))
    elif rows:
        cells = [["-" if value is None else _cell(value) for value in row.values()] for row in rows]
        write(table([[name.upper().replace("_", " ") for name in rows[0]], *cells]))


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return age_text(value, datetime.now(UTC))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return str(value) or "-"


def moment_of(time_ns: int | None) -> datetime | None:
    """A time of the catalog, to show."""
    return None if time_ns is None else datetime.fromtimestamp(time_ns // 10**9, UTC)


def read_stdin() -> str:
    """The first line of standard input.

    Raises:
        OperationFailed: there is none.
    """
    line = sys.stdin.readline(_STDIN_MAX).rstrip("\r\n")
    if not line:
        raise OperationFailed("nothing came on standard input")
    return line


def _password(from_stdin: bool) -> str:
    """A password that is asked for twice, or comes from standard input."""
    try:
        if from_stdin:
            return read_stdin()
        if not sys.stdin.isatty():
            raise OperationFailed("there is no terminal to ask on: give --password-stdin")
    except OperationFailed as error:
        complain(str(error))
        raise typer.Exit(1) from error
    asked: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return asked


user = group("user", "People, robots and nodes.")


@user.command("add")
def add_user(
    name: Name,
    admin: Annotated[bool, typer.Option("--admin", help="They may administer.")] = False,
    kind: Annotated[Kind, typer.Option(help="What it is.")] = Kind.USER,
    password_stdin: PasswordStdin = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="They come in with keys only.")
    ] = False,
    data: Data = None,
) -> None:
    """Add a user, a robot or a node; the first administrator too."""
    if kind is not Kind.USER:
        if admin or password_stdin:
            raise typer.BadParameter("only users have passwords and can be administrators")
        administer(
            data,
            lambda place: place.accounts.create_machine(name, kind.value),
            ("add account", f"{kind.value} {name}"),
            create=True,
        )
    else:
        password = None if no_password else _password(password_stdin)
        administer(
            data,
            lambda place: place.accounts.create_user(name, password, admin=admin),
            ("add account", f"{'administrator' if admin else 'user'} {name}"),
            create=True,
        )
    remark(f"Added {kind.value} {name}.")


@user.command("list")
def list_users(data: Data = None, as_json: Json = False) -> None:
    """List all accounts."""

    async def work(place: "Administration") -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        after = ""
        while found := await place.accounts.accounts(after, _PAGE):
            after = found[-1].name
            rows += [
                {
                    "name": account.name,
                    "kind": account.kind,
                    "admin": account.is_admin,
                    "disabled": account.disabled,
                    "password": bool(account.password_hash),
                    "created": moment_of(account.created_at),
                }
                for account in found
            ]
        return rows

    show(administer(data, work), as_json)


@user.command("passwd")
def change_password(name: Name, password_stdin: PasswordStdin = False, data: Data = None) -> None:
    """Give a user a new password; their sessions on the page end."""
    password = _password(password_stdin)

    async def work(place: "Administration") -> None:
        account = await place.accounts.named(name)
        await place.accounts.set_password(account.id, password)

    administer(data, work, ("set password", name))
    remark(f"{name} has a new password.")


@user.command("disable")
def disable_user(name: Name, data: Data = None) -> None:
    """Let an account no longer in. What it has stays."""
    _disable(name, data, True)
    remark(f"{name} is disabled.")


@user.command("enable")
def enable_user(name: Name, data: Data = None) -> None:
    """Let a disabled account in again."""
    _disable(name, data, False)
    remark(f"{name} is enabled.")


def _disable(name: str, data: Path | None, disabled: bool) -> None:
    async def work(place: "Administration") -> None:
        account = await place.accounts.named(name)
        await place.accounts.set_disabled(account.id, disabled)

    administer(data, work, ("disable account" if disabled else "enable account", name))


@user.command("admin")
def make_admin(
    name: Name,
    off: Annotated[bool, typer.Option("--off", help="They no longer may.")] = False,
    data: Data = None,
) -> None:
    """Let a user administer."""

    async def work(place: "Administration") -> None:
        account = await place.accounts.named(name)
        await place.accounts.set_admin(account.id, not off)

    administer(data, work, ("take administration" if off else "give administration", name))
    remark(f"{name} is {'no longer ' if off else ''}an administrator.")


@user.command("delete")
def delete_user(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data: Data = None,
) -> None:
    """Delete an account with its keys and rules. Its models stay."""
    if not yes:
        typer.confirm(f"Delete {name} with all keys?", abort=True)

    async def work(place: "Administration") -> None:
        account = await place.accounts.named(name)
        await place.accounts.delete_account(account.id)

    administer(data, work, ("delete account", name))
    remark(f"Deleted {name}.")


def setup_code(data: Data = None) -> None:
    """Show a one-time code with which the page makes the first administrator."""

    async def work(place: "Administration") -> str:
        if await place.accounts.has_admin():
            raise OperationFailed(
                "there is an administrator already; `registry user add NAME --admin` adds another"
            )
        return await place.accounts.make_setup_code()

    write(administer(data, work, ("make set-up code", ""), create=True))
    remark("Good once, for 24 hours. It is not shown again.")


def show_audit(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many entries.")] = 50,
    before: Annotated[int, typer.Option(min=0, help="Only entries older than this id.")] = 0,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show who did what, the newest first."""
    entries = administer(data, lambda place: place.audit.entries(before, limit))
    rows = [
        {
            "id": entry.id,
            "at": (moment_of(entry.at) or datetime.now(UTC)).isoformat(),
            "who": entry.who or "anonymous",
            "via": entry.via,
            "address": entry.address,
            "action": entry.action,
            "target": entry.target,
            "result": entry.result,
            "request_id": entry.request_id,
        }
        for entry in entries
    ]
    show(rows, as_json)


def add_to(app: typer.Typer, groups: Iterable[typer.Typer]) -> None:
    """Add the commands of administration to the program's."""
    for one in (user, *groups):
        app.add_typer(one)
    app.command("setup-code")(setup_code)
    app.command("audit")(show_audit)
