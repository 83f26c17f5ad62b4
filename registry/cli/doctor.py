"""`registry doctor`: is everything as it should be, and if not, what to do; `--rebuild`."""

import asyncio
import json
from dataclasses import asdict
from typing import Annotated

import typer

from registry.cli.admin import Data, Json
from registry.cli.host import loaded, settings_of, told
from registry.cli.render import printable, remark, write


def doctor(
    deep: Annotated[
        bool, typer.Option("--deep", help="Look at every blob, and read the whole database.")
    ] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Take in what the store has tags of instead.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Look at settings, machine, database and store; exit code 1 if there is a problem.

    --rebuild makes a lost database anew from the store: models, images and
    artifacts are hashed and taken in, under the same names and digests. Accounts are not there.
    """
    with told():
        settings = settings_of(data)
        module = loaded("cli.examination")
        if rebuild:
            taken = asyncio.run(module.rebuild(settings))
            remark(f"Took in {taken} tags and manifests that the database did not know.")
            return
        findings = module.run(settings, deep=deep)
    if as_json:
        write(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            advice = f"; {finding.advice}" if finding.advice else ""
            write(printable(f"{finding.level:8} {finding.what}{advice}"))
    raise typer.Exit(int(any(finding.level == "problem" for finding in findings)))
