"""`registry migrate`: up, down, and a look that changes nothing; on both databases."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from typer.testing import CliRunner, Result

from registry.adapters.catalog_sql import open_catalog
from registry.cli.main import app
from tests.support.catalog_rows import put_model
from tests.support.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgres"])
def data(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    monkeypatch.setenv("REGISTRY_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("REGISTRY_DATABASE_URL", raising=False)
    if request.param == "sqlite":
        yield tmp_path / "data"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database() as url:
        monkeypatch.setenv("REGISTRY_DATABASE_URL", url)
        yield tmp_path / "data"


def run(command: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, command.split(), input=stdin)


def standing() -> tuple[str | None, bool]:
    result = run("migrate --check --json")
    found = json.loads(result.stdout)
    return found["current"], result.exit_code == 0


def test_a_look_makes_nothing(data: Path) -> None:
    assert standing() == (None, False)
    assert not data.exists()


def test_up_and_down_and_up_again_with_data(data: Path) -> None:
    async def models(put: bool) -> int:
        catalog = open_catalog(os.environ.get("REGISTRY_DATABASE_URL", ""), data / "registry.db")
        try:
            if put:
                await catalog.write(lambda tx: put_model(tx, "team/m", "latest"))
            return len(await catalog.scan(lambda tx: tx.models()))
        finally:
            await catalog.close()

    result = run("migrate")
    assert (result.exit_code, "The schema is 0" in result.stderr) == (0, True)
    assert standing()[1]
    assert anyio.run(models, True) == 1
    asked = run("migrate --to 0002", "n\n")
    assert (asked.exit_code, standing()[1]) == (1, True)
    assert run("migrate --to 0002", "y\n").exit_code == 0
    assert standing() == ("0002", False)
    assert run("migrate --check --to 0002").exit_code == 0
    assert run("migrate").exit_code == 0
    assert anyio.run(models, False) == 1
    assert run("migrate --to base --yes").exit_code == 0
    assert standing() == (None, False)


def test_a_revision_that_is_none_is_said(data: Path) -> None:
    result = run("migrate --to 9999")
    assert result.exit_code == 1
    assert "there is no schema '9999'" in result.stderr
