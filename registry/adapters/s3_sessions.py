"""Bytes on their way into an object store, as the store knows them: parts, rests, what is complete.

A session's key is `S`, or `S.O.U` once a multipart upload was begun: `S` names the rests below
`incoming/`, `O` is the storage key that the blob will have, `U` the store's own id of the upload.
Each multipart upload has a key of its own, so no object is ever written by two processes: a
session that two replicas go on with at once has two, and the catalog's row decides between them.

Methods block: they are for threads.

Source: Amazon S3 API reference, CompleteMultipartUpload; spec registry-protocol 6.2.
"""

import base64
import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from registry.adapters.s3_client import Gone, Refused, S3Bucket, is_storage_key, new_key
from registry.core.errors import OperationFailed, RegistryError, Unavailable

_OTHERS_PARTS = {"InvalidPart", "InvalidPartOrder"}


@dataclass(frozen=True, slots=True)
class Sent:
    """A part that the store has; `sha256` of its bytes, empty if the store does not tell."""

    size: int
    etag: str
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Rest:
    """An object with the bytes `[start, stop)`, where a part is not full yet."""

    start: int
    stop: int


class Session:
    """One blob on its way in."""

    def __init__(
        self, bucket: S3Bucket, name: str, storage_key: str = "", upload: str = ""
    ) -> None:
        self._bucket = bucket
        self.name = name
        self.storage_key = storage_key
        self.upload = upload

    @classmethod
    def parse(cls, bucket: S3Bucket, key: str) -> Self | None:
        """The session of a key; None if it cannot be one."""
        name, _, rest = key.partition(".")
        storage_key, _, upload = rest.partition(".")
        if not is_storage_key(name) or (rest and not (is_storage_key(storage_key) and upload)):
            return None
        return cls(bucket, name, storage_key, upload)

    @property
    def key(self) -> str:
        """What takes it up again."""
        return f"{self.name}.{self.storage_key}.{self.upload}" if self.upload else self.name

    # ---- parts

    def begin(self) -> None:
        """Begin the multipart upload."""
        storage_key = new_key()
        answer = self._bucket.call(
            "create_multipart_upload",
            Key=self._bucket.blob(storage_key),
            ChecksumAlgorithm="SHA256",
        )
        self.storage_key, self.upload = storage_key, str(answer["UploadId"])

    def put_part(self, number: int, body: bytes | bytearray, sha256: bytes) -> Sent:
        """Send a part; one of that number is replaced."""
        answer = self._bucket.call(
            "upload_part",
            **self._target,
            PartNumber=number,
            Body=body,
            ChecksumSHA256=base64.b64encode(sha256).decode(),
        )
        return Sent(len(body), str(answer["ETag"]), sha256)

    def parts(self) -> dict[int, Sent] | None:
        """The parts that the store has; None if the upload is complete or gone."""
        found: dict[int, Sent] = {}
        after = 0
        while True:
            try:
                page = self._bucket.call("list_parts", **self._target, PartNumberMarker=after)
            except Gone:
                return None
            for item in page.get("Parts", []):
                sha256 = base64.b64decode(item.get("ChecksumSHA256", ""))
                found[int(item["PartNumber"])] = Sent(int(item["Size"]), item["ETag"], sha256)
            after = int(page.get("NextPartNumberMarker") or 0)
            if not page.get("IsTruncated") or not after:
                return found

    def complete(self, parts: Mapping[int, Sent]) -> bool:
        """Make the parts one object.

        Returns:
            Whether the store vouches for the object's being made of exactly these bytes. If not,
            somebody else has sent parts too, or the store keeps no checksums: read it back.

        Raises:
            OperationFailed: there is neither the upload nor an object of that size.
        """
        try:
            answer = self._complete(parts)
        except (Gone, Unavailable) as error:
            # Done already, or done and the answer lost: the object tells.
            found = self.head()
            if found is None or found["ContentLength"] != sum(p.size for p in parts.values()):
                if isinstance(error, Unavailable):
                    raise
                raise OperationFailed("the upload ended in the object store") from error
            return _vouches(found, parts)
        except Refused as error:
            if error.code not in _OTHERS_PARTS:
                raise
            self._complete_theirs(parts)
            return False
        if "ChecksumSHA256" in answer:
            return _vouches(answer, parts)
        found = self.head()
        return found is not None and _vouches(found, parts)

    def _complete(self, parts: Mapping[int, Sent]) -> dict[str, Any]:
        listed = [_named(number, sent) for number, sent in sorted(parts.items())]
        return self._bucket.call(
            "complete_multipart_upload", **self._target, MultipartUpload={"Parts": listed}
        )

    def _complete_theirs(self, parts: Mapping[int, Sent]) -> None:
        """Complete with what the store has under these numbers."""
        found = self.parts() or {}
        if not all(number in found for number in parts):
            raise OperationFailed("parts of the upload are gone from the object store")
        try:
            self._complete({number: found[number] for number in parts})
        except Gone as error:
            raise OperationFailed("the upload ended in the object store") from error

    def head(self) -> dict[str, Any] | None:
        """What the store says of the finished object; None if there is none."""
        try:
            return self._bucket.call(
                "head_object", Key=self._bucket.blob(self.storage_key), ChecksumMode="ENABLED"
            )
        except Gone:
            return None

    def put_whole(self, body: bytes, sha256: bytes) -> bool:
        """Make one object of few bytes; whether the store vouches for them, as `complete`."""
        self.abort()
        self.storage_key, self.upload = new_key(), ""
        answer = self._bucket.call(
            "put_object",
            Key=self._bucket.blob(self.storage_key),
            Body=body,
            ChecksumSHA256=base64.b64encode(sha256).decode(),
        )
        return base64.b64decode(answer.get("ChecksumSHA256", "")) == sha256

    def abort(self) -> None:
        """Let the store forget the parts; a finished object stays."""
        if self.upload:
            with contextlib.suppress(Gone):
                self._bucket.call("abort_multipart_upload", **self._target)

    def remove(self) -> None:
        """Delete the finished object."""
        if self.storage_key:
            self._bucket.delete(self._bucket.blob(self.storage_key))

    @property
    def _target(self) -> dict[str, str]:
        return {"Key": self._bucket.blob(self.storage_key), "UploadId": self.upload}

    # ---- rests

    def put_rest(self, start: int, body: bytes) -> Rest:
        """Keep bytes that are no part yet."""
        rest = Rest(start, start + len(body))
        self._bucket.call("put_object", Key=self._path(rest), Body=body)
        return rest

    def rest(self, rest: Rest, count: int) -> bytes:
        """The first `count` bytes of one.

        Raises:
            Gone: it is not there any more.
        """
        return self._bucket.read(self._path(rest), 0, count)

    def rests(self) -> list[Rest]:
        """Those that the store has."""
        prefix = self._bucket.path("incoming", self.name, "")
        return list(_rests(item["Key"] for item in self._bucket.listed(prefix)))

    def drop_rest(self, rest: Rest) -> None:
        """Delete one. What cannot be deleted now, the sweep finds."""
        with contextlib.suppress(RegistryError):
            self._bucket.delete(self._path(rest))

    def _path(self, rest: Rest) -> str:
        return self._bucket.path("incoming", self.name, f"{rest.start}-{rest.stop}")


def _rests(keys: Iterator[str]) -> Iterator[Rest]:
    for key in keys:
        start, _, stop = key.rpartition("/")[2].partition("-")
        if start.isdecimal() and stop.isdecimal():
            yield Rest(int(start), int(stop))


def _named(number: int, sent: Sent) -> dict[str, object]:
    named: dict[str, object] = {"PartNumber": number, "ETag": sent.etag}
    if sent.sha256:
        named["ChecksumSHA256"] = base64.b64encode(sent.sha256).decode()
    return named


def _vouches(answer: Mapping[str, Any], parts: Mapping[int, Sent]) -> bool:
    """Whether a store's checksum is that of these parts: the SHA-256 of their SHA-256s."""
    said = base64.b64decode(str(answer.get("ChecksumSHA256", "")).partition("-")[0])
    whole = hashlib.sha256(b"".join(sent.sha256 for _, sent in sorted(parts.items())))
    return said == whole.digest() and all(sent.sha256 for sent in parts.values())
