"""registry/core/convert/files.py."""

import pytest

from registry.core.convert.files import (
    Folder,
    adapter_folders,
    are_pickles,
    check_names,
    limit,
    needed,
    wanted,
)
from registry.core.errors import CheckpointInvalid


@pytest.mark.parametrize(
    "name",
    [
        "../config.json", "a/../b", "/etc/passwd", "a//b", "./a", "a\\b", "..\\a", "C:/a", "C:\\a",
        "a\0b", "a\nb", "", "x" * 256, "file:name",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(CheckpointInvalid, match="is not accepted"):
        check_names([name])


def test_ordinary_names_are_accepted_up_to_a_number() -> None:
    check_names(
        ["config.json", "1_Pooling/config.json", "model-00001-of-00002.safetensors", "ä.txt"]
    )
    with pytest.raises(CheckpointInvalid, match="more than 1000 files"):
        check_names(f"{number}" for number in range(1001))


def test_pickles_are_told_from_checkpoints_that_also_have_some() -> None:
    assert are_pickles(["config.json", "pytorch_model.bin"])
    assert are_pickles(["a.pth"])
    assert not are_pickles(["pytorch_model.bin", "model.safetensors"])
    assert not are_pickles(["config.json"])


def test_only_files_that_matter_are_read() -> None:
    names = [
        "config.json",
        "README.md",
        "2_Other/config.json",
        "1_Pooling/config.json",
        "m.safetensors",
    ]
    assert set(wanted(names)) == {"config.json", "1_Pooling/config.json"}
    assert needed(names) == ["1_Pooling/config.json", "config.json", "m.safetensors"]
    assert limit("config.json") == wanted(names)["config.json"]
    assert limit("1_Pooling/config.json") == 1 << 20


def test_a_folder_gives_its_files_by_kind() -> None:
    folder = Folder(
        {"config.json": b'{"a": 1}', "vocab.txt": b"a\n", "chat_template.jinja": b"\xff"}
    )
    assert "config.json" in folder
    assert folder.json("config.json") == {"a": 1}
    assert folder.json("config.json") is folder.needed_json("config.json")
    assert folder.json("absent.json") is None
    assert folder.text("vocab.txt") == "a\n"
    assert folder.text("absent.txt") is None
    with pytest.raises(CheckpointInvalid, match=r"chat_template\.jinja: no UTF-8"):
        folder.text("chat_template.jinja")
    with pytest.raises(CheckpointInvalid, match=r"open absent\.json: no such file or directory"):
        folder.needed_json("absent.json")


def test_adapters_are_found_in_their_folders() -> None:
    names = [
        "a/adapter_config.json",
        "a/w.safetensors",
        "a/b/x",
        "c/d/adapter_config.json",
        "x.json",
    ]
    assert adapter_folders(names) == [
        {"adapter_config.json": "a/adapter_config.json", "w.safetensors": "a/w.safetensors"},
        {"adapter_config.json": "c/d/adapter_config.json"},
    ]
    assert adapter_folders(["adapter_config.json", "w", "sub/w"]) == [
        {"adapter_config.json": "adapter_config.json", "w": "w"}
    ]
    assert adapter_folders(["my_adapter_config.json"]) == []
