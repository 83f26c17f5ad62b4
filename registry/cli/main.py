"""The program `registry`: its commands and nothing else.

What only the server needs (the database, the web framework) is loaded by `serve` alone, what the
administration needs when one of its commands runs, so that the other commands start fast.
"""

import sys
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from registry.cli import (
    admin,
    admin_keys,
    admin_rights,
    config,
    conversion,
    database,
    doctor,
    fleet,
    jobs,
    models,
    transport,
    upkeep,
    worker,
)

app = typer.Typer(
    name="registry",
    help="A self-hosted model library: the Ollama API, an Ollama and OCI registry.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0: any.", show_default="11434")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the store.", show_default="per user")
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Allow other machines in without authentication.")
    ] = False,
) -> None:
    """Run the library: API and registry.

    Every setting can also be given in the environment, these as REGISTRY_HOST, REGISTRY_PORT,
    REGISTRY_DATA and REGISTRY_NO_AUTH.
    """
    import_module("registry.cli.serve").run(host, port, data, no_auth=no_auth or None)


app.command("list")(models.show_list)
app.command("ls", hidden=True)(models.show_list)
app.command("show")(models.show)
app.command("create")(models.create)
app.command("quantize")(conversion.quantize)
app.command("convert")(conversion.convert)
app.command("pull")(models.pull)
app.command("push")(models.push)
app.command("cp")(models.copy)
app.command("rm")(models.remove)
app.command("version")(models.version)
admin.add_to(
    app,
    (admin_rights.team, admin_keys.key, admin_keys.token, admin_rights.grant, admin_rights.policy),
)
fleet.add_to(app, worker.worker)
app.add_typer(worker.worker)
app.add_typer(jobs.jobs)
app.command("doctor")(doctor.doctor)
app.command("migrate")(database.migrate)
app.command("backup")(database.backup)
app.command("restore")(database.restore)
app.command("import")(transport.import_models)
app.command("export")(transport.export_models)
app.add_typer(config.config)
upkeep.add_to(app)


def main() -> None:
    """Run the command that the arguments name."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a model's text may hold what cannot be encoded
            stream.reconfigure(errors="replace")
    app(prog_name="registry")
