"""The folder store keeps the contract, and what only it promises."""

import asyncio
import errno
import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from registry.adapters.blobs_fs import FileBlobStore
from registry.core.digest import Digest
from registry.core.errors import OperationFailed, StorageFull
from registry.ports.blobs import BlobStore
from tests.contract.blobs import MIB, BlobStoreContract, Pieces, content, keep, names, some_bytes

pytestmark = pytest.mark.anyio


class TestFileBlobStore(BlobStoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[BlobStore]:
        store = FileBlobStore(tmp_path)
        yield store
        store.close()
        assert os.listdir(tmp_path / "incoming") == []


class TestFileBlobStoreWithFewBuffers(BlobStoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[BlobStore]:
        store = FileBlobStore(tmp_path, buffers=2, buffer_bytes=65_536)
        yield store
        store.close()
        assert os.listdir(tmp_path / "incoming") == []


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileBlobStore]:
    store = FileBlobStore(tmp_path)
    yield store
    store.close()


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 12 MiB: the system says EFBIG, as a quota would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12 * MIB, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


async def test_a_blob_is_a_file_of_ollamas_layout(store: FileBlobStore, tmp_path: Path) -> None:
    digest = Digest.of(b"hello")
    key = await keep(store, b"hello")
    assert key == digest.file_name
    assert store.path(key) == str(tmp_path / "blobs" / digest.file_name)
    assert (tmp_path / "blobs" / digest.file_name).read_bytes() == b"hello"
    assert os.listdir(tmp_path / "blobs") == [digest.file_name]
    assert os.listdir(tmp_path / "incoming") == []


async def test_publish_replaces_an_orphan_of_that_name(
    store: FileBlobStore, tmp_path: Path
) -> None:
    target = tmp_path / "blobs" / Digest.of(b"hello").file_name
    target.write_bytes(b"torn")
    await keep(store, b"hello")
    assert target.read_bytes() == b"hello"


async def test_confirm_replaces_a_file_that_is_not_the_published_one(
    store: FileBlobStore, tmp_path: Path
) -> None:
    incoming = await store.create()
    await incoming.write(b"hello")
    key = await incoming.publish(await incoming.seal())
    target = tmp_path / "blobs" / key
    target.unlink()
    target.write_bytes(b"other")
    incoming.confirm()
    await incoming.discard()
    assert target.read_bytes() == b"hello"
    assert os.listdir(tmp_path / "incoming") == []


async def test_foreign_files_are_neither_blobs_nor_swept(
    store: FileBlobStore, tmp_path: Path
) -> None:
    for folder in ("blobs", "incoming"):
        (tmp_path / folder / "README").write_text("mine")
    (tmp_path / "blobs" / ("sha256-" + "a" * 64 + "-partial")).write_text("theirs")
    assert await names(store) == {}
    assert await store.sweep(frozenset(), 1 << 62) == 0
    assert (tmp_path / "incoming" / "README").exists()


async def test_trash_of_a_killed_process_is_swept_whatever_its_age(
    store: FileBlobStore, tmp_path: Path
) -> None:
    (tmp_path / "incoming" / ("trash-" + "0" * 32)).write_bytes(b"12345")
    assert await store.sweep(frozenset(), 1) == 5
    assert os.listdir(tmp_path / "incoming") == []


async def test_an_upload_that_is_going_on_is_not_swept(store: FileBlobStore) -> None:
    incoming = await store.create()
    await incoming.write(some_bytes(3 * MIB))
    await incoming.flush()
    assert await store.sweep(frozenset(), 1 << 62) == 0
    await incoming.discard()


async def test_another_process_goes_on_with_an_upload(store: FileBlobStore, tmp_path: Path) -> None:
    incoming = await store.create()
    await incoming.write(some_bytes(2 * MIB))
    await incoming.flush()
    await incoming.close()
    other = FileBlobStore(tmp_path)
    again = await other.resume(incoming.key, 2 * MIB)
    await again.write(b"more")
    assert await again.seal() == Digest.of(some_bytes(2 * MIB) + b"more")
    await again.discard()
    other.close()


async def test_a_hint_beyond_the_disk_is_refused_at_once(
    store: FileBlobStore, tmp_path: Path
) -> None:
    with pytest.raises(StorageFull):
        await store.create(1 << 60)
    assert os.listdir(tmp_path / "incoming") == []


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("hint", [None, 30 * MIB])
async def test_a_full_disk_keeps_nothing(
    store: FileBlobStore, tmp_path: Path, hint: int | None
) -> None:
    with pytest.raises(StorageFull):
        incoming = await store.create(hint)
        try:
            await incoming.receive(Pieces(*[bytes(MIB)] * 30))
            await incoming.seal()
        finally:
            await incoming.discard()
    assert os.listdir(tmp_path / "incoming") == []
    assert os.listdir(tmp_path / "blobs") == []


@pytest.mark.usefixtures("full_disk")
async def test_an_upload_goes_on_when_there_is_room_again(store: FileBlobStore) -> None:
    incoming = await store.create()
    await incoming.receive(Pieces(b"hello"))
    with pytest.raises(StorageFull):
        await incoming.receive(Pieces(*[bytes(MIB)] * 60))
    assert incoming.size == 5
    await incoming.receive(Pieces(b" world"))
    assert await incoming.seal() == Digest.of(b"hello world")
    await incoming.discard()


async def test_a_folder_without_direct_io_is_written_through_the_cache(
    monkeypatch: pytest.MonkeyPatch, store: FileBlobStore
) -> None:
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no")
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    data = some_bytes(20 * MIB + 3)
    assert await content(store, await keep(store, data)) == data


async def test_a_folder_without_hard_links_is_published_into_by_renaming(
    monkeypatch: pytest.MonkeyPatch, store: FileBlobStore, tmp_path: Path
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    key = await keep(store, b"hello")
    assert await content(store, key) == b"hello"
    assert os.listdir(tmp_path / "incoming") == []


async def test_without_hard_links_a_blob_that_vanished_is_an_error(
    monkeypatch: pytest.MonkeyPatch, store: FileBlobStore
) -> None:
    def refuse(self: Path, target: Path) -> None:
        if not target.exists():
            raise FileNotFoundError(errno.ENOENT, "gone")
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    incoming = await store.create()
    await incoming.write(b"hello")
    key = await incoming.publish(await incoming.seal())
    store.remove(key)
    with pytest.raises(OperationFailed):
        incoming.confirm()
    await incoming.discard()


async def test_a_store_that_cannot_be_written_says_so_without_its_path(
    store: FileBlobStore, tmp_path: Path
) -> None:
    (tmp_path / "incoming").rmdir()
    with pytest.raises(OperationFailed) as raised:
        await store.check()
    assert str(tmp_path) not in str(raised.value)
    (tmp_path / "incoming").mkdir()


async def test_no_descriptor_is_left_open(store: FileBlobStore) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for size in (0, 10, 9 * MIB):
        key = await keep(store, some_bytes(size))
        async with await store.open(key) as blob:
            await blob.read(0, size)
        dropped = await store.create(size)
        task = asyncio.create_task(dropped.receive(Pieces(some_bytes(size))))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await dropped.discard()
    assert len(os.listdir("/proc/self/fd")) == before
