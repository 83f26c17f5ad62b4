"""`registry gc`, `scrub`, `du`, `history`, `quota`, `retention` on a library; both databases."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from registry.app import build, prepare
from registry.cli.main import app
from registry.cli.upkeep import seconds_of, size_of
from registry.core.digest import Digest
from registry.core.layering import Recipe
from registry.core.names import ModelName
from registry.services import Services
from registry.settings import Settings
from tests.support.gguf import SMALLEST
from tests.support.postgres import PostgresServer

DIGEST = Digest.of(SMALLEST)


@pytest.fixture(params=["sqlite", "postgres"])
def data(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A library with two tags of one model."""
    for name in [name for name in os.environ if name.startswith("REGISTRY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("REGISTRY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("REGISTRY_RETENTION__UNDELETE_S", "1000")
    if request.param == "sqlite":
        in_library(_fill)
        yield tmp_path / "data"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database() as url:
        monkeypatch.setenv("REGISTRY_DATABASE_URL", url)
        in_library(_fill)
        yield tmp_path / "data"


def in_library(work: Callable[[Services], Any]) -> None:
    async def run() -> None:
        settings = Settings.load()
        prepare(settings)
        services = build(settings)
        await work(services)
        await services.housekeeping.finish()
        await services.catalog.close()

    asyncio.run(run())


async def _fill(services: Services) -> None:
    digest = str((await services.blobs.put_bytes(SMALLEST)).digest)
    for name, recipe in (
        ("team/m:v1", Recipe(files={"a.gguf": digest})),
        ("team/m:v2", Recipe(origin="team/m:v1", system="be kind")),
    ):
        async for _ in services.create.run(ModelName.parse(name), recipe):
            pass


async def _forget(services: Services) -> None:
    await services.blobs.put_bytes(b"forgotten")


async def _delete(services: Services) -> None:
    await services.models.delete(ModelName.parse("team/m:v2"))


def run(command: str) -> Result:
    return CliRunner().invoke(app, command.split())


def read(command: str) -> Any:
    result = run(f"{command} --json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_gc_reports_first_and_then_frees(data: Path) -> None:
    in_library(_forget)
    assert "There is nothing to free." in run("gc --dry-run").stderr
    said = run("gc --dry-run --grace 0s")
    assert said.stderr == "9 B would be freed.\n"
    assert "blobs that no model refers to, past their grace" in said.stdout
    assert len(list((data / "blobs").iterdir())) == 4
    said = run("gc --grace 0s")
    assert "Freed 1 blobs that no model refers to, past their grace, 9 B." in said.stderr
    assert len(list((data / "blobs").iterdir())) == 3
    told = read("gc --grace 0s --no-orphans")
    assert told == {"goes": [], "stays": [], "freed": []}


def test_scrub_finds_names_and_forgets_damage(data: Path) -> None:
    assert read("scrub")["damaged"] == 0
    path = data / "blobs" / DIGEST.file_name
    path.write_bytes(b"x" * len(SMALLEST))
    said = run("scrub --subset 1/1 --rate 100")
    assert said.exit_code == 1
    assert f"damaged: {DIGEST}" in said.stderr
    said = run("du")
    assert f"Damaged: {DIGEST}, {len(SMALLEST)} B, of team/m." in said.stderr
    path.write_bytes(SMALLEST)
    assert read("scrub --damaged") == {
        "blobs": 1, "bytes": len(SMALLEST), "damaged": 0, "repaired": 0,
    }  # fmt: skip
    assert run("scrub --subset 0/2").exit_code == 1


def test_du_tells_what_is_unique(data: Path) -> None:
    told = read("du")
    (team,) = told["names"]
    assert (team["name"], team["bytes"], team["unique"]) == ("team", told["blobs"], told["blobs"])
    tags = {row["name"]: row["unique"] for row in read("du team/m")["names"]}
    assert tags == {"team/m:v1": 0, "team/m:v2": len("be kind")}
    assert "team/m" in run("du team").stdout
    assert run("du none").exit_code == 1


def test_history_and_bringing_back(data: Path) -> None:
    in_library(_delete)
    gone, made = read("history team/m:v2")
    assert (gone["to"], gone["kept"], made["to"]) == (None, True, gone["from"])
    assert f"team/m:v2 is {gone['from']} again." in run("model restore team/m:v2").stderr
    back = read("history team/m:v2")[0]
    assert back["who"].endswith("on the host")
    assert run(f"history team/m:v2 --to {made['id']}").exit_code == 0
    assert run("history team/m:v2 --to 999").exit_code == 1
    assert run("history team/none").exit_code == 1


def test_quotas(data: Path) -> None:
    assert read("quota list") == []
    assert "team may take 1.5 GB" in run("quota set team 1.5GB").stderr
    (told,) = read("quota list")
    assert (told["namespace"], told["bytes"]) == ("team", 1_500_000_000)
    assert "team" in run("quota list").stdout
    assert run("quota remove team").exit_code == 0
    assert run("quota remove team").exit_code == 1
    assert run("quota set team much").exit_code == 2


def test_retention(data: Path) -> None:
    assert run("retention set team/*").exit_code == 1
    assert run("retention set team/* --keep-last 1 --younger-than 0s --tag v9*").exit_code == 0
    (rule,) = read("retention list")
    assert (rule["pattern"], rule["keep_last"], rule["tags"]) == ("team/*", 1, ["v9*"])
    assert [row["name"] for row in read("retention run --dry-run")] == ["team/m:v1"]
    assert "1 tags are gone." in run("retention run").stderr
    assert read("retention run") == []
    assert run("retention remove team/*").exit_code == 0
    assert run("retention remove team/*").exit_code == 1


def test_without_a_library_there_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REGISTRY_DATABASE_URL", raising=False)
    for command in ("gc", "scrub", "du", "history m", "quota list", "retention run"):
        result = run(f"{command} --data {tmp_path}")
        assert (result.exit_code, "there is no library" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("5k", 5000),
        ("1.5 TiB", 3 << 39),
        ("2GB", 2 * 10**9),
        ("1mib", 1 << 20),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("30d", 2_592_000), ("90m", 5400), ("0s", 0)])
def test_durations(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "1.5d", "-1h", "1e9", "5 PB"])
def test_what_is_neither(text: str) -> None:
    for read_text in (size_of, seconds_of):
        with pytest.raises(typer.BadParameter):
            read_text(text)
