"""Small contents published together in a folder."""

import asyncio
import os
from pathlib import Path

import pytest

from registry.adapters.blobs_fs import FileBlobStore
from registry.core.digest import Digest
from registry.core.errors import StorageFull

pytestmark = pytest.mark.anyio

TEXTS = (b"a system text", b"", b'{"temperature":1}')
CONTENTS = {Digest.of(text): text for text in TEXTS}


def blobs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "blobs").iterdir()}


def expected() -> dict[str, bytes]:
    return {digest.file_name: content for digest, content in CONTENTS.items()}


async def test_all_are_blobs_and_nothing_else_is_left(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path)
    small = store.small(CONTENTS)
    assert blobs(tmp_path) == {}
    await small.publish()
    assert {store.path(key) for key in small.keys.values()} == {
        str(tmp_path / "blobs" / name) for name in expected()
    }
    assert blobs(tmp_path) == expected()
    assert os.listdir(tmp_path / "incoming") == []
    store.close()


async def test_what_was_removed_or_replaced_is_put_back(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path)
    small = store.small(CONTENTS)
    await small.publish()
    removed, replaced, kept = (tmp_path / "blobs" / key for key in small.keys.values())
    before = kept.stat().st_ino
    store.remove(removed.name)
    other = tmp_path / "other"
    other.write_bytes(b"other bytes")
    other.replace(replaced)
    small.confirm()
    assert blobs(tmp_path) == expected()
    assert kept.stat().st_ino == before
    store.close()


async def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    store = FileBlobStore(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(StorageFull):
        patch.setattr(os, "fdatasync", no_space)
        await store.small(CONTENTS).publish()
    assert blobs(tmp_path) == {}
    assert os.listdir(tmp_path / "incoming") == []
    store.close()


async def test_a_cancelled_caller_goes_on_when_it_has_come_to_an_end(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path)
    publishing = asyncio.create_task(store.small(CONTENTS).publish())
    await asyncio.sleep(0)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    assert blobs(tmp_path) == expected()
    assert os.listdir(tmp_path / "incoming") == []
    store.close()
