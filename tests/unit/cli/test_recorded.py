"""`registry create` asks for exactly what the stock client asked for, as recorded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from registry.cli.main import app
from tests.support.api import Answer, serving

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
RECORDED = json.loads((GOLDEN / "wire" / "cli.json").read_text())


def recorded_creates() -> list[Any]:
    """Those that asked for something: arguments, and the requests that changed anything."""
    found = {}
    for command in RECORDED["commands"]:
        asked = [request for request in command["requests"] if request["method"] == "POST"]
        if command["argv"][1] == "create" and asked:
            found[" ".join(command["argv"][2:])] = asked
    # A file that is not there: the stock client takes its path for a model's name, we tell.
    del found["x -f Modelfile.missing"]
    return [pytest.param(line.split(), asked, id=line) for line, asked in found.items()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in RECORDED["modelfiles"].items():
        (tmp_path / name).write_text(text)
    for file in (GOLDEN / "inputs").glob("*.gguf"):
        shutil.copy(file, tmp_path)
    shutil.copytree(GOLDEN / "inputs" / "safetensors-llama", tmp_path / "hf")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("arguments", "recorded"), recorded_creates())
def test_the_requests_are_the_recorded_ones(
    folder: Path, arguments: list[str], recorded: list[dict[str, Any]]
) -> None:
    with serving() as api:
        api.answers["POST /api/create"] = Answer(lines=[{"status": "success"}])
        result = CliRunner().invoke(app, ["create", *arguments, "--server", api.url])
    assert result.exit_code == 0, result.stderr
    *blobs, create = recorded
    assert sorted(api.blobs) == sorted(blob["path"].removeprefix("/api/blobs/") for blob in blobs)
    wanted = {key: value for key, value in create["request_body"]["json"].items() if key != "name"}
    assert api.last("/api/create").json == wanted


@pytest.mark.parametrize(
    ("modelfile", "sentence"),
    [
        ("Modelfile.missing", "FROM ./nothere.gguf: no such file"),
        ("Modelfile.bad", "unknown parameter 'nosuch'"),
        ("Modelfile.syntax", '(line 1): command must be one of "from"'),
        ("Modelfile.empty", "no FROM line"),
        ("nosuchfile", "no file nosuchfile"),
    ],
)
def test_a_bad_modelfile_is_told_before_anything_is_asked(
    folder: Path, modelfile: str, sentence: str
) -> None:
    with serving() as api:
        result = CliRunner().invoke(app, ["create", "x", "-f", modelfile, "--server", api.url])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {sentence}")
    assert api.asked == []
