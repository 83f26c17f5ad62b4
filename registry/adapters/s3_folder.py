"""The tags of an object store, `manifests/<host>/<namespace>/<model>/<tag>`, and `records/`.

Each is an object with the manifest's exact bytes, as the file of a models folder: what a lost
catalog is rebuilt from. Nobody but us writes there.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import anyio.to_thread

from registry.adapters.s3_client import Gone, S3Bucket
from registry.core.names import ModelName
from registry.core.records import RecordName
from registry.ports.catalog import FolderChange
from registry.ports.folder import RecordFile, TagFile

_PARTS = 4  # host, namespace, model, tag
_RECORD_PARTS = 2  # repository, tag or manifest
_MAX_BYTES = 4 << 20
_MAX_RECORD = 8 << 20  # a manifest, and what it names by sha512


class FolderInS3:
    """`ModelsFolder` below a prefix of a bucket."""

    def __init__(self, bucket: S3Bucket, run_all: Callable[[Iterable[Callable[[], Any]]], None]):
        self._bucket = bucket
        self._root = bucket.path("manifests", "")
        self._records = bucket.path("records", "")
        self._run_all = run_all

    def apply(self, changes: Sequence[FolderChange]) -> None:
        """See `ModelsFolder.apply`: each name is changed once, so order is no matter."""
        self._run_all([partial(self._apply, item) for item in changes if _is_kept(item.name)])

    def _apply(self, change: FolderChange) -> None:
        key = self._key(change.name)
        if change.body is None:
            self._bucket.delete(key)
        else:
            self._bucket.call("put_object", Key=key, Body=change.body)

    def sync(self, changes: Sequence[FolderChange]) -> None:
        """Nothing to do: the store answers when it has the bytes for good."""

    async def names(self) -> list[ModelName]:
        """See `ModelsFolder`."""
        return await anyio.to_thread.run_sync(self._names)

    async def read(self, name: ModelName) -> TagFile | None:
        """See `ModelsFolder`."""
        return await anyio.to_thread.run_sync(self._read, name)

    async def records(self) -> list[str]:
        """See `ModelsFolder`."""
        return await anyio.to_thread.run_sync(self._places)

    async def read_record(self, place: str) -> RecordFile | None:
        """See `ModelsFolder`."""
        return await anyio.to_thread.run_sync(self._read_record, place)

    def holds(self, file: TagFile | RecordFile) -> bool:
        """See `ModelsFolder`. Asks the store."""
        found: TagFile | RecordFile | None
        if isinstance(file, RecordFile):
            found = self._read_record(file.place)
        else:
            found = self._read(file.name)
        return found is not None and found.body == file.body

    def _names(self) -> list[ModelName]:
        keys = (item["Key"].removeprefix(self._root) for item in self._bucket.listed(self._root))
        names = (ModelName(*parts) for key in keys if len(parts := key.split("/")) == _PARTS)
        return [name for name in names if name.is_valid]

    def _places(self) -> list[str]:
        listed = self._bucket.listed(self._records)
        places = (item["Key"].removeprefix(self._records) for item in listed)
        return [place for place in places if len(place.split("/")) == _RECORD_PARTS]

    def _read(self, name: ModelName) -> TagFile | None:
        found = self._content(self._key(name), _MAX_BYTES)
        return found and TagFile(name, *found)

    def _read_record(self, place: str) -> RecordFile | None:
        found = self._content(self._records + place, _MAX_RECORD)
        return found and RecordFile(place, *found)

    def _content(self, key: str, limit: int) -> tuple[bytes, int] | None:
        """An object that is not longer, and when it was written."""
        try:
            head = self._bucket.call("head_object", Key=key)
            size = int(head["ContentLength"])
            if size > limit:
                return None
            body = self._bucket.read(key, 0, size)
        except Gone:
            return None
        return body, int(head["LastModified"].timestamp() * 1e9)

    def _key(self, name: ModelName | RecordName) -> str:
        root = self._records if isinstance(name, RecordName) else self._root
        return root + name.file_path


def _is_kept(name: ModelName | RecordName) -> bool:
    return isinstance(name, RecordName) or name.is_valid
