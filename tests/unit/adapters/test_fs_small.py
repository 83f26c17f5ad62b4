"""Small blobs in a folder: written whole, synced later and together."""

import os
from pathlib import Path

import pytest

from registry.adapters import fs_files
from registry.adapters.blobs_fs import FileBlobStore
from registry.core.digest import Digest
from registry.core.errors import OperationFailed, StorageFull
from tests.support.syncs import Syncs

TEXTS = [f"text {number}".encode() * number for number in range(70)]
CONTENTS = {Digest.of(text).file_name: text for text in TEXTS}


def blobs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "blobs").iterdir()}


def test_putting_writes_all_and_syncs_none(tmp_path: Path, syncs: Syncs) -> None:
    store = FileBlobStore(tmp_path)
    store.put(CONTENTS)
    assert blobs(tmp_path) == CONTENTS
    assert os.listdir(tmp_path / "incoming") == []
    assert syncs.paths == syncs.whole == []
    store.close()


def test_a_sync_is_of_the_whole_file_system(tmp_path: Path, syncs: Syncs) -> None:
    store = FileBlobStore(tmp_path)
    store.put(CONTENTS)
    store.sync(list(CONTENTS))
    assert syncs.whole == [tmp_path / "blobs"]
    assert syncs.paths == []
    store.close()


def test_else_it_is_of_every_file_and_then_of_the_folder(tmp_path: Path, syncs: Syncs) -> None:
    syncs.offers_whole = False
    store = FileBlobStore(tmp_path)
    store.put(CONTENTS)
    keys = list(CONTENTS)
    store.remove(keys.pop())
    store.sync([*keys, "no-key"])
    assert syncs.paths == [*(tmp_path / "blobs" / key for key in keys), tmp_path / "blobs"]
    store.close()


@pytest.mark.parametrize("offers_whole", [True, False])
def test_a_sync_that_fails_is_told(tmp_path: Path, syncs: Syncs, offers_whole: bool) -> None:
    syncs.offers_whole, syncs.fails_with = offers_whole, 5
    store = FileBlobStore(tmp_path)
    store.put(CONTENTS)
    with pytest.raises(OperationFailed):
        store.sync(list(CONTENTS))
    store.close()


def test_a_system_without_the_call_is_synced_by_file(
    tmp_path: Path, syncs: Syncs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fs_files, "SYNC_FILE_SYSTEM", None)
    store = FileBlobStore(tmp_path)
    store.sync([])
    assert syncs.paths == [tmp_path / "blobs"]
    store.close()


def test_a_key_that_is_none_writes_nothing(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path)
    store.put({"../evil": b"x"})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    store.close()


@pytest.mark.parametrize(("code", "error"), [(28, StorageFull), (5, OperationFailed)])
def test_a_disk_that_refuses_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]
) -> None:
    def refuse(descriptor: int, data: memoryview) -> int:
        raise OSError(code, os.strerror(code), "/a/path")

    store = FileBlobStore(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(error) as caught:
        patch.setattr(os, "write", refuse)
        store.put({Digest.of(b"text").file_name: b"text"})
    assert "/a/path" not in str(caught.value)
    assert blobs(tmp_path) == {}
    assert os.listdir(tmp_path / "incoming") == []
    store.close()
