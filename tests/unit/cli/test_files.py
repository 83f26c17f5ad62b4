"""From a Modelfile's folder to a create request: files taken, their names, files refused."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.cli.client import Client, Report
from registry.cli.files import (
    Sources,
    checked_file,
    model_files,
    read_modelfile,
    request_names,
    sources_of,
    upload_all,
)
from registry.core.digest import Digest
from registry.core.errors import ModelfileInvalid, OperationFailed
from registry.core.modelfile import parse
from tests.support.api import FakeApi, serving


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"content of {name}".encode())


def names_in(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in model_files(folder)]


SHARDS = ["model-1-of-2.safetensors", "model-2-of-2.safetensors", "sub/model.safetensors"]
BESIDE = ["config.json", "1_Pooling/config.json", "chat_template.jinja", "tokenizer.model"]
BESIDE += ["vocab.txt", "sentencepiece.bpe.model"]


@pytest.mark.parametrize(
    ("present", "taken"),
    [
        (
            [*SHARDS, *BESIDE, "README.md", "other.safetensors", "x.gguf", "a/b/deep.json"],
            [*SHARDS, *BESIDE],
        ),
        (["consolidated.safetensors", "params.json"], ["consolidated.safetensors", "params.json"]),
        (["pytorch_model.bin", "config.json"], ["pytorch_model.bin", "config.json"]),
        (["consolidated.00.pth"], ["consolidated.00.pth"]),
        (["b.gguf", "a.gguf", "config.json", "c.bin"], ["a.gguf", "b.gguf"]),
        (["ggml-model.bin"], ["ggml-model.bin"]),
        (
            ["adapter_model.safetensors", "adapter_config.json"],
            ["adapter_model.safetensors", "adapter_config.json"],
        ),
        (["x.gguf", ".hidden.gguf", ".cache/y.json"], ["x.gguf"]),
        (["model.safetensors", ".cache/y.json"], ["model.safetensors"]),
    ],
)
def test_a_folder_stands_for_its_model_files(
    tmp_path: Path, present: list[str], taken: list[str]
) -> None:
    make(tmp_path, *present)
    assert names_in(tmp_path) == taken


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "README.md", "config.json")
    with pytest.raises(ModelfileInvalid, match="no model in"):
        model_files(tmp_path)


def test_links_may_stay_within_the_folder_but_not_leave_it(tmp_path: Path) -> None:
    make(tmp_path, "model/real.bin", "blobs/secret")
    (tmp_path / "model/model.safetensors").symlink_to("real.bin")
    assert names_in(tmp_path / "model") == ["model.safetensors"]
    (tmp_path / "model/config.json").symlink_to("../blobs/secret")
    with pytest.raises(ModelfileInvalid, match=r"leads out of .* --local-dir"):
        model_files(tmp_path / "model")


def test_only_regular_readable_files_are_sent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelfileInvalid, match="not a regular file"):
        checked_file(tmp_path / "pipe.gguf")
    with pytest.raises(ModelfileInvalid, match=r"cannot read .*No such file"):
        checked_file(tmp_path / "nothing.gguf")
    pointer = tmp_path / "model.gguf"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    with pytest.raises(ModelfileInvalid, match="Git LFS pointer"):
        checked_file(pointer)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ([], []),
        (["/m/a.gguf"], ["a.gguf"]),
        (["/m/a.gguf", "/m/b.gguf"], ["a.gguf", "b.gguf"]),
        (["/m/x/a.gguf", "/m/y/z/a.gguf"], ["x/a.gguf", "y/z/a.gguf"]),
        (["/m/x/../a.gguf", "/m/b/c.json"], ["a.gguf", "b/c.json"]),
    ],
)
def test_files_are_named_from_the_folder_they_share(paths: list[str], names: list[str]) -> None:
    assert list(request_names([Path(path) for path in paths])) == names


def relative(sources: Sources, folder: Path) -> list[list[str]]:
    groups = (sources.files, sources.adapters, sources.draft_files)
    return [[path.relative_to(folder).as_posix() for path in group] for group in groups]


def test_paths_are_relative_to_the_modelfile_and_models_are_names(tmp_path: Path) -> None:
    make(tmp_path, "weights/tiny.gguf", "lora.gguf", "draft.gguf", "mmproj.gguf")
    text = "FROM weights/tiny.gguf\nFROM ./mmproj.gguf\nADAPTER lora.gguf\nDRAFT ./draft.gguf\n"
    sources = sources_of(parse(text), tmp_path)
    assert relative(sources, tmp_path) == [
        ["weights/tiny.gguf", "mmproj.gguf"],
        ["lora.gguf"],
        ["draft.gguf"],
    ]
    assert sources.request == {}
    assert sources_of(parse("FROM tiny"), tmp_path).request == {"from": "tiny"}
    assert sources_of(parse("FROM hf.co/a/b:q4"), tmp_path).request == {"from": "hf.co/a/b:q4"}


def test_absolute_and_home_paths_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.gguf")
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in (f"FROM {tmp_path}/a.gguf", "FROM ~/a.gguf"):
        assert relative(sources_of(parse(text), Path("/")), tmp_path) == [["a.gguf"], [], []]


def test_a_folder_that_holds_no_model_does_not_hide_a_model_of_its_name(tmp_path: Path) -> None:
    make(tmp_path, "tiny/notes.txt", "full/model.safetensors")
    assert sources_of(parse("FROM tiny"), tmp_path).request == {"from": "tiny"}
    assert relative(sources_of(parse("FROM full"), tmp_path), tmp_path)[0] == [
        "full/model.safetensors"
    ]
    with pytest.raises(ModelfileInvalid, match="no model in"):
        sources_of(parse("FROM ./tiny"), tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("FROM ./nothere.gguf", "FROM ./nothere.gguf: no such file or folder in "),
        ("FROM nothere.gguf", "FROM nothere.gguf: no such file or folder in "),
        ("FROM /nowhere/model", "FROM /nowhere/model: no such file or folder in "),
        ("FROM tiny\nADAPTER lora", "ADAPTER lora: no such file or folder in "),
        ("FROM ~nobody-by-this-name/x", "~nobody-by-this-name/x: "),
    ],
)
def test_a_path_to_nothing_is_told_and_not_taken_for_a_model(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(ModelfileInvalid) as caught:
        sources_of(parse(text), tmp_path)
    assert str(caught.value).startswith(sentence)


def test_the_fields_of_a_modelfile_become_those_of_the_request(tmp_path: Path) -> None:
    text = (
        'FROM tiny\nSYSTEM """You are Mario.\nBe brief."""\nPARAMETER temperature 0.7\n'
        'PARAMETER num_ctx 4096\nPARAMETER stop "<|end|>"\nPARAMETER stop "</s>"\n'
        'TEMPLATE """{{ .System }} {{ .Prompt }}"""\nLICENSE "MIT"\n'
        "MESSAGE user hi\nMESSAGE assistant hello\n"
    )
    assert sources_of(parse(text), tmp_path).request == {
        "from": "tiny",
        "template": "{{ .System }} {{ .Prompt }}",
        "license": ["MIT"],
        "system": "You are Mario.\nBe brief.",
        "parameters": {"num_ctx": 4096, "stop": ["<|end|>", "</s>"], "temperature": 0.7},
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "hello"},
        ],
    }


def test_old_parameters_are_left_out_with_a_warning(tmp_path: Path) -> None:
    sources = sources_of(parse("FROM tiny\nPARAMETER mirostat 1\n"), tmp_path)
    assert sources.request == {"from": "tiny"}
    assert sources.warnings == ("warning: parameter mirostat is deprecated",)


@pytest.mark.parametrize(
    "data", ["FROM tïny".encode(), "\ufeffFROM tïny".encode(), "FROM tïny".encode("utf-16")]
)
def test_modelfiles_may_be_utf8_or_marked_utf16(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "Modelfile").write_bytes(data)
    assert read_modelfile(tmp_path / "Modelfile") == "FROM tïny"


def test_what_is_no_modelfile_is_told(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"GGUF\x03\x00\x00\x00\xff\xfe\xfd")
    (tmp_path / "large").write_bytes(bytes(17 << 20))
    for name, sentence in (
        ("model", "is no text; is it a model"),
        ("large", "is larger than 16 MiB"),
        ("missing", "cannot read"),
    ):
        with pytest.raises(ModelfileInvalid, match=sentence):
            read_modelfile(tmp_path / name)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with serving() as api:
        yield api


def test_uploads_tell_their_progress_and_skip_what_is_there(api: FakeApi, tmp_path: Path) -> None:
    content = os.urandom(2_500_000)
    (tmp_path / "a.gguf").write_bytes(content)
    make(tmp_path, "lora.gguf")
    lora = Digest.of(b"content of lora.gguf")
    api.blobs[str(lora)] = b"content of lora.gguf"
    seen: list[Report] = []
    sources = Sources({"system": "s"}, [tmp_path / "a.gguf"], [tmp_path / "lora.gguf"])
    with Client(api.url) as client:
        request = upload_all(client, sources, seen.append)
    assert request == {
        "system": "s",
        "files": {"a.gguf": str(Digest.of(content))},
        "adapters": {"lora.gguf": str(lora)},
    }
    assert api.blobs[str(Digest.of(content))] == content
    assert [report.completed for report in seen if report.status == "uploading a.gguf"] == [
        0,
        1 << 20,
        2 << 20,
        2_500_000,
    ]
    assert seen[-1] == Report("already there: lora.gguf")


def test_an_empty_file_is_sent_as_the_empty_blob(api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"")
    with Client(api.url) as client:
        upload_all(client, Sources(files=[tmp_path / "a.gguf"]), lambda report: None)
    assert api.blobs == {str(Digest.of(b"")): b""}


def test_a_file_that_shrinks_while_it_is_read_is_told(api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(bytes(3 << 20))

    def shrink(report: Report) -> None:
        if report.status.startswith("uploading"):
            os.truncate(path, 1 << 20)

    with (
        Client(api.url) as client,
        pytest.raises(OperationFailed, match=r"uploading a\.gguf: the file became shorter"),
    ):
        upload_all(client, Sources(files=[path]), shrink)
    assert api.blobs == {}


def test_a_file_that_goes_away_is_told(api: FakeApi, tmp_path: Path) -> None:
    with Client(api.url) as client, pytest.raises(OperationFailed, match="cannot read"):
        upload_all(client, Sources(files=[tmp_path / "gone.gguf"]), lambda report: None)
