"""What a model is to those who ask it: worked out once, for manifests never change.

Source: spec ollama-api 7.4, 17.1, 17.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anyio import to_thread

from registry.core import media
from registry.core.card import Parts
from registry.core.conversation import Stored
from registry.core.digest import Digest
from registry.ports.workers import LoadSpec
from registry.services.inference.inference import Admitted
from registry.services.inference.loading import Demands, Rendering, load_spec, rendering
from registry.settings import Worker

_KEPT = 256
_SPECS = 64
_LARGE = 1 << 16
"""Templates from this length on are parsed each time: their trees take a hundred times as much."""


@dataclass(frozen=True, slots=True)
class Traits:
    """How prompts are made, what the model can do, and what it brings along.

    `specs` are those made so far, by name and what they depend on.
    """

    rendering: Rendering
    capabilities: frozenset[str]
    stored: Stored
    parameters: Mapping[str, Any]
    specs: dict[Any, LoadSpec] = field(default_factory=dict, compare=False)

    def spec(self, admitted: Admitted, demands: Demands, settings: Worker) -> LoadSpec:
        """What is loaded for a request; see `load_spec`."""
        wanted = (admitted.tag.model, demands.key)
        found = self.specs.get(wanted)
        if found is None:
            if len(self.specs) >= _SPECS:
                self.specs.clear()
            found = load_spec(admitted.tag, admitted.parts, demands, settings)
            self.specs[wanted] = found
        return found

    @classmethod
    def of(cls, parts: Parts, go_template: str) -> "Traits":
        """Of a model taken apart; `go_template` is the setting.

        Raises:
            OperationFailed: its template does not parse.
        """
        return cls(
            rendering(parts, go_template),
            frozenset(parts.capabilities(look_into_gguf=True)),
            Stored.of(parts.text(media.SYSTEM), parts.messages),
            parts.parameters,
        )


class KnownTraits:
    """The traits of the models asked last."""

    def __init__(self, go_template: str) -> None:
        self._go_template = go_template
        self._known: dict[Digest, Traits] = {}

    async def of(self, admitted: Admitted) -> Traits:
        """Those of a model.

        Raises:
            OperationFailed: its template does not parse.
        """
        found = self._known.get(admitted.tag.digest)
        if found is None:  # a millisecond for each kilobyte of its template: not on the event loop
            found = await to_thread.run_sync(Traits.of, admitted.parts, self._go_template)
            if len(admitted.parts.template or "") < _LARGE:
                if len(self._known) >= _KEPT:
                    self._known.pop(next(iter(self._known)))
                self._known[admitted.tag.digest] = found
        return found
