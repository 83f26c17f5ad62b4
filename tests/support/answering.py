"""The inference endpoints over a small library, whose models say what a test writes down."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from starlette.applications import Starlette

from registry.core.errors import RegistryError
from registry.core.generation import Answer, AnswerEvent, Metrics, Vectors
from registry.core.wishes import ChatWish, EmbeddingWish, EmbedWish, GenerateWish
from registry.services.inference.inference import Admitted, Inference
from registry.settings import Settings
from registry.web import compat, errors, inference
from tests.support.library import library

TEMPLATE = (
    "{{ .System }}{{ if .Tools }}{{ .Tools }}{{ end }}{{ .Suffix }}"
    "{{ range .Messages }}{{ .Role }}: {{ .Content }}{{ .ToolCalls }}"
    "<think>{{ .Thinking }}</think>{{ end }}"
)
"""A template that shows every capability."""


class Sayings:
    """Stands where generation does: says the next script to every wish, and notes the wishes.

    A script is a list of events, of seconds to wait, and of an error that ends it. `closed` counts
    the answers that were let go of, `open` those that run.
    """

    def __init__(self) -> None:
        self.scripts: list[Sequence[AnswerEvent | float | RegistryError]] = []
        self.vectors_found: Vectors | RegistryError = Vectors([], Metrics())
        self.wishes: list[Any] = []
        self.open = 0
        self.closed = asyncio.Event()

    async def answer(self, admitted: Admitted, wish: GenerateWish | ChatWish) -> Answer:
        """The next script; the last one stays."""
        self.wishes.append(wish)
        script = self.scripts[0] if len(self.scripts) == 1 else self.scripts.pop(0)
        self.open += 1
        try:
            for step in script:
                if isinstance(step, RegistryError):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    yield step
        finally:
            self.open -= 1
            self.closed.set()

    async def vectors(self, admitted: Admitted, wish: EmbedWish) -> Vectors:
        """`vectors_found`, or raised."""
        self.wishes.append(wish)
        if isinstance(self.vectors_found, RegistryError):
            raise self.vectors_found
        return self.vectors_found

    async def vector(self, admitted: Admitted, wish: EmbeddingWish) -> Vectors:
        """The same."""
        self.wishes.append(wish)
        assert isinstance(self.vectors_found, Vectors)
        return self.vectors_found


@asynccontextmanager
async def answering(folder: Path) -> AsyncIterator[tuple[Starlette, Sayings]]:
    """An application with one model, `tiny`, which can do everything."""
    async with library(folder / "data") as lib:
        await lib.base("base")
        await lib.make("tiny", origin="base", template=TEMPLATE)
        routes = [*inference.routes, *compat.routes]
        app = Starlette(routes=routes, exception_handlers={RegistryError: errors.answer})
        sayings = Sayings()
        app.state.services = SimpleNamespace(
            settings=Settings.load({}, data=folder),
            clock=lib.clock,
            models=lib.models,
            listing=lib.listing,
            inference=Inference(lib.models),
            generation=sayings,
        )
        yield app, sayings
