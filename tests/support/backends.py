"""What tests run on: SQLite and a folder, or Postgres and an object store.

`REGISTRY_TEST_ON=postgres,s3` (either or both) chooses the others, for a whole run. All that a test
has goes by its data folder: who opens the same folder again, by whichever way, finds the same.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.engine import URL

from registry.adapters import migrate
from registry.adapters.blobs_fs import FileBlobStore
from registry.adapters.blobs_s3 import S3BlobStore
from registry.adapters.catalog_sql import open_catalog, resolve
from registry.adapters.models_folder import FolderOnDisk
from registry.adapters.s3_client import S3Bucket
from registry.adapters.s3_folder import FolderInS3
from registry.core.digest import Digest
from registry.core.storage_url import S3Url
from registry.ports.catalog import Catalog
from registry.ports.folder import ModelsFolder
from registry.settings import Settings
from tests.support import postgres, s3
from tests.support.postgres import PostgresServer
from tests.support.s3 import S3Server

CHOSEN = frozenset(filter(None, os.environ.pop("REGISTRY_TEST_ON", "").split(",")))
"""Not left in the environment: there it would be a setting that no command knows."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The bytes of a blob where they are kept, behind the back of the catalog."""

    place: Path | tuple[S3Bucket, str]

    def read(self) -> bytes:
        """The bytes, whatever they are by now."""
        if isinstance(self.place, Path):
            return self.place.read_bytes()
        bucket, key = self.place
        content: bytes = bucket.call("get_object", Key=key)["Body"].read()
        return content

    def write(self, content: bytes) -> None:
        """Others come in their place."""
        if isinstance(self.place, Path):
            self.place.unlink(missing_ok=True)  # its mode may forbid to write
            self.place.write_bytes(content)
        else:
            bucket, key = self.place
            bucket.call("put_object", Key=key, Body=content)

    def remove(self) -> None:
        """They are gone."""
        if isinstance(self.place, Path):
            self.place.unlink()
        else:
            bucket, key = self.place
            bucket.call("delete_object", Key=key)


