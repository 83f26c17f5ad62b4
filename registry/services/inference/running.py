"""What runs on all workers: the answer of `/api/ps`.

Source: spec ollama-api 9.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from registry.core import media
from registry.core.card import Parts
from registry.core.duration import LONGEST
from registry.core.errors import ModelUnknown
from registry.ports.workers import Loaded
from registry.services.inference.routing import Router
from registry.services.library.models import Models

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class RunningModel:
    """A runner, and the model as it was when it was loaded; that may have been deleted since.

    `expires_at` of one that stays for ever lies 292 years ahead.
    """

    loaded: Loaded
    worker: str
    details: dict[str, Any]
    expires_at: int


async def running_models(
    router: Router, models: Models, clock: Callable[[], int]
) -> list[RunningModel]:
    """All runners of all workers, by the second in which they expire, latest first."""
    found = [
        await _running(models, loaded, worker.name, clock())
        for worker in router.workers()
        for loaded in worker.facts().loaded
    ]
    return sorted(found, key=lambda item: -(item.expires_at // _NS))


async def _running(models: Models, loaded: Loaded, worker: str, now: int) -> RunningModel:
    expires_at = now + LONGEST if loaded.expires_at is None else loaded.expires_at
    try:
        parts = await models.parts_of(loaded.manifest)
    except ModelUnknown:  # deleted, and too long ago to be remembered
        return RunningModel(loaded, worker, _NOTHING_KNOWN, expires_at)
    size = loaded.size or _weights(parts)
    return RunningModel(replace(loaded, size=size), worker, parts.details(), expires_at)


_NOTHING_KNOWN: dict[str, Any] = {
    "parent_model": "",
    "format": "gguf",
    "family": "",
    "families": None,
    "parameter_size": "",
    "quantization_level": "",
}


def _weights(parts: Parts) -> int:
    return sum(layer.size for layer in parts.manifest.layers if layer.media_type == media.MODEL)
