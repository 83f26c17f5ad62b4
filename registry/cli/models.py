"""The commands about models: list, show, create, pull, push, cp, rm, and version.

Each is a client of a running server; none touches the store. Exit codes: 0 done, 1 failed, 2 wrong
usage, 130 interrupted.
"""

import difflib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from registry import __version__
from registry.cli import details
from registry.cli.client import DEFAULT_SERVER, Client, Report, server_url
from registry.cli.files import (
    Sources,
    checked_file,
    decode_modelfile,
    read_modelfile,
    sources_of,
    upload_all,
)
from registry.cli.render import (
    Board,
    age_text,
    complain,
    first_steps,
    moment,
    remark,
    size_text,
    table,
    write,
)
from registry.core.errors import (
    ModelfileInvalid,
    ModelUnknown,
    OperationFailed,
    RegistryError,
    RequestInvalid,
)
from registry.core.modelfile import parse
from registry.core.names import DEFAULT_HOST, ModelName

_COMPARED_NAMES = 10_000  # more would take too long to look through for a hint
_TLS = re.compile(r"\b(tls|ssl|certificate)\b", re.IGNORECASE)

Server = Annotated[
    str,
    typer.Option(
        envvar=["REGISTRY_SERVER", "OLLAMA_HOST"],
        metavar="URL",
        help="The server to talk to, as URL or HOST:PORT.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="(HOST/)(NAMESPACE/)MODEL(:TAG)")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Reach the other registry by plain HTTP.")
]


@contextmanager
def session(server: str, interrupted: str = "") -> Iterator[Client]:
    """A client whose failures end the command with one sentence and exit code 1."""
    try:
        with Client(server_url(server)) as client:
            yield client
    except RegistryError as error:
        complain(str(error))
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        remark(f"Interrupted. {interrupted}".rstrip())
        raise typer.Exit(130) from error


