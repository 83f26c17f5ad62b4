"""What accelerators a worker's machine has, as the engine tells it.

The engine is asked in a child process, as it runs models in one: its drivers may crash, and the
library never loads it. A `llama-server` program is not asked: it is taken to have none.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from registry.workers.engine import Engine
from registry.workers.processes import COMMAND

_ASK_S = 20.0
_LONGEST = 2_000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Device:
    """An accelerator with memory of its own, in bytes."""

    name: str
    memory_total: int
    memory_free: int


async def accelerators(engine: Engine, environment: Mapping[str, str]) -> tuple[Device, ...]:
    """Those that there are; none where nobody tells."""
    if engine.program or engine.problem:
        return ()
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environment),
        cwd="/",
    )
    words = b""
    line = json.dumps({"devices": True, "parent": os.getpid()}).encode() + b"\n"
    try:
        async with asyncio.timeout(_ASK_S):
            said, words = await process.communicate(line)
        found = tuple(_device(item) for item in json.loads(said)["devices"])
    except (TimeoutError, ValueError, KeyError, TypeError):
        log.warning("the engine does not tell what devices there are", reason=_last_line(words))
        return ()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    for device in found:
        log.info("an accelerator", name=device.name, bytes=device.memory_total)
    return found


def _last_line(words: bytes) -> str:
    """Of what the child wrote to its standard error: a library that is missing, perhaps."""
    lines = words[-_LONGEST:].decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _device(told: Mapping[str, object]) -> Device:
    return Device(str(told["name"]), int(str(told["total"])), int(str(told["free"])))
