"""What `registry worker` does: settings from options and environment, then the worker's process."""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from registry import __version__, logs
from registry.cli.render import complain, write
from registry.core.errors import RegistryError, RequestInvalid
from registry.settings import Settings, SettingsInvalid
from registry.workers import remote

_SIZE = re.compile(r"([0-9]{1,9})([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def run(post: Mapping[str, Any], data: Path | None) -> None:
    """Be a worker until told to stop; `post` holds the command's options by name."""
    server = post["server"]
    try:
        settings = Settings.load(data=data)
        filled = remote.Post(
            server=remote.check_url(server),
            token=post["token"],
            name=post["name"],
            labels=post["labels"],
            cache_bytes=parse_size(post["cache_max"]) if post["cache_max"] else 0,
            store=post["store"] or settings.data,
        )
        logs.configure(settings.log_level, json=settings.log_json)
        asyncio.run(remote.serve(filled, settings, lambda known: write(_greeting(known, server))))
    except (SettingsInvalid, RegistryError) as error:
        complain(str(error))
        raise typer.Exit(1) from error


def _greeting(name: str, server: str) -> str:
    return f"registry {__version__}: worker {name} of {server} (Ctrl-C lets what runs end)"


def parse_size(text: str) -> int:
    """Read `200G`, `512MiB`, `1000`, in bytes; units are powers of 1024.

    Raises:
        RequestInvalid: it is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or not int(match[1]):
        raise RequestInvalid(f"{text[:40]!r} is no size: write it like 200G")
    return int(match[1]) * _UNITS[match[2].upper()]
