"""`registry migrate`, `backup` and `restore`: the database, and with it the bytes it speaks of."""

import json
from pathlib import Path
from typing import Annotated

import typer

from registry.cli.admin import Data, Json
from registry.cli.host import Yes, loaded, settings_of, told
from registry.cli.render import remark, size_text, write


def migrate(
    to: Annotated[
        str, typer.Option("--to", metavar="REVISION", help="head, base, or one such as 0004.")
    ] = "head",
    check: Annotated[
        bool, typer.Option("--check", help="Only say where it stands; exit code 1 if not there.")
    ] = False,
    yes: Yes = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Bring the database's schema up to date, or to another revision.

    `registry serve` does so when it starts; of several that start at once, one does it. Going back
    loses what the older schema cannot hold, and asks first.
    """
    with told():
        settings = settings_of(data)
        url = loaded("adapters.catalog_sql").resolve(settings.database_url, settings.sqlite_path)
        module = loaded("adapters.migrate")
        before = module.standing(url)
        steps = before.steps(to)
        if not check:
            if steps < 0:
                _ask(before.current, to, yes)
            module.upgrade(url, to)
            before = module.standing(url)
            steps = 0
    text = f"The schema is {before.current or 'not made yet'}"
    if not before.is_current:
        text += f"; the newest that this version knows is {before.known[-1]}"
    if as_json:
        write(json.dumps({"current": before.current or None, "head": before.known[-1]}))
    else:
        remark(f"{text}.")
    raise typer.Exit(1 if steps else 0)


def _ask(current: str, to: str, yes: bool) -> None:
    if not yes:
        question = f"Go back from {current} to {to}? What the older schema cannot hold is lost."
        typer.confirm(question, abort=True)


def backup(
    destination: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where; again to bring it up to date.")
    ],
    with_blobs: Annotated[
        bool, typer.Option("--with-blobs", help="Save the bytes of the models too.")
    ] = False,
    link: Annotated[
        bool, typer.Option("--link", help="As second names of the store's files, where possible.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Save the database, as it is at one moment, and with --with-blobs all bytes.

    Also while the server runs. Blobs that the folder has already are not saved again. The backup
    holds the secrets of the database: nobody else may read the folder.
    """
    with told():
        if link and not with_blobs:
            raise typer.BadParameter("--link needs --with-blobs")
        summary = loaded("cli.library").backup(
            settings_of(data), destination, with_blobs=with_blobs, link=link
        )
    if as_json:
        write(summary.to_json().decode())
        return
    bytes_ = size_text(summary.blob_bytes)
    remark(
        f"Saved {sum(summary.rows.values())} rows"
        + (f" and {summary.blobs} blobs ({bytes_})." if with_blobs else ", no blobs.")
    )


def restore(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="A backup.")],
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace a library that is there; go without lost blobs."),
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash blobs that are in the store already, too.")
    ] = False,
    data: Data = None,
) -> None:
    """Bring a backup back into the database and store of the settings, whatever kinds they are.

    No server may run on them. Blobs that the store has stay; others come from the backup, hashed.
    """
    with told():
        copied, tags = loaded("cli.library").restore(
            settings_of(data), source, force=force, verify=verify
        )
    remark(f"Restored {tags} models; {copied} blobs came from the backup.")
