"""The models folder: tags as files, so that a real Ollama can read the data folder."""

from collections.abc import Sequence
from typing import Protocol

from registry.ports.catalog import FolderChange


class ModelsFolder(Protocol):
    """Where tags are published as manifest files. The catalog stays the truth."""

    async def apply(self, changes: Sequence[FolderChange]) -> None:
        """Write or remove the files, each atomically, in order.

        Raises:
            StorageFull: no space; the changes stay due.
        """
