"""The models folder on a file system: `manifests/<host>/<namespace>/<model>/<tag>`.

Source: spec ollama-api 3.1. Temporary files lie in `incoming/`, never below `manifests/`, where a
real Ollama would take them for tags. Nothing is synced: the catalog knows what is due and writes it
again after a crash.
"""

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread

from registry.adapters.os_errors import os_errors
from registry.ports.catalog import FolderChange


class FolderOnDisk:
    """`ModelsFolder` below a data folder."""

    def __init__(self, data: Path) -> None:
        self._root = data / "manifests"
        self._incoming = data / "incoming"

    async def apply(self, changes: Sequence[FolderChange]) -> None:
        """See `ModelsFolder.apply`. Names that Ollama cannot have are left out."""
        await anyio.to_thread.run_sync(self._apply, changes)

    def _apply(self, changes: Sequence[FolderChange]) -> None:
        with os_errors():
            for change in changes:
                if not change.name.is_valid:
                    continue
                path = self._root / change.name.file_path  # safe: four checked parts, none hidden
                if change.body is None:
                    self._remove(path)
                else:
                    self._write(path, change.body)

    def _write(self, path: Path, body: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = self._incoming / f"manifest-{secrets.token_hex(16)}"
        try:
            part.write_bytes(body)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        for folder in list(path.parents)[:3]:
            with contextlib.suppress(OSError):  # not empty: another tag lives there
                os.rmdir(folder)  # noqa: PTH106 - Path.rmdir is the same call