class Backends:
    """Databases and buckets by the folder that a test has for its files."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._postgres: PostgresServer | None = None
        self._s3: S3Server | None = None
        self._databases: dict[Path, str] = {}
        self._free: list[str] = []
        self._newest = ""
        self._buckets: dict[Path, str] = {}

    def start(self) -> None:
        """Start the servers that were chosen; fails where one is not installed."""
        if "postgres" in CHOSEN:
            tools = postgres.binaries()
            assert tools is not None, "Postgres is not installed here"
            self._postgres = self._stack.enter_context(postgres.running(tools))
        if "s3" in CHOSEN:
            program = s3.binary()
            assert program is not None, "versitygw is not installed here"
            self._s3 = self._stack.enter_context(s3.running(program))

    def stop(self) -> None:
        """Stop them."""
        self._stack.close()

    def catalog(self, folder: Path) -> Catalog:
        """The catalog of a folder, made if it is not there."""
        url = self._url(folder)
        migrate.upgrade(resolve(url, folder / "registry.db"))
        return open_catalog(url, folder / "registry.db")

    def database(self, folder: Path) -> URL:
        """Where the database of a folder is."""
        return resolve(self._databases.get(folder.resolve(), ""), folder / "registry.db")

    def _url(self, folder: Path) -> str:
        """The URL of a folder's database; empty where it is the file in the folder."""
        if self._postgres is None:
            return ""
        folder = folder.resolve()
        if folder not in self._databases:
            self._databases[folder] = self._empty(self._postgres)
        return self._databases[folder]

    def environ(self, folder: Path) -> dict[str, str]:
        """What `registry` needs in its environment to find what belongs to a folder."""
        found = {"REGISTRY_DATABASE_URL": self._url(folder)} if self._postgres else {}
        if self._s3 is not None:
            found |= self._s3.environ(self._bucket(self._s3, folder))
        return found

    def settings(self, folder: Path, **given: Any) -> Settings:
        """The settings of a library in a folder."""
        return Settings.load(self.environ(folder), **{"data": folder, **given})

    def _empty(self, server: PostgresServer) -> str:
        """An empty database: to make one takes ten times as long as to empty one."""
        return self._free.pop() if self._free else self._stack.enter_context(server.database())

    def lose_database(self, folder: Path) -> None:
        """Take the rows that belong to a folder; bytes and tags stay where they are."""
        if self._postgres is None:
            for file in folder.glob("registry.db*"):
                file.unlink()
        else:
            self._postgres.clear(self._url(folder))

    def release(self, below: Path) -> None:
        """A test has ended: others may have the databases of its folders, nobody its buckets."""
        for folder in [folder for folder in self._databases if folder.is_relative_to(below)]:
            url = self._databases.pop(folder)
            assert self._postgres is not None
            with contextlib.suppress(psycopg.errors.UndefinedTable):  # of another schema: not again
                if self._postgres.clear(url) == self._schema(url):
                    self._free.append(url)
        for folder in [folder for folder in self._buckets if folder.is_relative_to(below)]:
            assert self._s3 is not None
            self._s3.drop(self._buckets.pop(folder))

    def bucket(self, folder: Path) -> S3Bucket | None:
        """The bucket of a folder; None if blobs are files."""
        return None if self._s3 is None else self._s3.open(self._bucket(self._s3, folder))

    def _bucket(self, server: S3Server, folder: Path) -> str:
        folder = folder.resolve()
        if folder not in self._buckets:
            self._buckets[folder] = server.bucket()
        return self._buckets[folder]

    def place(self, folder: Path) -> S3Url:
        """Where its bucket is."""
        assert self._s3 is not None
        return self._s3.place(self._bucket(self._s3, folder))

    def store(self, folder: Path) -> FileBlobStore | S3BlobStore:
        """The blob store of a folder."""
        bucket = self.bucket(folder)
        return FileBlobStore(folder) if bucket is None else S3BlobStore(bucket)

    def _schema(self, url: str) -> str:
        """That of today."""
        if not self._newest:
            self._newest = migrate.standing(resolve(url, Path())).known[-1]
        return self._newest

    def stored(self, folder: Path, digest: Digest) -> Stored:
        """The bytes of a blob of a folder."""
        bucket = self.bucket(folder)
        if bucket is None:
            return Stored(folder / "blobs" / digest.file_name)
        (key,) = (key for key, found in _contents(bucket) if found == digest)
        return Stored((bucket, key))

    def kept(self, folder: Path) -> set[str]:
        """All bytes that the store of a folder has, by its own names."""
        bucket = self.bucket(folder)
        if bucket is None:
            return {path.name for path in (folder / "blobs").iterdir()} | self.incoming(folder)
        blobs = bucket.listed(bucket.path("blobs", ""))
        return {item["Key"] for item in blobs} | self.incoming(folder)

    def incoming(self, folder: Path) -> set[str]:
        """Those of them that are on their way in, or were left over."""
        bucket = self.bucket(folder)
        if bucket is None:
            return {path.name for path in (folder / "incoming").iterdir()}
        return set(leftovers(bucket))

    def tags(self, store: FileBlobStore | S3BlobStore, folder: Path) -> ModelsFolder:
        """Where the tags of a folder are published."""
        if isinstance(store, FileBlobStore):
            return FolderOnDisk(folder)
        return FolderInS3(store.bucket, store.run_all)


def leftovers(bucket: S3Bucket) -> list[str]:
    """What is on its way into a bucket; waits a moment for what is being deleted."""
    for _ in range(40):
        found = [item["Key"] for item in bucket.listed(bucket.path("incoming", ""))]
        page = bucket.call("list_multipart_uploads", Prefix=bucket.prefix)
        found += [item["Key"] for item in page.get("Uploads", [])]
        if not found:
            break
        time.sleep(0.05)
    return found


def digests(bucket: S3Bucket) -> set[str]:
    """Of all blobs in a bucket, by their bytes."""
    return {str(digest) for _, digest in _contents(bucket)}


def _contents(bucket: S3Bucket) -> Iterator[tuple[str, Digest]]:
    for item in bucket.listed(bucket.path("blobs", "")):
        yield item["Key"], Digest.of(bucket.call("get_object", Key=item["Key"])["Body"].read())


BACKENDS = Backends()
