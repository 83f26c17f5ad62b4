"""Administration of keys: `registry key` for public ones, `registry token` for API keys."""

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli.admin import Data, Json, administer, group, moment_of, show
from registry.cli.render import complain, remark, write
from registry.core.access import Group, Right, group_words, parse_groups, parse_rights, right_words
from registry.core.accounts import parse_lifetime, parse_scope, scope_text
from registry.core.errors import OperationFailed, RegistryError

if TYPE_CHECKING:
    from registry.cli.administration import Administration
    from registry.ports.accounts import Account, ApiKey
    from registry.settings import Settings

_KEY_FILE_MAX = 16_384

_ENROL = (
    "curl -f {url}/api/v1/enrol -H 'Content-Type: application/json' -d "
    '"{{\\"code\\":\\"{code}\\",\\"key\\":\\"$(cat ~/.ollama/id_ed25519.pub)\\"}}"'
)

User = Annotated[str, typer.Argument(metavar="USER")]
Title = Annotated[str, typer.Option(help="What it is called in lists.")]

key = group("key", "Public keys of Ollama clients; the key of direct URLs.")
token = group("token", "API keys of users, robots and nodes; the key of registry tokens.")


def _key_text(file: str) -> str:
    """The content of a file, `-` for standard input.

    Raises:
        OperationFailed: it cannot be read.
    """
    if file == "-":
        return sys.stdin.read(_KEY_FILE_MAX)
    try:
        with Path(file).expanduser().open(encoding="utf-8", errors="replace") as opened:
            return opened.read(_KEY_FILE_MAX)
    except OSError as error:
        raise OperationFailed(f"cannot read {file}: {error.strerror}") from error


@key.command("add")
def add_key(
    user: User,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="id_ed25519.pub, or - for standard input.")
    ],
    title: Title = "",
    rights: Annotated[
        str, typer.Option(help="What it may be used for: read, write, delete, manage, all.")
    ] = "all",
    read_only: Annotated[bool, typer.Option("--read-only", help="The same as read.")] = False,
    data: Data = None,
) -> None:
    """Attach the key of an Ollama client (~/.ollama/id_ed25519.pub) to an account."""

    async def work(place: "Administration") -> str:
        held = Right.READ if read_only else parse_rights(rights)
        account = await place.accounts.named(user)
        text = _key_text(file)
        return (await place.accounts.add_public_key(account.id, text, title, held)).fingerprint

    fingerprint = administer(data, work, ("add key", user))
    write(fingerprint)


