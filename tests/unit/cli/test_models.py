"""The commands, run whole against a small server: what they ask, print and return."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from registry import __version__
from registry.cli.main import app
from registry.cli.models import session
from registry.core.digest import Digest
from tests.support.api import Answer, FakeApi, serving

ENDING = [{"status": "writing manifest"}, {"status": "success"}]
SUCCESS = Answer(lines=ENDING)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    with serving() as api:
        monkeypatch.setenv("REGISTRY_SERVER", api.url)
        yield api


def run(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner(env={"NO_COLOR": "1", "COLUMNS": "100"}).invoke(app, arguments, input=stdin)


def model(name: str, **fields: Any) -> dict[str, Any]:
    modified = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    return {
        "name": name,
        "digest": "50af0d6e26ec" + "0" * 52,
        "size": 80_152,
        "modified_at": modified,
        **fields,
    }


LIBRARY = Answer(
    json={
        "models": [
            model("tiny:latest"),
            model("team/mario:v1", size=2_019_393_189),
            model("far:cloud", remote_model="far"),
            model("odd:latest", modified_at="never", size=None),
        ]
    }
)


def test_list_prints_the_table_of_the_stock_client(api: FakeApi) -> None:
    api.answers["GET /api/tags"] = LIBRARY
    result = run("list")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "NAME             ID              SIZE      MODIFIED",
        "tiny:latest      50af0d6e26ec    80 KB     3 days ago",
        "team/mario:v1    50af0d6e26ec    2.0 GB    3 days ago",
        "far:cloud        50af0d6e26ec    -         3 days ago",
        "odd:latest       50af0d6e26ec    -         Never",
    ]
    assert result.stderr == ""


def test_list_takes_a_prefix_in_any_case(api: FakeApi) -> None:
    api.answers["GET /api/tags"] = LIBRARY
    assert "team/mario:v1" in run("ls", "TEAM/").stdout
    assert run("list", "zzz").stdout == "NAME    ID    SIZE    MODIFIED\n"


def test_list_as_json_is_what_the_server_sent(api: FakeApi) -> None:
    api.answers["GET /api/tags"] = LIBRARY
    assert json.loads(run("list", "--json").stdout) == LIBRARY.json["models"]


def test_an_empty_library_teaches_the_first_commands(api: FakeApi) -> None:
    api.answers["GET /api/tags"] = Answer(json={"models": []})
    result = run("list")
    assert result.stdout == "NAME    ID    SIZE    MODIFIED\n"
    for command in ("registry create", "registry push", "registry pull", "ollama push"):
        assert command in result.stderr
    assert f"export REGISTRY_SERVER={api.url}" in result.stderr


SHOWN = {
    "license": "MIT License\nline 2\nline 3",
    "modelfile": "FROM x\n",
    "parameters": 'num_ctx                        4096\nstop                           "a b"',
    "template": "{{ .Prompt }}",
    "system": "You are Mario.\n\x1b[31mBe brief.",
    "details": {"family": "llama", "parameter_size": "18K", "quantization_level": "F16"},
    "model_info": {
        "general.architecture": "llama",
        "llama.context_length": 128,
        "llama.attention.layer_norm_rms_epsilon": 1e-05,
        "llama.attention.causal": False,
        "tokenizer.ggml.tokens": ["a", "bb", "ccc", "dddddddddd", "e"],
    },
    "projector_info": {"general.architecture": "clip", "clip.vision.projection_dim": 64},
    "tensors": [{"name": "output_norm.weight", "type": "F32", "shape": [32, 2]}, "odd"],
    "capabilities": ["completion", "tools"],
}


def test_show_tells_what_a_model_is_made_of(api: FakeApi) -> None:
    api.answers["POST /api/show"] = Answer(json=SHOWN)
    result = run("show", "mario")
    assert result.stdout == (
        "  Model\n"
        "    architecture      llama\n"
        "    parameters        18K\n"
        "    context length    128\n"
        "    quantization      F16\n"
        "\n"
        "  Capabilities\n"
        "    completion\n"
        "    tools\n"
        "\n"
        "  Projector\n"
        "    architecture    clip\n"
        "    dimensions      64\n"
        "\n"
        "  Parameters\n"
        "    num_ctx    4096\n"
        '    stop       "a b"\n'
        "\n"
        "  System\n"
        "    You are Mario.\n"
        "    \N{REPLACEMENT CHARACTER}[31mBe brief.\n"
        "\n"
        "  License\n"
        "    MIT License\n"
        "    line 2\n"
        "    ...\n"
    )


def test_show_verbose_adds_metadata_and_tensors(api: FakeApi) -> None:
    api.answers["POST /api/show"] = Answer(json=SHOWN)
    shown = run("show", "mario", "--verbose").stdout
    assert api.last("/api/show").json == {"model": "mario", "verbose": True}
    assert "tokenizer.ggml.tokens                     [a bb ccc ...+2 more]\n" in shown
    assert "llama.attention.layer_norm_rms_epsilon    1e-05\n" in shown
    assert "llama.attention.causal                    false\n" in shown
    assert "output_norm.weight    F32    [32 2]\n" in shown
    assert "line 3" in shown


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--modelfile", "FROM x\n"),
        ("--parameters", f"{SHOWN['parameters']}\n"),
        ("--template", "{{ .Prompt }}\n"),
        ("--system", "You are Mario.\n\x1b[31mBe brief.\n"),
        ("--license", "MIT License\nline 2\nline 3\n"),
    ],
)
def test_show_of_one_part_is_exact_in_a_pipe(api: FakeApi, option: str, text: str) -> None:
    api.answers["POST /api/show"] = Answer(json=SHOWN)
    assert run("show", "mario", option).stdout == text


def test_show_as_json_is_what_the_server_sent(api: FakeApi) -> None:
    api.answers["POST /api/show"] = Answer(json=SHOWN)
    assert json.loads(run("show", "mario", "--json").stdout) == SHOWN


def test_show_survives_an_answer_with_nothing_in_it(api: FakeApi) -> None:
    api.answers["POST /api/show"] = Answer(json={"details": None, "model_info": 5, "tensors": "x"})
    result = run("show", "mario", "--verbose")
    assert (result.exit_code, result.stdout) == (0, "\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "m", "--system", "--template"),
        ("show", "m", "--system", "--json"),
        ("show",),
        ("create", "m", "--from", "a", "--gguf", "b"),
        ("list", "--nonsense"),
        ("nonsense",),
    ],
)
def test_wrong_usage_ends_with_2_and_asks_nothing(api: FakeApi, arguments: tuple[str]) -> None:
    assert run(*arguments).exit_code == 2
    assert api.asked == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tinny", "did you mean tiny:latest?"),
        ("team/marie:v1", "did you mean team/mario:v1?"),
        ("llama3", "`registry pull llama3` fetches it"),
    ],
)
def test_an_unknown_model_gets_a_suggestion(api: FakeApi, name: str, hint: str) -> None:
    api.answers["GET /api/tags"] = LIBRARY
    api.answers["POST /api/show"] = Answer(json={"error": f"model '{name}' not found"}, status=404)
    result = run("show", name)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: model '{name}' not found; ")
    assert hint in result.stderr


def test_the_suggestion_survives_a_server_that_does_not_list(api: FakeApi) -> None:
    api.answers["POST /api/copy"] = Answer(json={"error": 'model "a" not found'}, status=404)
    assert 'Error: model "a" not found; `registry list`' in run("cp", "a", "b").stderr


def test_cp_says_what_it_did(api: FakeApi) -> None:
    api.answers["POST /api/copy"] = Answer()
    assert run("cp", "mario", "luigi").stdout == "copied 'mario' to 'luigi'\n"
    assert api.last("/api/copy").json == {"source": "mario", "destination": "luigi"}


def test_rm_deletes_each_and_fails_if_one_is_missing(api: FakeApi) -> None:
    api.answers["DELETE /api/delete"] = Answer()
    result = run("rm", "a", "b")
    assert (result.exit_code, result.stdout) == (0, "deleted 'a'\ndeleted 'b'\n")
    api.answers["DELETE /api/delete"] = Answer(json={"error": "model 'c' not found"}, status=404)
    result = run("rm", "c", "d")
    assert result.exit_code == 1
    assert result.stderr.count("Error: model 'c' not found") == 2
    assert [asked.json["model"] for asked in api.asked if asked.method == "DELETE"] == list("abcd")


@pytest.mark.parametrize("command", ["pull", "push"])
def test_transfers_ask_the_server_and_print_each_status(api: FakeApi, command: str) -> None:
    digest = "sha256:" + "a" * 64
    line = {"status": "pulling aaaaaaaaaaaa", "digest": digest, "total": 9}
    api.answers[f"POST /api/{command}"] = Answer(
        lines=[{"status": "pulling manifest"}, line, {**line, "completed": 9}, *ENDING]
    )
    result = run(command, "host:1/a/b", "--insecure")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "pulling manifest",
        "pulling aaaaaaaaaaaa  9 B",
        "writing manifest",
        "success",
    ]
    assert api.last(f"/api/{command}").json == {"model": "host:1/a/b", "insecure": True}


def test_a_transfer_as_json_is_a_line_for_each_report(api: FakeApi) -> None:
    lines = [{"status": "a", "digest": "sha256:b", "total": 9, "completed": 4}]
    api.answers["POST /api/pull"] = Answer(lines=[*lines, {"status": "success"}])
    result = run("pull", "m", "--json")
    assert list(map(json.loads, result.stdout.splitlines())) == [*lines, {"status": "success"}]
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "error", "hinted"),
    [
        (("h:1/a/b",), "tls: first record does not look like a TLS handshake", True),
        (("h:1/a/b", "--insecure"), "tls: no", False),
        (("h:1/a/b",), "pull model manifest: file does not exist", False),
        (("m",), "Get https://registry.ollama.ai/v2/: certificate has expired", False),
    ],
)
def test_plain_http_is_hinted_at_when_tls_failed(
    api: FakeApi, arguments: tuple[str, ...], error: str, hinted: bool
) -> None:
    api.answers["POST /api/pull"] = Answer(lines=[{"error": error}])
    result = run("pull", *arguments)
    assert result.exit_code == 1
    assert f"Error: {error}" in result.stderr
    assert ("add --insecure" in result.stderr) is hinted


def test_another_failure_gets_no_suggestion(api: FakeApi) -> None:
    api.answers["POST /api/show"] = Answer(json={"error": "invalid model name"}, status=400)
    assert run("show", "m").stderr == "Error: invalid model name\n"


def test_no_server_is_told_with_what_to_type() -> None:
    result = run("list", "--server", "127.0.0.1:1")
    assert result.exit_code == 1
    assert "Error: no server answers at http://127.0.0.1:1; start one with" in result.stderr


def test_a_bad_server_address_is_told() -> None:
    for command in ("list", "version"):
        result = run(command, "--server", "ftp://x")
        assert (result.exit_code, "not a server address" in result.stderr) == (1, True)


def test_the_server_of_ollama_host_is_used_if_ours_is_not_set(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.answers["GET /api/tags"] = LIBRARY
    monkeypatch.delenv("REGISTRY_SERVER")
    monkeypatch.setenv("OLLAMA_HOST", api.url)
    assert run("list").exit_code == 0


def test_ctrl_c_ends_with_130_and_says_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception) as caught, session("127.0.0.1:1", "Pull again."):
        raise KeyboardInterrupt
    assert getattr(caught.value, "exit_code", None) == 130
    assert capsys.readouterr().err == "Interrupted. Pull again.\n"


def test_version_prints_ours_and_the_servers(api: FakeApi) -> None:
    api.answers["GET /api/version"] = Answer(json={"version": "0.33.0"})
    api.answers["HEAD /api/version"] = Answer(headers={"X-Nothing": ""})
    lines = run("version").stdout.splitlines()
    assert lines[0] == f"registry {__version__}"
    assert lines[1].startswith(f"server {api.url}: Ollama API 0.33.0 (")
    assert json.loads(run("version", "--json").stdout)["api"] == "0.33.0"


def test_version_without_a_server_is_no_failure() -> None:
    result = run("version", "--server", "127.0.0.1:1")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == f"registry {__version__}"
    assert "no server answers" in result.stdout
    found = json.loads(run("version", "--json", "--server", "127.0.0.1:1").stdout)
    assert found == {"registry": __version__}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_create_uploads_what_is_missing_and_asks_for_the_model(api: FakeApi, folder: Path) -> None:
    api.answers["POST /api/create"] = SUCCESS
    (folder / "tiny.gguf").write_bytes(b"GGUF tiny")
    (folder / "Modelfile").write_text("FROM ./tiny.gguf\nSYSTEM hello\n")
    digest = str(Digest.of(b"GGUF tiny"))
    result = run("create", "tiny", "-q", "Q4_K_M")
    assert result.exit_code == 0, result.stderr
    assert api.last("/api/create").json == {
        "model": "tiny",
        "system": "hello",
        "files": {"tiny.gguf": digest},
        "quantize": "Q4_K_M",
    }
    assert api.blobs == {digest: b"GGUF tiny"}
    assert result.stderr.splitlines() == [
        "hashing tiny.gguf  9 B",
        "uploading tiny.gguf  9 B",
        "writing manifest",
        "success",
    ]
    assert "already there: tiny.gguf" in run("create", "tiny").stderr
    assert sum(asked.method == "POST" and "blobs" in asked.path for asked in api.asked) == 1


def test_create_from_a_model_needs_no_file(api: FakeApi, folder: Path) -> None:
    api.answers["POST /api/create"] = SUCCESS
    assert run("create", "child", "--from", "tiny").exit_code == 0
    assert api.last("/api/create").json == {"model": "child", "from": "tiny"}


def test_create_takes_gguf_files_and_a_modelfile_from_a_pipe(api: FakeApi, folder: Path) -> None:
    api.answers["POST /api/create"] = SUCCESS
    for name in ("a.gguf", "b.gguf"):
        (folder / name).write_bytes(name.encode())
    assert run("create", "m", "--gguf", "a.gguf", "--gguf", "b.gguf").exit_code == 0
    assert sorted(api.last("/api/create").json["files"]) == ["a.gguf", "b.gguf"]
    assert run("create", "m", "-f", "-", stdin=b"FROM tiny\n").exit_code == 0
    assert api.last("/api/create").json == {"model": "m", "from": "tiny"}


def test_numbers_go_out_as_the_stock_client_writes_them(api: FakeApi, folder: Path) -> None:
    api.answers["POST /api/create"] = SUCCESS
    lines = "FROM tiny\nPARAMETER temperature 0.123456789\nPARAMETER low_vram true\n"
    (folder / "Modelfile").write_text(lines)
    result = run("create", "m")
    assert b'"temperature":0.12345679' in api.last("/api/create").body
    assert result.stderr.startswith("warning: parameter low_vram is deprecated\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("bad name", "--from", "a"), "invalid model name: bad name"),
        (("m",), "no file Modelfile; name a Modelfile with -f"),
        (("m", "-f", "elsewhere"), "no file elsewhere"),
        (("m", "--gguf", "no.gguf"), "cannot read no.gguf: No such file"),
    ],
)
def test_create_refuses_what_cannot_work_before_asking(
    api: FakeApi, folder: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    result = run("create", *arguments)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert api.asked == []
