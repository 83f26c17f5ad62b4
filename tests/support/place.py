"""A library as a command sees it: a data folder and a database that the environment names."""

import asyncio
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from registry.cli.library import opened
from registry.cli.main import app
from registry.core.layering import Recipe
from registry.core.names import ModelName
from registry.services import Services
from registry.settings import Settings
from tests.support.backends import BACKENDS
from tests.support.gguf import SMALLEST


class Place:
    """A data folder and a database, named by the environment."""

    def __init__(
        self,
        data: Path,
        monkeypatch: pytest.MonkeyPatch,
        url: str | None = None,
        storage: Mapping[str, str] | None = None,
    ) -> None:
        """`url` and `storage` as settings; where one is None, what the tests run on."""
        self.data = data
        self._patch = monkeypatch
        usual = BACKENDS.environ(data)
        self.url = usual.get("REGISTRY_DATABASE_URL", "") if url is None else url
        self.environ = {
            "REGISTRY_DATA": str(data),
            "REGISTRY_STORAGE_URL": "",
            **(usual if storage is None else storage),
            "REGISTRY_DATABASE_URL": self.url,
        }

    @property
    def settings(self) -> Settings:
        return Settings.load(os.environ | self.environ)

    def run(self, command: str) -> Result:
        for name, value in self.environ.items():
            self._patch.setenv(name, value)
        return CliRunner().invoke(app, command.split())

    def fill(self, gguf: bytes = SMALLEST) -> None:
        asyncio.run(self._fill(gguf))

    async def _fill(self, weights: bytes) -> None:
        async with opened(self.settings) as library:
            gguf = str((await library.blobs.put_bytes(weights)).digest)
            await make(library, "base", files={"a.gguf": gguf})
            await make(library, "team/Other:Q4", origin="base", system="Be brief.")
            await make(library, "gone", origin="base", system="Not for long.")
            await library.models.delete(ModelName.parse("gone"))
            await library.accounts.create_user("alice", None)
            await library.housekeeping.purge()

    def models(self) -> dict[str, str]:
        """Every model by name: its digest, with all of its bytes read and hashed."""
        return asyncio.run(self._models())

    async def _models(self) -> dict[str, str]:
        async with opened(self.settings) as library:
            found = {}
            for model in await library.listing.models():
                tag = await library.models.find(ModelName.parse(model.name.short))
                assert tag is not None
                found[model.name.short] = str(tag.digest)
                parts = await library.models.parts(tag)
                for layer in parts.manifest.blobs:
                    blob = await library.blobs.find(layer.digest)
                    assert blob is not None
                    async with await library.blobs.open(blob) as file:
                        content = await file.read(0, file.size)
                    assert hashlib.sha256(content).hexdigest() == layer.digest.hex
            return found

    def accounts(self) -> list[str]:
        listed = self.run("user list --json")
        assert listed.exit_code == 0, repr(listed.exception) + listed.stderr
        return [row["name"] for row in json.loads(listed.stdout)]


async def make(library: Services, name: str, **recipe: Any) -> None:
    async for _ in library.create.run(ModelName.parse(name), Recipe(**recipe)):
        pass