@key.command("list")
def list_keys(
    user: Annotated[str, typer.Argument(metavar="[USER]")] = "",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """List public keys, of one account or of all."""

    async def work(place: "Administration") -> list[dict[str, Any]]:
        owner = (await place.accounts.named(user)).id if user else None
        return [
            {
                "fingerprint": found.fingerprint,
                "user": account.name,
                "title": found.title,
                "rights": right_words(found.rights),
                "added": moment_of(found.created_at),
                "used": moment_of(found.used_at),
            }
            for account, found in await place.accounts.all_public_keys()
            if owner in {None, account.id}
        ]

    show(administer(data, work), as_json)


@key.command("remove")
def remove_key(
    fingerprint: Annotated[str, typer.Argument(metavar="FINGERPRINT", help="SHA256:…")],
    data: Data = None,
) -> None:
    """Detach a key. Whoever has it is refused from then on."""
    gone = administer(
        data,
        lambda place: place.accounts.remove_public_key(fingerprint),
        ("remove key", fingerprint),
    )
    remark(f"Removed {gone.fingerprint}.")


@key.command("code")
def make_code(user: User, data: Data = None) -> None:
    """Show a one-time code with which a machine attaches its own key to the account."""

    async def work(place: "Administration") -> "tuple[str, Settings]":
        account = await place.accounts.named(user)
        code = await place.accounts.make_node_code(account.id)
        return code, place.settings

    code, settings = administer(data, work, ("make node code", user))
    write(code)
    remark(f"Good once, for {settings.credentials.code_s // 60} minutes. On that machine type:")
    scheme = "https" if settings.tls_cert else "http"
    url = settings.external_url or f"{scheme}://{settings.host}:{settings.port}"
    remark(_ENROL.format(url=url, code=code))


@key.command("confirm")
def confirm_key(
    code: Annotated[str, typer.Argument(metavar="CODE", help="The code of the link.")],
    user: User,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data: Data = None,
) -> None:
    """Confirm for a user the link that an unknown key was answered with."""
    found = administer(data, lambda place: place.accounts.pending(code))
    if not yes:
        asked = f"Attach {found.fingerprint}, asked for from {found.host or '?'}, to {user}?"
        typer.confirm(asked, abort=True)

    async def work(place: "Administration") -> str:
        account = await place.accounts.named(user)
        return (await place.accounts.confirm_enrolment(code, account.id)).fingerprint

    write(administer(data, work, ("add key", f"{user} {found.fingerprint}")))


@key.command("rotate-urls")
def rotate_urls(
    revoke: Annotated[
        bool, typer.Option("--revoke", help="URLs that were given out are void at once.")
    ] = False,
    data: Data = None,
) -> None:
    """Begin a new key for direct URLs of blobs. Running servers follow within seconds."""
    administer(
        data,
        lambda place: place.signing_keys.rotate(revoke=revoke),
        ("rotate key of URLs", "revoke" if revoke else ""),
    )
    remark("Direct URLs are void." if revoke else "Direct URLs of before stay good to their end.")


@token.command("create")
def create_token(
    user: User,
    title: Title = "",
    groups: Annotated[
        str, typer.Option(help="Parts of the API: infer, read, write, admin, all.")
    ] = ",".join(group_words(Group.INFER | Group.READ | Group.WRITE)),
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN:RIGHTS", help="Only there and so much: 'team/*:read'."),
    ] = None,
    expires: Annotated[str, typer.Option(help="90d, 12h, 2w, 1y or never.")] = "90d",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make an API key and show it, this once."""
    try:
        held, scopes = parse_groups(groups), tuple(map(parse_scope, scope or ()))
        lifetime_s = parse_lifetime(expires)
    except RegistryError as error:
        complain(str(error))
        raise typer.Exit(2) from error

    async def work(place: "Administration") -> "tuple[Account, ApiKey, str]":
        account = await place.accounts.named(user)
        wish = import_module("registry.services.access.keys").ApiKeyWish(
            title, held, scopes or None, lifetime_s
        )
        made = await place.accounts.create_api_key(account.id, wish)
        return account, made.key, made.text

    account, made, text = administer(data, work, ("create API key", f"{user} {title}".strip()))
    if as_json:
        show([_row(account.name, made) | {"key": text}], True)
    else:
        write(text)
        remark(f"API key {made.id} of {account.name}. Keep it now: it is not shown again.")


@token.command("list")
def list_tokens(
    user: Annotated[str, typer.Argument(metavar="[USER]")] = "",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """List API keys, of one account or of all; never their text."""

    async def work(place: "Administration") -> list[dict[str, Any]]:
        owner = (await place.accounts.named(user)).id if user else None
        return [
            _row(account.name, found)
            for account, found in await place.accounts.all_api_keys()
            if owner in {None, account.id}
        ]

    show(administer(data, work), as_json)


def _row(owner: str, made: "ApiKey") -> dict[str, Any]:
    return {
        "id": made.id,
        "user": owner,
        "title": made.title,
        "begins": made.hint,
        "groups": group_words(made.groups),
        "scopes": _scopes(made),
        "created": moment_of(made.created_at),
        "expires": moment_of(made.expires_at),
        "used": moment_of(made.used_at),
    }


def _scopes(made: "ApiKey") -> Iterable[str] | None:
    return None if made.scopes is None else [scope_text(scope) for scope in made.scopes]


@token.command("revoke")
def revoke_token(
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    data: Data = None,
) -> None:
    """Take an API key out of use, at once and for good."""
    gone = administer(
        data, lambda place: place.accounts.revoke_api_key(key_id), ("revoke API key", key_id)
    )
    remark(f"Revoked {gone.id}.")


@token.command("rotate")
def rotate_tokens(data: Data = None) -> None:
    """Begin a new key for registry tokens: clients have to ask for new ones. API keys stay."""
    administer(data, lambda place: place.tokens.rotate(), ("rotate key of tokens", ""))
    remark("Registry tokens are void within seconds. API keys stay as they are.")
