"""A backup in a folder that only its owner can look into.

backup.json                     what is in it; written last, so a folder without it is no backup
database-<sha256>.jsonl.gz      all rows, secrets and password hashes among them
blobs.txt                       the blobs of the database, as `sha256sum -c` takes it
blobs/sha256-<hex>              their bytes, if wanted: of this backup and of those before it
"""

import gzip
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread

from registry.adapters.fs_clone import open_regular, share
from registry.adapters.fs_files import sync_folder
from registry.adapters.os_errors import os_errors
from registry.core.digest import Digest
from registry.core.dump import MAX_LINE, Summary
from registry.core.errors import DigestMismatch, OperationFailed

_SUMMARY = "backup.json"
_LIST = "blobs.txt"
_MAX_SUMMARY = 1 << 20
_CHUNK = 1 << 20
_LISTED = re.compile(rb"([0-9a-f]{64})  blobs/sha256-([0-9a-f]{64})\n")


class BackupFolder:
    """`BackupPlace` on a file system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs = folder / "blobs"

    def begin(self) -> None:
        """See `BackupPlace`."""
        with os_errors():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            strange = [path for path in self._folder.iterdir() if not _is_ours(path.name)]
            if strange:
                raise OperationFailed("the folder holds something else than backups; name another")
            self._blobs.mkdir(mode=0o700, exist_ok=True)

    def write_database(self, lines: Iterable[bytes]) -> tuple[str, str]:
        """See `BackupPlace`."""
        with os_errors():
            part = self._part()
            with _new(part) as file:
                with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=3, mtime=0) as packed:
                    packed.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            sha256 = _hash(part)
            name = f"database-{sha256[:12]}.jsonl.gz"
            part.replace(self._folder / name)
        return name, sha256

    def write_list(self, digests: Iterable[Digest]) -> None:
        """See `BackupPlace`."""
        lines = (f"{digest.hex}  blobs/{digest.file_name}\n".encode() for digest in digests)
        self._replace(_LIST, lines)

    def read_list(self) -> Iterator[Digest]:
        """See `BackupPlace`."""
        with os_errors(), (self._folder / _LIST).open("rb") as file:
            for line in file:
                match = _LISTED.fullmatch(line)
                if match:
                    yield Digest.sha256(match[1].decode())

    def finish(self, summary: Summary) -> None:
        """See `BackupPlace`."""
        self._replace(_SUMMARY, [summary.to_json()])
        with os_errors():
            for path in self._folder.glob("database-*.jsonl.gz"):
                if path.name != summary.database:
                    path.unlink()
            for path in self._folder.glob(".part-*"):
                path.unlink()

    def summary(self) -> Summary:
        """See `BackupPlace`."""
        with os_errors():
            try:
                with open_regular(self._folder / _SUMMARY) as file:
                    content = file.read(_MAX_SUMMARY)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise OperationFailed("there is no finished backup in that folder") from error
        return Summary.from_json(content or b"")

    def lines(self, summary: Summary) -> Iterator[bytes]:
        """See `BackupPlace`."""
        path = self._folder / summary.database
        with os_errors():
            if not path.is_file() or _hash(path) != summary.sha256:
                raise OperationFailed("the backup is damaged: its database is not what it was")
            try:
                with gzip.open(path, "rb") as file:
                    while line := file.readline(MAX_LINE):
                        yield line
            except (gzip.BadGzipFile, EOFError) as error:
                raise OperationFailed("the backup is damaged: its database is cut off") from error

    def blob(self, digest: Digest) -> int | None:
        """See `BackupPlace`."""
        try:
            return (self._blobs / digest.file_name).stat(follow_symlinks=False).st_size
        except OSError:
            return None

    def share(self, digest: Digest, path: str, *, link: bool) -> bool:
        """See `BackupPlace`."""
        part = self._part()
        with os_errors():
            if not share(Path(path), part, link=link):
                return False
            part.replace(self._blobs / digest.file_name)
            part.unlink(missing_ok=True)  # of two names of one file a rename leaves both
            return True

    async def put(self, digest: Digest, chunks: AsyncIterator[bytes]) -> None:
        """See `BackupPlace`."""
        part = self._part()
        hasher = hashlib.sha256()
        with os_errors():
            try:
                with _new(part) as file:
                    async for chunk in chunks:
                        await to_thread.run_sync(hasher.update, chunk)
                        await to_thread.run_sync(file.write, chunk)
                    await to_thread.run_sync(os.fsync, file.fileno())
                if hasher.hexdigest() != digest.hex:
                    raise DigestMismatch(str(digest), f"sha256:{hasher.hexdigest()}")
                part.replace(self._blobs / digest.file_name)
            finally:
                part.unlink(missing_ok=True)

    async def get(self, digest: Digest) -> AsyncIterator[bytes]:
        """See `BackupPlace`."""
        with os_errors(), open_regular(self._blobs / digest.file_name) as file:
            while chunk := await to_thread.run_sync(file.read, _CHUNK):
                yield chunk

    def _part(self) -> Path:
        return self._folder / f".part-{secrets.token_hex(8)}"

    def _replace(self, name: str, lines: Iterable[bytes]) -> None:
        with os_errors():
            part = self._part()
            with _new(part) as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._folder / name)
            sync_folder(self._blobs)
            sync_folder(self._folder)


def _is_ours(name: str) -> bool:
    return name in {_SUMMARY, _LIST, "blobs"} or name.startswith((".part-", "database-"))


def _new(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
