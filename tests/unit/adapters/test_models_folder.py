"""Tags as files below `manifests/`: written, removed, made durable."""

from pathlib import Path

import pytest

from registry.adapters import models_folder
from registry.adapters.fs_small import write_whole
from registry.adapters.models_folder import FolderOnDisk
from registry.core.errors import OperationFailed
from registry.core.names import ModelName
from registry.ports.catalog import FolderChange
from tests.support.syncs import Syncs


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "incoming").mkdir()
    return tmp_path


def change(name: str, body: bytes | None) -> FolderChange:
    return FolderChange(1, ModelName.parse(name), body)


def files(data: Path) -> dict[str, bytes]:
    root = data / "manifests"
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_changes_are_applied_in_order_and_not_synced(data: Path, syncs: Syncs) -> None:
    folder = FolderOnDisk(data)
    changes = [change("a", b"1"), change("t/b:v1", b"2"), change("a", b"3"), change("t/b:v2", b"4")]
    folder.apply(changes)
    assert files(data) == {
        "registry.ollama.ai/library/a/latest": b"3",
        "registry.ollama.ai/t/b/v1": b"2",
        "registry.ollama.ai/t/b/v2": b"4",
    }
    assert list((data / "incoming").iterdir()) == []
    assert syncs.paths == syncs.whole == []


def test_the_last_tag_takes_its_folders_along(data: Path) -> None:
    folder = FolderOnDisk(data)
    folder.apply([change("t/b:v1", b"1"), change("t/b:v2", b"2"), change("t/b:v1", None)])
    assert files(data) == {"registry.ollama.ai/t/b/v2": b"2"}
    folder.apply([change("t/b:v2", None), change("t/b:v2", None)])
    assert list((data / "manifests").iterdir()) == []


def test_a_folder_that_another_process_removes_meanwhile_is_made_again(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = FolderOnDisk(data), FolderOnDisk(data)
    here.apply([change("t/b:v1", b"1")])
    due = [change("t/b:v1", None)]

    def late(path: Path, body: bytes, part: Path) -> None:
        while due:
            there.apply([due.pop()])
        write_whole(path, body, part)

    monkeypatch.setattr(models_folder, "write_whole", late)
    here.apply([change("t/b:v2", b"2")])
    assert files(data) == {"registry.ollama.ai/t/b/v2": b"2"}
    assert list((data / "incoming").iterdir()) == []


def test_names_that_ollama_cannot_have_are_left_out(data: Path) -> None:
    name = ModelName("host", "..", "model", "tag")
    folder = FolderOnDisk(data)
    folder.apply([FolderChange(1, name, b"1")])
    folder.sync([FolderChange(1, name, b"1")])
    assert not (data / "manifests").exists()


def test_a_sync_is_of_the_whole_file_system(data: Path, syncs: Syncs) -> None:
    folder = FolderOnDisk(data)
    folder.apply([change("a", b"1")])
    folder.sync([change("a", b"1")])
    assert [path.stat().st_dev for path in syncs.whole] == [data.stat().st_dev]
    assert syncs.paths == []


def test_else_it_is_of_the_files_and_each_folder_above_once(data: Path, syncs: Syncs) -> None:
    syncs.offers_whole = False
    folder = FolderOnDisk(data)
    changes = [change("a", b"1"), change("b", b"2")]
    folder.apply(changes)
    folder.sync(changes)
    library = data / "manifests" / "registry.ollama.ai" / "library"
    assert syncs.paths[:2] == [library / "a" / "latest", library / "b" / "latest"]
    above = [library / "a", library / "b", library, library.parent, data / "manifests", data]
    assert sorted(syncs.paths[2:]) == sorted(above)


def test_the_sync_of_a_removal_is_of_the_folders_that_are_left(data: Path, syncs: Syncs) -> None:
    syncs.offers_whole = False
    folder = FolderOnDisk(data)
    folder.apply([change("a", b"1"), change("b", b"2"), change("a", None)])
    folder.sync([change("a", None)])
    assert data / "manifests" / "registry.ollama.ai" / "library" in syncs.paths


def test_a_sync_that_fails_is_told_without_a_path(data: Path, syncs: Syncs) -> None:
    folder = FolderOnDisk(data)
    folder.apply([change("a", b"1")])
    syncs.fails_with = 5
    with pytest.raises(OperationFailed) as caught:
        folder.sync([change("a", b"1")])
    assert str(data) not in str(caught.value)
