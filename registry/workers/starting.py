"""Starts and stops runners: their sockets, keys, settings."""

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from registry.adapters.runner_wire import RunnerWire
from registry.settings import Worker as WorkerSettings
from registry.workers import machine
from registry.workers.devices import Device, accelerators
from registry.workers.engine import Engine
from registry.workers.holding import Held
from registry.workers.launch import (
    Files,
    Place,
    runner_environment,
    runner_settings,
    server_arguments,
)
from registry.workers.processes import Start, launch

_SOURCES = Path(__file__).resolve().parent.parent.parent
_LONGEST = 60
"""Of the folder's name: a socket's path may have some hundred bytes."""


class Starter:
    """Starts runners of one engine; sockets lie in a folder that is ours alone.

    `broken` is called with a runner that is there no more, though nobody has stopped it.
    """

    def __init__(
        self, settings: WorkerSettings, engine: Engine, broken: Callable[[Held], None]
    ) -> None:
        self._broken = broken
        self._settings = settings
        self._engine = engine
        self._threads = settings.threads or machine.cores()
        self._environment = runner_environment(
            os.environ, str(_SOURCES), dedicated=settings.dedicated
        )
        self._folder: Path | None = None
        self._devices: tuple[Device, ...] | None = None
        self._asking = asyncio.Lock()

    async def accelerators(self) -> tuple[Device, ...]:
        """What the engine can put models on besides this machine's memory; asked once."""
        async with self._asking:
            if self._devices is None:
                self._devices = await accelerators(self._engine, self._environment)
        return self._devices

    async def start(self, held: Held, files: Files) -> None:
        """Start a runner for `held`, and wait until its model is loaded.

        Raises:
            LoadFailed: it did not get there.
        """
        socket = self._sockets() / f"{secrets.token_hex(8)}.sock"
        place = Place(
            str(socket),
            secrets.token_urlsafe(24),
            self._threads,
            self._settings.cache_type,
            self._settings.flash_attention,
        )
        wire = RunnerWire(place.socket, place.api_key, partial(self._broken, held))
        options = held.spec.options
        settings = runner_settings(files, options, place)
        if self._engine.program:
            settings = {
                "program": self._engine.program,
                "arguments": server_arguments(files, options, place),
                "api_key": place.api_key,
            }
        timeout_s = self._settings.load_timeout_s
        held.child = await launch(Start(settings, self._environment, wire, timeout_s))
        held.wire = wire

    async def stop(self, held: Held) -> None:
        """End a runner and take its socket away."""
        if held.child is not None:
            await held.child.stop()
        if held.wire is not None and isinstance(held.wire.address, str):
            with contextlib.suppress(OSError):
                await asyncio.to_thread(Path(held.wire.address).unlink, missing_ok=True)

    def close(self) -> None:
        """Take the folder away."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _sockets(self) -> Path:
        """The folder of sockets; others of this machine cannot look into it."""
        if self._folder is None or not self._folder.is_dir():
            base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
            if len(base) > _LONGEST or not os.access(base, os.W_OK):
                base = "/tmp"  # noqa: S108  # mkdtemp makes a folder of mode 0700 there
            self._folder = Path(tempfile.mkdtemp(prefix="registry-", dir=base))
        return self._folder
