"""`registry import` and `registry export`: models from and to files, and from servers."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from registry.cli.admin import Data
from registry.cli.host import loaded, settings_of, told
from registry.cli.render import remark
from registry.core.names import ModelName


class Mode(StrEnum):
    """How bytes of a folder get into the store."""

    AUTO = "auto"
    LINK = "link"
    COPY = "copy"


class Form(StrEnum):
    """What is written."""

    OCI = "oci"
    OLLAMA = "ollama"


def import_models(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="An Ollama models folder, an OCI image layout (folder or tar), http(s)://SERVER, "
            "or registry://HOST/NAMESPACE/MODEL(:TAG).",
        ),
    ],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these of its models.")
    ] = None,
    rename: Annotated[str, typer.Option("--as", metavar="NAME", help="What to call the one.")] = "",
    mode: Annotated[
        Mode, typer.Option(help="auto: a clone where the file system can, else a copy.")
    ] = Mode.AUTO,
    replace: Annotated[
        bool, typer.Option("--replace", help="Models of those names may be replaced.")
    ] = False,
    via: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", help="Where a real Ollama reaches this library's server."
        ),
    ] = "",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Reach registry:// and --via by plain HTTP.")
    ] = False,
    data: Data = None,
) -> None:
    """Take models in, each blob hashed, beside a running server or without one.

    The library's own data folder as SOURCE means: what lies in it and is not known yet.
    """
    with told():
        module = loaded("cli.carrying")
        order = module.Order(
            names=tuple(names or ()),
            rename=ModelName.checked(rename) if rename else None,
            link=mode is Mode.LINK,
            copy=mode is Mode.COPY,
            replace=replace,
            via=via,
            insecure=insecure,
        )
        taken = module.import_models(settings_of(data), source, order)
    remark(f"Imported {taken} models." if taken != 1 else "Imported 1 model.")


def export_models(
    to: Annotated[Path, typer.Option("--to", metavar="FILE.tar|FOLDER", help="Where to.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="The models to export.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Export every model.")] = False,
    form: Annotated[
        Form, typer.Option("--format", help="oci: an image layout; ollama: a models folder.")
    ] = Form.OCI,
    data: Data = None,
) -> None:
    """Write models out as files that other programs read: one tar archive, or a folder.

    An archive of the same models is the same, byte for byte. A models folder that is there already
    gets the models besides its own.
    """
    with told():
        wanted = [ModelName.checked(name) for name in names or ()]
        if bool(wanted) == every:
            raise typer.BadParameter("name the models to export, or give --all")
        loaded("cli.carrying").export_models(settings_of(data), to, wanted, form.value)
