"""The models folder: tags as files, so that a real Ollama can read the data folder.

Beside it lie the records (`core/records.py`) of what a real Ollama has no file for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from registry.core.names import ModelName
from registry.ports.catalog import FolderChange


@dataclass(frozen=True, slots=True)
class TagFile:
    """A tag's file: a manifest, and when it was written, in ns since the epoch."""

    name: ModelName
    body: bytes
    modified_at: int


@dataclass(frozen=True, slots=True)
class RecordFile:
    """A record as it was found, by its place below `records/`."""

    place: str
    body: bytes
    modified_at: int


class ModelsFolder(Protocol):
    """Where tags are published as manifest files. The catalog stays the truth."""

    def apply(self, changes: Sequence[FolderChange]) -> None:
        """Write or remove the files, each atomically, in order. Blocks: for threads.

        Raises:
            StorageFull: no space; the changes stay due.
        """

    def sync(self, changes: Sequence[FolderChange]) -> None:
        """Make changes durable that were applied. Blocks."""

    async def names(self) -> list[ModelName]:
        """The tags that have a file, whoever wrote it; no order."""

    async def read(self, name: ModelName) -> TagFile | None:
        """A tag's file; None if there is none, or it is longer than any manifest."""

    async def records(self) -> list[str]:
        """The places of all records, below `records/`; no order."""

    async def read_record(self, place: str) -> RecordFile | None:
        """A record; None if there is none, or it is longer than any."""

    def holds(self, file: TagFile | RecordFile) -> bool:
        """Whether the file is there as it was read; synchronous, inside a transaction."""
