"""The commands quantize and convert: a plan first, then a create that says what the plan said."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from registry.cli.forecast import size_of
from registry.cli.main import app
from registry.core.digest import Digest
from registry.tensors.checkpoint import open_checkpoint
from tests.support.api import Answer, FakeApi, serving
from tests.support.checkpoints import encoders
from tests.support.conversion import opened
from tests.support.weighty import model

CHECKPOINT = Path(__file__).parents[2] / "golden" / "inputs" / "safetensors-llama"
DONE = Answer(lines=[{"status": "writing manifest"}, {"status": "success"}])


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    with serving() as api:
        monkeypatch.setenv("REGISTRY_SERVER", api.url)
        api.answers["POST /api/create"] = DONE
        yield api


def run(*arguments: str) -> Result:
    return CliRunner(env={"NO_COLOR": "1", "COLUMNS": "200"}).invoke(app, arguments)


def shown(kind: int = 1, **changes: Any) -> Answer:
    """An answer of show: three tensors of 256 × 256."""
    names = ("output.weight", "token_embd.weight", "blk.0.attn_q.weight")
    tensors = [{"name": name, "type": "F16", "shape": [256, 256]} for name in names]
    info = {
        "general.architecture": "llama",
        "general.file_type": kind,
        "llama.attention.head_count": [4, 4],
        "tokenizer.ggml.tokens": None,
    }
    return Answer(json={"tensors": tensors, "model_info": info} | changes)


def created(api: FakeApi) -> Any:
    return api.last("/api/create").json


PLAN = [
    "in      team/m:f16       F16       393 KB                    197K",
    "out     team/m:q4_K_M    Q4_K_M    127 KB                    tensors: 2 Q4_K, 1 Q6_K",
    "time    about 1s on 4 cores",
]


def test_a_model_of_the_library_is_quantized_under_its_name_with_the_type(api: FakeApi) -> None:
    api.answers["POST /api/show"] = shown()
    result = run("quantize", "team/m:f16", "Q4_k")
    assert result.exit_code == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stderr.splitlines()]
    assert lines[:3] == [" ".join(line.split()) for line in PLAN]
    assert lines[-1] == "success"
    assert created(api) == {"model": "team/m:q4_K_M", "from": "team/m:f16", "quantize": "Q4_K_M"}


def test_another_name_can_be_given(api: FakeApi) -> None:
    api.answers["POST /api/show"] = shown()
    assert run("quantize", "m", "bf16", "other").exit_code == 0
    assert created(api) == {"model": "other:latest", "from": "m", "quantize": "BF16"}


def test_a_dry_run_makes_nothing(api: FakeApi) -> None:
    api.answers["POST /api/show"] = shown()
    result = run("quantize", "m", "q8_0", "-n")
    assert result.exit_code == 0
    assert "Q8_0" in result.stderr
    assert "POST /api/create" not in api.paths()


def test_the_plan_as_json(api: FakeApi) -> None:
    api.answers["POST /api/show"] = shown()
    result = run("quantize", "m", "q4_K_M", "--json")
    plan, *rest = [json.loads(line) for line in result.stdout.splitlines()]
    assert plan == {
        "plan": {
            "model": "m:q4_K_M",
            "source": "m",
            "source_type": "F16",
            "source_bytes": 393_216,
            "type": "Q4_K_M",
            "bytes": 2 * 36_864 + 53_760,
            "tensors": {"Q4_K": 2, "Q6_K": 1},
        }
    }
    assert rest[-1] == {"status": "success"}


def test_a_gguf_file_is_uploaded_and_quantized(api: FakeApi, tmp_path: Path) -> None:
    file, data = tmp_path / "m.gguf", model()
    file.write_bytes(data)
    api.answers[f"HEAD /api/blobs/{Digest.of(data)}"] = Answer(status=200)
    result = run("quantize", str(file), "q5_0", "m")
    assert result.exit_code == 0, result.stderr
    assert created(api) == {
        "model": "m:latest",
        "files": {"m.gguf": str(Digest.of(data))},
        "quantize": "Q5_0",
    }


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (shown(15), "m is Q4_K_M already; only F16, BF16 and F32 models can be quantized"),
        (shown(tensors=None), "the server does not tell what the model's tensors are"),
        (shown(tensors=[{"name": "x", "type": "Q99", "shape": [1]}]), "does not tell what"),
        (shown(tensors=[{"name": "x", "type": "F16", "shape": []}]), "does not tell what"),
        (shown(model_info=7, tensors=[]), "does not tell what"),
    ],
)
def test_what_cannot_be_quantized_is_told_before_anything_is_asked_for(
    api: FakeApi, answer: Answer, words: str
) -> None:
    api.answers["POST /api/show"] = answer
    result = run("quantize", "m", "q8_0")
    assert result.exit_code == 1
    assert words in result.stderr
    assert "POST /api/create" not in api.paths()


def test_a_type_that_does_not_exist_is_wrong_usage_and_all_are_listed(api: FakeApi) -> None:
    result = run("quantize", "m", "q9_z")
    assert result.exit_code == 2
    assert "Q2_K" in result.stderr
    assert "Q5_K_M" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["./absent.gguf", "q8_0", "m"], "cannot read absent.gguf: No such file or directory"),
        (["./absent.gguf", "q8_0"], "cannot read absent.gguf"),
        (["bad name", "q8_0"], "invalid model name: bad name"),
        (["m", "q8_0", "bad name"], "invalid model name: bad name"),
    ],
)
def test_wrong_names_are_told(api: FakeApi, arguments: list[str], words: str) -> None:
    result = run("quantize", *arguments)
    assert result.exit_code == 1
    assert words in result.stderr


def test_a_file_needs_a_name_for_its_model(api: FakeApi, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(model())
    assert "a name is needed for the model" in run("quantize", str(file), "q8_0").stderr


def test_a_file_that_is_no_gguf_is_told(api: FakeApi, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"PK\x03\x04 and so on")
    assert "it is a ZIP archive" in run("quantize", str(file), "q8_0", "m").stderr


@pytest.mark.parametrize(("kind", "level"), [([], "F16"), (["-q", "q8_0"], "Q8_0")])
def test_a_checkpoint_is_planned_here_and_converted_there(
    api: FakeApi, kind: list[str], level: str
) -> None:
    for path in CHECKPOINT.iterdir():
        api.answers[f"HEAD /api/blobs/{Digest.of(path.read_bytes())}"] = Answer(status=200)
    result = run("convert", str(CHECKPOINT), "m", *kind)
    assert result.exit_code == 0, result.stderr
    assert [" ".join(line.split()) for line in result.stderr.splitlines()][1].startswith(
        f"out m:latest {level} "
    )
    request = created(api)
    assert "model.safetensors" in request["files"]
    assert request.get("quantize", "") == ("Q8_0" if kind else "")


def test_layers_after_the_pooling_are_counted_too(api: FakeApi, tmp_path: Path) -> None:
    tiny, _ = encoders()["embedding gemma"]
    for name, data in tiny.contents().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    result = run("convert", str(tmp_path), "m", "--dry-run", "--json")
    plan = json.loads(result.stdout)["plan"]
    with opened(tiny.contents()) as files:
        source = open_checkpoint(files, {}, lambda text: None)
    assert "dense_3.weight" in {tensor.name for tensor in source.tensors}
    assert plan["bytes"] == size_of(source.tensors)


def copied(tmp_path: Path) -> Path:
    for path in CHECKPOINT.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", b'{"architectures": ["NoSuchModel"]}', "NoSuchModel"),
        ("model.safetensors", b"\xff" * 9, "model.safetensors"),
        ("tokenizer.json", b"{", "tokenizer.json"),
        ("model.safetensors.index.json", b"[]", "model.safetensors.index.json"),
        ("chat_template.jinja", bytes(1 << 21), "is larger than"),
    ],
    ids=["architecture", "header", "tokenizer", "index", "template"],
)
def test_a_checkpoint_that_cannot_be_converted_is_not_uploaded(
    api: FakeApi, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    folder = copied(tmp_path)
    (folder / name).write_bytes(content)
    result = run("convert", str(folder), "m")
    assert result.exit_code == 1
    assert words in result.stderr
    assert api.asked == []


def test_a_folder_without_a_checkpoint_is_told(api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(model())
    assert "holds no safetensors files" in run("convert", str(tmp_path), "m").stderr
