"""The commands that make new weights of old: quantize and convert.

Both show first what goes in and what comes out, then create a model on the server, which does the
work; `--dry-run` stops after the first part.
"""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli.client import DEFAULT_SERVER, Client
from registry.cli.files import Sources, checked_file, model_files, upload_all
from registry.cli.models import Json, Server, follower, session, suggestion
from registry.cli.render import remark, write
from registry.core.errors import OperationFailed, RequestInvalid
from registry.core.names import ModelName

if TYPE_CHECKING:
    from registry.cli.forecast import Forecast

_AGAIN = "The work is not kept; files that are uploaded already will not be sent again."

DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would come of it.")]


def quantize(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A model of the library, or a GGUF file.")
    ],
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="For example Q4_K_M.")],
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="The model to be made; else SOURCE:TYPE."),
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Quantize a model: fewer bits for each weight, so that it is smaller and runs faster."""
    plans = import_module("registry.cli.forecast")  # loaded by these two commands alone
    wanted = _checked_type(kind)
    with session(server, _AGAIN) as client, suggestion(client, source):
        path = _file(source)
        new = _new_name(source, name, wanted, path)
        facts = plans.facts_of_file(path) if path else plans.facts_of_answer(client.show(source))
        forecast = plans.Forecast.of(source, facts, wanted)
        sources = Sources(files=[path]) if path else Sources({"from": source})
        sources.request["quantize"] = wanted
        _carry_out(client, new, forecast, sources, (dry_run, as_json))


def convert(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A checkpoint: safetensors and config.json.")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model to be made.")],
    kind: Annotated[
        str | None, typer.Option("--quantize", "-q", metavar="TYPE", help="For example Q4_K_M.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Convert a safetensors checkpoint to a GGUF model, quantized on the way if you like."""
    plans = import_module("registry.cli.forecast")
    wanted = _checked_type(kind) if kind else ""
    with session(server, _AGAIN) as client, suggestion(client, name):
        new = ModelName.checked(name, f"invalid model name: {name}").short
        files = model_files(folder)
        if not any(path.suffix == ".safetensors" for path in files):
            raise OperationFailed(
                f"{folder} holds no safetensors files; `registry create` takes other models"
            )
        forecast = plans.of_checkpoint(str(folder), files, wanted)
        request = {"quantize": wanted} if wanted else {}
        _carry_out(client, new, forecast, Sources(request, files=files), (dry_run, as_json))


def _carry_out(
    client: Client, name: str, forecast: "Forecast", sources: Sources, modes: tuple[bool, bool]
) -> None:
    """Show the forecast; then, unless it is a dry run, have the server do it."""
    dry_run, as_json = modes
    if as_json:
        write(json.dumps({"plan": {"model": name, **forecast.fields()}}))
    else:
        remark(forecast.text(name).rstrip())
    if dry_run:
        return
    with follower(as_json) as follow:
        request: dict[str, Any] = {"model": name, **upload_all(client, sources, follow)}
        for report in client.create(request):
            follow(report)


def _checked_type(kind: str) -> str:
    quantize = import_module("registry.core.quantize")
    try:
        return str(quantize.target(kind).name)
    except OperationFailed as error:
        names = ", ".join(quantize.TARGETS)
        raise typer.BadParameter(f"there is no type {kind!r}; there are {names}") from error


def _file(source: str) -> Path | None:
    """The file that `source` names, None if it is rather the name of a model."""
    path = Path(source)
    if path.suffix.lower() == ".gguf" or source.startswith((".", "/", "~")):
        return checked_file(path.expanduser())
    return None


def _new_name(source: str, name: str | None, kind: str, path: Path | None) -> str:
    """The name of the model to be made.

    Raises:
        RequestInvalid: no valid one, or none that could be made up.
    """
    if name is None and path is not None:
        raise RequestInvalid(
            f"a name is needed for the model: registry quantize {path} {kind} NAME"
        )
    if name is not None:
        return ModelName.checked(name, f"invalid model name: {name}").short
    found = ModelName.checked(source, f"invalid model name: {source}")
    tag = kind.replace("Q", "q", 1) if kind.startswith("Q") else kind.lower()
    return replace(found, tag=tag).short
