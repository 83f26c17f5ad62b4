"""`registry doctor`: it finds what is wrong and says what to do; `--rebuild` after a loss."""

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from registry.adapters.catalog_sql import resolve
from registry.adapters.database_health import Health
from registry.cli import examination
from registry.cli.library import opened
from registry.core.digest import Digest
from registry.services.upkeep.checkup import Checkup, Finding
from tests.support.backends import BACKENDS
from tests.support.gguf import SMALLEST
from tests.support.place import Place
from tests.support.postgres import PostgresServer
from tests.support.s3 import S3Server


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path / "data", monkeypatch)
    place.fill()
    return place


def found(place: Place, options: str = "") -> dict[str, list[Finding]]:
    """The findings by level, but for the one that is of the tests' own database server."""
    result = place.run(f"doctor --json {options}")
    findings = [Finding(**item) for item in json.loads(result.stdout)]
    findings = [item for item in findings if "fsync" not in item.what]
    assert result.exit_code == int(any(item.level == "problem" for item in findings))
    assert all(item.advice for item in findings if item.level != "ok")
    return {
        level: [item for item in findings if item.level == level]
        for level in ("ok", "warning", "problem")
    }


@pytest.mark.parametrize("options", ["", "--deep"])
def test_a_sound_library_has_no_problem(place: Place, options: str) -> None:
    findings = found(place, options)
    assert (findings["warning"], findings["problem"]) == ([], [])
    shown = place.run(f"doctor {options}")
    assert shown.exit_code == 0
    lines = [line for line in shown.stdout.splitlines() if "fsync" not in line]
    assert lines
    assert all(line.startswith("ok ") for line in lines)


def test_postgres_is_looked_at_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer
) -> None:
    with postgres.database() as url:
        place = Place(tmp_path / "data", monkeypatch, url)
        place.fill()
        assert found(place, "--deep")["problem"] == []
        assert "fsync" in place.run("doctor").stdout  # the tests' own server syncs nothing


def _lose_weights(place: Place) -> None:
    BACKENDS.stored(place.data, Digest.of(SMALLEST)).remove()


def _cut_weights(place: Place) -> None:
    BACKENDS.stored(place.data, Digest.of(SMALLEST)).write(SMALLEST[:3])


def _execute(place: Place, statement: str) -> None:
    engine = create_engine(resolve(place.url, place.data / "registry.db"))
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _dangle(place: Place) -> None:
    with closing(sqlite3.connect(place.data / "registry.db")) as connection:
        connection.execute("DELETE FROM repository")
        connection.commit()


def _garbage(place: Place) -> None:
    with (place.data / "registry.db").open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(40_000))


def _older(place: Place) -> None:
    assert place.run("migrate --to 0005 --yes").exit_code == 0


def _newer(place: Place) -> None:
    _execute(place, "UPDATE alembic_version SET version_num = '9999'")


def _nothing(place: Place) -> None:
    (place.data / "registry.db").unlink()


def _future(place: Place) -> None:
    _execute(place, f"UPDATE blob SET used_at = {time.time_ns() + 3_600 * 10**9}")


def _damaged(place: Place) -> None:
    async def mark() -> None:
        async with opened(place.settings) as library:
            (blob, *_) = await library.catalog.scan(lambda tx: tx.blobs_after("", 1))
            await library.catalog.write(lambda tx: tx.suspect(blob.digest, blob.storage_key, 1))

    asyncio.run(mark())


OF_A_FILE = pytest.mark.sqlite("harms the file, or what Postgres would refuse")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_lose_weights, "library/base"),
        (_cut_weights, "not in the store"),
        pytest.param(_dangle, "refers to nothing", marks=OF_A_FILE),
        pytest.param(_garbage, "database", marks=OF_A_FILE),
        (_older, "0005"),
        (_newer, "9999"),
        pytest.param(_nothing, "no library", marks=OF_A_FILE),
        (_future, "in the future"),
        (_damaged, "found to be damaged"),
    ],
)
def test_a_problem_is_named_and_fails(
    place: Place, harm: Callable[[Place], None], said: str
) -> None:
    harm(place)
    problems = found(place)["problem"]
    assert any(said in item.what for item in problems), problems


