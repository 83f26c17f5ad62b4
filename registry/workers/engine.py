"""The engine: which one runs models here, and in words why none does.

It is looked for, never imported: only a runner does that.
"""

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from registry.workers import machine

BUILT_IN = "xllamacpp"
_NONE = (
    "no inference engine is installed on this server: add it with pip install 'registry[worker]', "
    "or name a llama-server program in REGISTRY_WORKER__ENGINE"
)
_NO_PROGRAM = "the program that REGISTRY_WORKER__ENGINE names to run models with is not there"


@dataclass(frozen=True, slots=True)
class Engine:
    """What runs models. `program` is a llama-server's path, empty for the built-in engine.

    `problem` says why it cannot run at all; empty if it can.
    """

    name: str
    version: str = ""
    program: str = ""
    problem: str = ""


def find_engine(
    wanted: str, lacking: Callable[[], tuple[str, ...]] = machine.missing_features
) -> Engine:
    """The engine of the settings; `lacking` tells what the built-in one misses in the processor."""
    if wanted != BUILT_IN:
        program = shutil.which(wanted)
        if program is None:
            return Engine("llama-server", problem=_NO_PROGRAM)
        return Engine("llama-server", program=program)
    if importlib.util.find_spec(BUILT_IN) is None:
        return Engine(BUILT_IN, problem=_NONE)
    missing = lacking()
    if missing:
        return Engine(
            BUILT_IN,
            problem=(
                f"this server's processor lacks {', '.join(missing)}, which the built-in engine "
                "needs: name a llama-server built for it in REGISTRY_WORKER__ENGINE"
            ),
        )
    return Engine(BUILT_IN, importlib.metadata.version(BUILT_IN))
