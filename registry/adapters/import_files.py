"""Models in files that others made: an Ollama models folder, an OCI image layout.

`Source` of `ports/carriage.py`. Only plain files are opened, no link is followed, and no name of
theirs becomes a path but by way of `ModelName` and `Digest`. Nothing here checks what bytes are:
whoever takes them hashes them.
"""

import errno
import io
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from anyio import to_thread

from registry.adapters.fs_clone import open_regular, share
from registry.adapters.models_folder import FolderOnDisk
from registry.adapters.tar_file import index_of
from registry.core import oci_layout
from registry.core.digest import Digest
from registry.core.errors import BlobUnknown, OperationFailed, RegistryError, TooLarge
from registry.core.names import ModelName
from registry.core.oci_layout import Entry, blob_path, parse_index
from registry.ports.carriage import Loan, Offer

_CHUNK = 1 << 20
_MAX_MANIFEST = 4 << 20


class Lender:
    """Shares files with a store's folder for incoming bytes, on one file system."""

    def __init__(self, arrivals: Path, *, link: bool) -> None:
        self._arrivals = arrivals
        self._link = link

    def lend(self, path: Path) -> Loan | None:
        """A clone of the file, or a second name of it."""
        key = secrets.token_hex(16)
        target = self._arrivals / key
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
        if not share(path, target, link=self._link):
            return None
        if not os.access(target, os.R_OK | os.W_OK):  # somebody else's: it can only be copied
            target.unlink()
            return None
        with target.open("rb") as made:
            os.fsync(made.fileno())
        return Loan(key, size)


class OllamaFolder:
    """A models folder: `manifests/<host>/<namespace>/<model>/<tag>` and `blobs/sha256-<hex>`."""

    def __init__(self, folder: Path, lender: Lender | None = None) -> None:
        self._folder = folder
        self._tags = FolderOnDisk(folder)
        self._lender = lender
        self._names: dict[str, ModelName] = {}

    async def labels(self) -> list[str]:
        """See `Source`."""
        self._names = {name.short: name for name in await self._tags.names()}
        return sorted(self._names)

    async def offer(self, label: str) -> Offer:
        """See `Source`."""
        name = self._names[label]
        file = await self._tags.read(name)
        if file is None:
            raise OperationFailed("its manifest is gone, or too large")
        return Offer(label, name, file.body, None, file.modified_at)

    async def manifest(self, digest: Digest) -> bytes:
        """See `Source`. Models refer to no further manifests."""
        raise BlobUnknown(str(digest))

    async def lend(self, digest: Digest) -> Loan | None:
        """See `Source`."""
        lender = self._lender
        if lender is None:
            return None
        with _reading(str(digest), BlobUnknown(str(digest))):
            return await to_thread.run_sync(lender.lend, self._path(digest))

    async def chunks(self, digest: Digest) -> AsyncIterator[bytes]:
        """See `Source`."""
        with (
            _reading(str(digest), BlobUnknown(str(digest))),
            open_regular(self._path(digest)) as file,
        ):
            while chunk := await to_thread.run_sync(file.read, _CHUNK):
                yield chunk

    def close(self) -> None:
        """See `Source`. Nothing is kept open."""

    def _path(self, digest: Digest) -> Path:
        return self._folder / "blobs" / digest.file_name


class OciLayout:
    """An image layout, in a folder or in one tar archive."""

    def __init__(self, path: Path, lender: Lender | None = None) -> None:
        """Look into it.

        Raises:
            OperationFailed: it cannot be read, or is none.
        """
        self._path = path
        self._lender = lender
        self._entries: dict[str, Entry] = {}
        self._archive: io.FileIO | None = None
        self._index: dict[str, tuple[int, int]] = {}
        with _reading("the file", OperationFailed("there is no such file or folder")):
            if not path.is_dir():
                self._archive = open_regular(path)
                try:
                    self._index = index_of(self._archive)
                except OperationFailed:
                    self._archive.close()
                    raise

    async def labels(self) -> list[str]:
        """See `Source`. A manifest without a label is called by its digest."""
        body = self._whole(oci_layout.INDEX, oci_layout.MAX_INDEX)
        if body is None:
            raise OperationFailed("there is neither a models folder nor an OCI image layout")
        self._entries = {entry.label or str(entry.digest): entry for entry in parse_index(body)}
        return list(self._entries)

    async def offer(self, label: str) -> Offer:
        """See `Source`."""
        entry = self._entries[label]
        body = await self.manifest(entry.digest)
        if Digest.of(body, entry.digest.algorithm) != entry.digest:
            raise OperationFailed(f"its manifest is not {entry.digest}")
        # Without `entry.media_type`: Docker's manifests may be called OCI's there
        return Offer(label, entry.name, body)

    async def manifest(self, digest: Digest) -> bytes:
        """See `Source`."""
        body = self._whole(blob_path(digest), _MAX_MANIFEST)
        if body is None:
            raise BlobUnknown(str(digest))
        return body

    async def lend(self, digest: Digest) -> Loan | None:
        """See `Source`."""
        lender = self._lender
        if lender is None or self._archive is not None or digest.algorithm != "sha256":
            return None
        with _reading(str(digest), BlobUnknown(str(digest))):
            return await to_thread.run_sync(lender.lend, self._path / blob_path(digest))

    async def chunks(self, digest: Digest) -> AsyncIterator[bytes]:
        """See `Source`."""
        with (
            _reading(str(digest), BlobUnknown(str(digest))),
            self._open(blob_path(digest)) as (read, size),
        ):
            for begin in range(0, size, _CHUNK):
                yield await to_thread.run_sync(read, begin, min(_CHUNK, size - begin))

    def close(self) -> None:
        """See `Source`."""
        if self._archive is not None:
            self._archive.close()

    def _whole(self, name: str, limit: int) -> bytes | None:
        try:
            with _reading(name, BlobUnknown(name)), self._open(name) as (read, size):
                if size > limit:
                    raise TooLarge(f"{name} is larger than {limit} bytes")
                return read(0, size)
        except BlobUnknown:
            return None

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[Callable[[int, int], bytes], int]]:
        """A function that reads at an offset, and the size."""
        if self._archive is not None:
            if name not in self._index:
                raise FileNotFoundError(name)
            start, size = self._index[name]
            descriptor = self._archive.fileno()
            yield lambda offset, count: os.pread(descriptor, count, start + offset), size
            return
        with open_regular(self._path / name) as file:
            size = os.fstat(file.fileno()).st_size
            yield lambda offset, count: os.pread(file.fileno(), count, offset), size


@contextmanager
def _reading(what: str, missing: RegistryError) -> Iterator[None]:
    """Errors of the system while something is read, in our words and without a path."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing from error
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror or "it is broken"
        raise OperationFailed(f"{what} cannot be read: {reason}") from error
