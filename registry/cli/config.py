"""`registry config`: the settings as they are, where each comes from, and what there could be."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from registry.cli.admin import Data, Json
from registry.cli.host import loaded, settings_of, told
from registry.cli.render import table, write

if TYPE_CHECKING:
    from pydantic import BaseModel

_HIDDEN = "***"
_SECRET_NAME = re.compile(r"(?:^|_)(?:password|secret|access_key|secret_key|session_token)(?:_|$)")
_SECRET_QUERY = re.compile(r"([?&][^=&]*(?:password|secret|key|token)[^=&]*=)[^&]*", re.IGNORECASE)
_USER = re.compile(r"(://[^/@]*:).*@")  # up to the last @: a password may hold one

config = typer.Typer(name="config", help="The settings.", no_args_is_help=True)


@config.command("check")
def check(data: Data = None, as_json: Json = False) -> None:
    """Read the settings; show each with where it comes from. Exit code 1 if they cannot be used."""
    with told():
        found = settings_of(data)
        module = loaded("settings")
        given = {} if data is None else {"DATA": "--data"}
        sources = _sources(module.Settings, os.environ)
        rows = [
            {"name": name, "value": value, "source": given.get(name[9:]) or sources.get(name, "")}
            for name, value in _values(found, "REGISTRY_")
        ]
        strange = module.unknown_names(os.environ)
    if as_json:
        write(json.dumps({"settings": rows, "unknown": strange}, indent=2))
        return
    shown = [(row["name"], row["value"], row["source"] or "default") for row in rows]
    write(table([("NAME", "VALUE", "FROM"), *shown]))
    for name in strange:
        typer.echo(f"{name} is no setting; perhaps it is misspelt", err=True)


@config.command("schema")
def schema() -> None:
    """Print the JSON Schema of the settings: names, types, bounds, defaults, meanings."""
    write(json.dumps(loaded("settings").Settings.model_json_schema(), indent=2))


def _values(model: "BaseModel", prefix: str) -> Iterator[tuple[str, str]]:
    """Each setting's name and its value as one writes it, secrets hidden."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if hasattr(type(value), "model_fields"):
            yield from _values(value, f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}", hidden(name, _text(value))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def hidden(name: str, text: str) -> str:
    """A value without its secrets: passwords of URLs, and all of what is a secret by its name."""
    if text and _SECRET_NAME.search(name.lower()):
        return _HIDDEN
    return _SECRET_QUERY.sub(rf"\1{_HIDDEN}", _USER.sub(rf"\1{_HIDDEN}@", text))


def _sources(settings: Any, environ: Mapping[str, str]) -> dict[str, str]:
    """Of the settings that the environment gives, by which variable."""
    standard = dict(_values(settings.load({}), ""))
    found: dict[str, str] = {}
    for variable in sorted(environ):
        if variable.startswith("OLLAMA_"):
            alone = dict(_values(settings.load({variable: environ[variable]}), ""))
            changed = [name for name, value in alone.items() if value != standard[name]]
            found |= {f"REGISTRY_{name}": variable for name in changed}
    names = [f"REGISTRY_{name}" for name in standard]
    found |= {name: f"{name}_FILE" for name in names if f"{name}_FILE" in environ}
    return found | {name: name for name in names if name in environ}
