"""`registry migrate`: the schema of the database, brought to this version's or another's."""

import json
from typing import Annotated

import typer

from registry.cli.admin import Data, Json
from registry.cli.host import Yes, loaded, settings_of, told
from registry.cli.render import remark, write


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
