from pathlib import Path

import pytest

from registry.adapters.store_marker import FILE, ensure_marker, read_marker


def test_a_folder_keeps_its_name(tmp_path: Path) -> None:
    assert read_marker(tmp_path) == ""
    name = ensure_marker(tmp_path)
    assert len(name) >= 16
    assert ensure_marker(tmp_path) == read_marker(tmp_path) == name
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert ensure_marker(tmp_path / "none") == ""


@pytest.mark.parametrize("text", ["", "short", "../" * 9, "x" * 100])
def test_other_texts_are_no_names(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert read_marker(tmp_path) == ""


def test_two_processes_agree(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("a-name-of-another-process\n")
    assert ensure_marker(tmp_path) == "a-name-of-another-process"
