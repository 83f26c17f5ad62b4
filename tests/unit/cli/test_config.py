"""`registry config`: every setting, whence it comes, and no secret of it."""

import json

import pytest
from typer.testing import CliRunner, Result

from registry.cli.config import hidden
from registry.cli.main import app


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("REGISTRY_DATA", "REGISTRY_DATABASE_URL", "OLLAMA_HOST", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def run(command: str) -> Result:
    return CliRunner().invoke(app, command.split())


def checked(command: str = "config check --json") -> dict[str, tuple[str, str]]:
    result = run(command)
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["settings"]
    return {row["name"]: (row["value"], row["source"]) for row in rows}


def test_each_setting_tells_where_it_comes_from(
    environ: pytest.MonkeyPatch, tmp_path: object
) -> None:
    environ.setenv("REGISTRY_WORKER__MAX_QUEUE", "9")
    environ.setenv("OLLAMA_HOST", "0.0.0.0:99")
    environ.setenv("REGISTRY_ORIGINS", "a, b")
    found = checked("config check --json --data /srv/models")
    assert found["REGISTRY_WORKER__MAX_QUEUE"] == ("9", "REGISTRY_WORKER__MAX_QUEUE")
    assert found["REGISTRY_HOST"] == ("0.0.0.0", "OLLAMA_HOST")
    assert found["REGISTRY_PORT"] == ("99", "OLLAMA_HOST")
    assert found["REGISTRY_DATA"] == ("/srv/models", "--data")
    assert found["REGISTRY_ORIGINS"] == ("a,b", "REGISTRY_ORIGINS")
    assert found["REGISTRY_AUTH"] == ("false", "")


def test_a_file_of_a_secret_is_named_and_its_content_is_not(
    environ: pytest.MonkeyPatch, tmp_path: object
) -> None:
    file = f"{tmp_path}/url"
    with open(file, "w") as text:
        text.write("postgresql://user:hunter@2@db/registry?password=hunter3")
    environ.setenv("REGISTRY_DATABASE_URL_FILE", file)
    value, source = checked()["REGISTRY_DATABASE_URL"]
    assert source == "REGISTRY_DATABASE_URL_FILE"
    assert value == "postgresql://user:***@db/registry?password=***"
    assert "hunter" not in run("config check").stdout


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("s3__secret_access_key", "abc", "***"),
        ("password", "abc", "***"),
        ("password", "", ""),
        ("token_s", "3600", "3600"),
        ("storage_url", "s3://b/p?secret_key=x&region=y", "s3://b/p?secret_key=***&region=y"),
        ("external_url", "https://models.example:444", "https://models.example:444"),
    ],
)
def test_secrets_are_known_by_name_and_place(name: str, text: str, shown: str) -> None:
    assert hidden(name, text) == shown


def test_a_bad_value_is_named_and_fails(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("REGISTRY_PORT", "many")
    result = run("config check")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "REGISTRY_PORT" in result.stderr


def test_a_name_that_means_nothing_is_told(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("REGISTRY_PROT", "1")
    result = run("config check")
    assert result.exit_code == 0
    assert "REGISTRY_PROT is no setting" in result.stderr


def test_the_schema_is_json_schema() -> None:
    found = json.loads(run("config schema").stdout)
    assert found["properties"]["port"]["maximum"] == 65535
    assert found["properties"]["data"]["description"] == "folder of the store and SQLite"
