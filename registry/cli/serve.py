"""`registry serve`: settings from options and environment, checks a person can act on, first steps.

What cannot work is told in one sentence before anything is started.
"""

import errno
import socket
import tempfile
from pathlib import Path

import typer

from registry import __version__
from registry.app import serve
from registry.cli.client import server_url
from registry.cli.render import complain, first_steps
from registry.core.errors import OperationFailed, RegistryError
from registry.settings import Settings, SettingsInvalid


def run(
    host: str | None, port: int | None, data: Path | None, *, no_auth: bool | None = None
) -> None:
    """Run the library until it is told to stop; options that are None come from the environment."""
    try:
        settings = Settings.load(host=host, port=port, data=data, no_auth=no_auth)
        check_exposure(settings)
        check_data(settings.data)
        check_port(settings.host, settings.port)
        serve(settings, lambda port, code: typer.echo(greeting(settings, port, code)))
    except (SettingsInvalid, RegistryError) as error:
        complain(str(error))
        raise typer.Exit(1) from error


def check_exposure(settings: Settings) -> None:
    """Refuse to let other machines in by accident.

    Raises:
        OperationFailed: the address is not loopback, authentication is off, and nobody said
            `--no-auth`.
    """
    if not (settings.is_loopback or settings.auth or settings.no_auth):
        raise OperationFailed(
            f"{settings.host} can be reached from other machines and authentication is off: "
            "anybody could read, change and delete every model; switch it on with "
            "REGISTRY_AUTH=true, or add --no-auth if that is meant"
        )


def check_data(folder: Path) -> None:
    """Make the data folder and try to write in it.

    Raises:
        OperationFailed: that does not work.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OperationFailed(
            f"cannot write in the data folder {folder}: {error.strerror}; "
            "name another with --data or REGISTRY_DATA"
        ) from error


def check_port(host: str, port: int) -> None:
    """Try to take the port that the server will listen on.

    Raises:
        OperationFailed: the port is taken, or the address is none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            trial.listen()  # with SO_REUSEADDR it is this that finds another server
    except socket.gaierror as error:
        raise OperationFailed(f"cannot listen on {host}: {error.strerror}") from error
    except OSError as error:
        raise OperationFailed(_refusal(host, port, error)) from error


def _refusal(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is taken, perhaps by an Ollama or another registry; "
            f"choose another, for example --port {port + 1}"
        )
    if error.errno == errno.EACCES:
        return f"port {port} may not be used by this user; choose one above 1023 with --port"
    return f"cannot listen on {host} port {port}: {error.strerror}"


def greeting(settings: Settings, port: int, code: str | None = None) -> str:
    """What a newcomer reads first: where the library is, and the commands to type next.

    `code` makes the first administrator, where there is none yet.
    """
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "https" if settings.tls_cert else "http"
    url = settings.external_url or server_url(f"{scheme}://{host}:{port}")
    setup = (
        f"\nMake the first administrator at {url}/ui/setup with the code {code}\n" if code else ""
    )
    return (
        f"registry {__version__} at {url} (data in {settings.data}; Ctrl-C stops it)\n"
        f"{setup}\n{first_steps(url)}"
    )