@pytest.mark.folder("puts a file among the blobs")
def test_what_the_catalog_does_not_know_is_counted(place: Place) -> None:
    path = place.data / "blobs" / f"sha256-{'a' * 64}"
    path.write_bytes(b"stray")
    assert found(place, "--deep")["warning"] == []
    os.utime(path, (1, 1))
    (stray,) = found(place, "--deep")["warning"]
    assert "1 blobs (5 bytes)" in stray.what


def test_few_of_many_blobs_are_looked_at(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.services.upkeep.checkup._SAMPLES", 1)
    monkeypatch.setattr("registry.services.upkeep.checkup._EACH", 2)

    async def look() -> list[str]:
        async with opened(place.settings) as library:
            checkup = Checkup(library.catalog, library.store, library.clock)
            return [finding.what async for finding in checkup.run()]

    assert any("chosen at random" in what for what in asyncio.run(look()))


@pytest.mark.parametrize(
    ("environ", "level", "said"),
    [
        ({"REGISTRY_HOST": "0.0.0.0"}, "problem", "authentication is off"),
        ({"REGISTRY_HOST": "0.0.0.0", "REGISTRY_NO_AUTH": "1"}, "warning", "authentication is off"),
        ({"REGISTRY_HOST": "0.0.0.0", "REGISTRY_AUTH": "1"}, "warning", "EXTERNAL_URL"),
        ({"REGISTRY_AUTH": "1"}, "warning", "no administrator"),
        ({"REGISTRY_PROT": "1"}, "warning", "REGISTRY_PROT"),
        ({"REGISTRY_EXTERNAL_URL": "http://127.0.0.1:9"}, "warning", "does not answer"),
        ({"REGISTRY_TLS_CERT": "/nowhere", "REGISTRY_TLS_KEY": "/no"}, "problem", "cannot be read"),
    ],
)
def test_settings_that_will_hurt_are_told(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    level: str,
    said: str,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert any(said in item.what for item in found(place)[level])


@pytest.mark.sqlite("about the mode of a file")
def test_files_of_secrets_are_for_nobody_else(place: Place) -> None:
    (place.data / "registry.db").chmod(0o644)
    (warning,) = found(place)["warning"]
    assert "others may read" in warning.what
    assert "chmod 600" in warning.advice


def test_a_clock_that_differs_is_told() -> None:
    (sound, skewed) = examination._database(Health("x", now=time.time() + 100))
    assert (sound.level, skewed.level) == ("ok", "warning")
    assert "100 s ahead" in skewed.what or "99 s ahead" in skewed.what


def test_a_lost_database_is_made_anew(place: Place) -> None:
    before = place.models()
    BACKENDS.lose_database(place.data)
    done = place.run("doctor --rebuild")
    assert done.exit_code == 0, done.stderr
    assert "Took in 2 tags and manifests" in done.stderr
    assert "Accounts" in done.stderr
    assert place.models() == before
    assert found(place, "--deep")["problem"] == []


@pytest.mark.folder("harms the file of a tag")
def test_what_cannot_be_made_anew_is_named(place: Place) -> None:
    tags = place.data / "manifests" / "registry.ollama.ai"
    (tags / "team" / "Other" / "Q4").write_bytes(b"garbage")
    BACKENDS.lose_database(place.data)
    done = place.run("doctor --rebuild")
    assert done.exit_code == 1
    assert "team/Other:Q4: left out" in done.stderr
    assert set(place.models()) == {"base:latest"}


def test_a_lost_database_is_made_anew_from_an_object_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3Server
) -> None:
    place = Place(tmp_path / "data", monkeypatch, storage=s3.environ())
    place.fill()
    before = place.models()
    assert found(place, "--deep")["problem"] == []
    BACKENDS.lose_database(place.data)
    done = place.run("doctor --rebuild")
    assert done.exit_code == 0, done.stderr
    assert place.models() == before