def show_list(
    prefix: Annotated[
        str, typer.Argument(metavar="[PREFIX]", help="Only names that begin so.")
    ] = "",
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """List the models in the library."""
    with session(server) as client:
        models = [
            model
            for model in client.models()
            if str(model.get("name", "")).lower().startswith(prefix.lower())
        ]
        if as_json:
            write(json.dumps(models, indent=2))
            return
        now = datetime.now(UTC)
        rows = [_row(model, now) for model in models]
        write(table([("NAME", "ID", "SIZE", "MODIFIED"), *rows]))
        if not models and not prefix:
            remark(f"\nNothing is in the library yet.\n\n{first_steps(client.url)}".rstrip())


def _row(model: dict[str, Any], now: datetime) -> tuple[str, str, str, str]:
    size = model.get("size")
    modified = moment(model.get("modified_at"))
    return (
        str(model.get("name", "")),
        str(model.get("digest", "")).removeprefix("sha256:")[:12],
        size_text(size) if isinstance(size, int) and not model.get("remote_model") else "-",
        age_text(modified, now) if modified else "Never",
    )


def show(
    name: Name,
    modelfile: Annotated[bool, typer.Option("--modelfile", help="Only the Modelfile.")] = False,
    parameters: Annotated[bool, typer.Option("--parameters", help="Only the parameters.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Only the template.")] = False,
    system: Annotated[bool, typer.Option("--system", help="Only the system prompt.")] = False,
    license_: Annotated[bool, typer.Option("--license", help="Only the license.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Metadata and tensors too.")
    ] = False,
    as_json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show what a model is made of."""
    parts = {
        "modelfile": modelfile,
        "parameters": parameters,
        "template": template,
        "system": system,
        "license": license_,
    }
    wanted = [part for part, chosen in parts.items() if chosen]
    if len(wanted) + as_json > 1:
        options = ", ".join(f"--{part}" for part in parts)
        raise typer.BadParameter(f"only one of {options} and --json can be given")
    with session(server) as client, suggestion(client, name):
        answer = client.show(name, verbose=verbose)
        if as_json:
            write(json.dumps(answer, indent=2))
        elif wanted:
            write(str(answer.get(wanted[0], "")))
        else:
            write(details.text(answer, verbose=verbose))


def create(
    name: Name,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A Modelfile; - for standard input.")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Build on this model.")
    ] = None,
    gguf: Annotated[
        list[Path] | None, typer.Option(help="A GGUF file; may be given several times.")
    ] = None,
    quantize: Annotated[
        str | None, typer.Option("--quantize", "-q", metavar="TYPE", help="For example Q4_K_M.")
    ] = None,
    as_json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Create a model from a Modelfile, from GGUF files or from another model.

    Without -f, --from and --gguf the file ./Modelfile is used.
    """
    if sum(map(bool, (file, from_, gguf))) > 1:
        raise typer.BadParameter("only one of --file, --from and --gguf can be given")
    again = "Files that are uploaded already will not be sent again."
    with session(server, again) as client, suggestion(client, name):
        ModelName.checked(name, f"invalid model name: {name}")
        sources = _sources(file, from_, gguf)
        for warning in sources.warnings:
            remark(warning)
        with follower(as_json) as follow:
            request = {"model": name, **upload_all(client, sources, follow)}
            if quantize:
                request["quantize"] = quantize
            for report in client.create(request):
                follow(report)


def _sources(file: Path | None, from_: str | None, gguf: list[Path] | None) -> Sources:
    """What the options of `create` name."""
    if from_:
        return Sources({"from": from_})
    if gguf:
        return Sources(files=[checked_file(path) for path in gguf])
    if file == Path("-"):
        text, folder = decode_modelfile(sys.stdin.buffer.read(), "standard input"), Path.cwd()
    else:
        file = file or Path("Modelfile")
        if not file.exists():
            raise ModelfileInvalid(
                f"no file {file}; name a Modelfile with -f, a GGUF file with --gguf "
                "or a model with --from"
            )
        text, folder = read_modelfile(file), file.absolute().parent
    return sources_of(parse(text), folder)


def pull(
    name: Name,
    insecure: Insecure = False,
    as_json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Have the server fetch a model from another registry."""
    again = f"What has arrived is kept: `registry pull {name}` goes on from there."
    with session(server, again) as client, _plain_http(insecure), follower(as_json) as follow:
        for report in client.pull(name, insecure=insecure):
            follow(report)


def push(
    name: Name,
    insecure: Insecure = False,
    as_json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Have the server send a model to the registry that its name begins with."""
    again = f"Layers that have arrived are not sent again by another `registry push {name}`."
    with (
        session(server, again) as client,
        suggestion(client, name),
        _plain_http(insecure),
        follower(as_json) as follow,
    ):
        for report in client.push(name, insecure=insecure):
            follow(report)


def copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The model there is.")],
    destination: Annotated[str, typer.Argument(metavar="NAME", help="Its second name.")],
    server: Server = DEFAULT_SERVER,
) -> None:
    """Give a model a second name; no bytes are copied."""
    with session(server) as client, suggestion(client, source):
        client.copy(source, destination)
        write(f"copied '{source}' to '{destination}'")


def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The models to delete.")],
    server: Server = DEFAULT_SERVER,
) -> None:
    """Delete models; blobs that no other model uses are freed."""
    missing = 0
    with session(server) as client:
        for name in names:
            try:
                with suggestion(client, name):
                    client.delete(name)
                write(f"deleted '{name}'")
            except (ModelUnknown, RequestInvalid) as error:
                complain(str(error))
                missing += 1
    if missing:
        raise typer.Exit(1)


def version(server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Print the version of this program, and of the server if one answers."""
    found: dict[str, str] = {"registry": __version__}
    reason = ""
    try:
        with Client(server_url(server)) as client:
            found |= {"server": client.url, "api": client.version(), "software": client.software()}
    except RequestInvalid as error:
        complain(str(error))
        raise typer.Exit(1) from error
    except RegistryError as error:
        reason = str(error)
    if as_json:
        write(json.dumps(found))
        return
    write(f"registry {__version__}")
    software = f" ({found['software']})" if found.get("software") else ""
    write(reason or f"server {found['server']}: Ollama API {found['api']}{software}")


@contextmanager
def follower(as_json: bool) -> Iterator[Any]:
    """Where the reports of a stream go: drawn, or as JSON lines to standard output."""
    if as_json:
        yield _write_report
        return
    with Board() as board:
        yield board.show


def _write_report(report: Report) -> None:
    write(json.dumps({key: value for key, value in asdict(report).items() if value}))
    sys.stdout.flush()


@contextmanager
def suggestion(client: Client, name: str) -> Iterator[None]:
    """Add to "not found" what the caller may have meant."""
    try:
        yield
    except ModelUnknown as error:
        hint = _similar(client, name)
        raise ModelUnknown(f"{error}; {hint}") from error


def _similar(client: Client, name: str) -> str:
    try:
        names = [str(model.get("name", "")) for model in client.models()[:_COMPARED_NAMES]]
    except RegistryError:
        names = []
    found = _closest(name, names)
    if found:
        return f"did you mean {' or '.join(found)}?"
    return f"`registry list` shows what there is, `registry pull {name}` fetches it from elsewhere"


def _closest(name: str, names: Iterable[str]) -> list[str]:
    """Up to three names that resemble `name`, the default tag left aside."""
    short = {known.removesuffix(":latest").lower(): known for known in names}
    matches = difflib.get_close_matches(name.removesuffix(":latest").lower(), short, n=3)
    return [short[match] for match in matches]


@contextmanager
def _plain_http(insecure: bool) -> Iterator[None]:
    """Say how to reach a registry without TLS, when that seems to be what failed."""
    try:
        yield
    except OperationFailed as error:
        if insecure or not _TLS.search(str(error)) or DEFAULT_HOST in str(error):
            raise
        raise OperationFailed(f"{error}; if it speaks plain HTTP, add --insecure") from error
