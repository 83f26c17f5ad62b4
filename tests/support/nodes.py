"""A node over models made in a test's own folder."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from registry.core.digest import Digest
from registry.core.errors import BlobUnknown
from registry.core.names import ModelName
from registry.ports.workers import Crash, LoadSpec, Piece, RunnerOptions, Running, Weights
from registry.settings import Settings
from registry.workers.engine import Engine, find_engine
from registry.workers.node import Node, NodeConfig

OVERHEAD = 40 << 20
"""What a tiny model's runner is taken to hold besides its file."""


@dataclass
class Shelf:
    """Models in a folder."""

    folder: Path
    paths: dict[Digest, Path] = field(default_factory=dict)
    crashes: list[Crash] = field(default_factory=list)

    def put(self, name: str, data: bytes, options: RunnerOptions | None = None) -> LoadSpec:
        """Keep a model; how to load it."""
        digest = Digest.of(data)
        path = self.folder / digest.file_name
        path.write_bytes(data)
        path.chmod(0o444)
        self.paths[digest] = path
        return LoadSpec(
            ModelName.parse(name),
            digest,
            Weights(digest, len(data)),
            options=options or RunnerOptions(),
            architecture="llama",
            memory=len(data) + OVERHEAD,
        )

    async def fetch(self, weights: Weights) -> Path:
        """Where it lies."""
        try:
            return self.paths[weights.digest]
        except KeyError as error:
            raise BlobUnknown(str(weights.digest)) from error


@asynccontextmanager
async def node(shelf: Shelf, engine: Engine | None = None, **settings: Any) -> AsyncIterator[Node]:
    """A node that runs what is on the shelf; closed in the end."""
    wanted = Settings.load({}).worker.model_copy(update=settings)
    engine = engine or find_engine("xllamacpp")
    made = Node(NodeConfig("here", wanted, engine, shelf.fetch, crashed=shelf.crashes.append))
    try:
        yield made
    finally:
        await made.close()


async def said(running: Running, prompt: str = "Hi\n", **options: Any) -> str:
    """What a model answers at temperature 0."""
    return "".join([piece.content for piece in await pieces(running, prompt, **options)])


async def pieces(running: Running, prompt: str = "Hi\n", **options: Any) -> list[Piece]:
    """The same, piece by piece."""
    body = {"prompt": prompt, "temperature": 0, **options}
    return [piece async for piece in running.complete(body)]


def with_options(spec: LoadSpec, **options: Any) -> LoadSpec:
    """The spec with other options."""
    return replace(spec, options=replace(spec.options, **options))
