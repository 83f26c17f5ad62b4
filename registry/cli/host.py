"""What the commands have in common that work on the library itself, beside a server or without one.

What they need of the service is loaded when one of them runs, so that other commands start fast.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli.render import complain
from registry.core.errors import OperationFailed, RegistryError

if TYPE_CHECKING:
    from registry.settings import Settings

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@contextmanager
def told() -> Iterator[None]:
    """What goes wrong inside ends the command with one sentence and exit code 1."""
    try:
        yield
    except RegistryError as error:
        complain(str(error))
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(130) from error


def loaded(module: str) -> Any:
    """A module of this layer or another, imported now."""
    return import_module(f"registry.{module}")


def settings_of(data: Path | None) -> "Settings":
    """The settings of the environment and the command line.

    Raises:
        OperationFailed: they cannot be used; every bad value is named.
    """
    module = loaded("settings")
    try:
        found: Settings = module.Settings.load(data=data)
    except module.SettingsInvalid as error:
        raise OperationFailed(str(error)) from error
    return found
