"""`Direct` on an S3 store: signed URLs for clients, and what the store made of their requests.

Source: Amazon S3 API reference 2006-03-01, "UploadPart", "CompleteMultipartUpload", "HeadObject";
spec registry-protocol 2.3, 2.5, 6.2 rules 8 and 9.
"""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import secrets
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import boto3
from botocore.exceptions import BotoCoreError, ClientError

from registry.adapters.s3_client import Gone, Refused, S3Bucket, new_key, translated
from registry.core.digest import Digest
from registry.core.errors import Conflict, DigestMismatch, Unavailable, UploadUnknown
from registry.core.sigv4 import Keys, Signer
from registry.core.storage_url import S3Url
from registry.ports.blobs import Arrived
from registry.ports.direct import DirectPut, Landed, Multipart, SentPart
from registry.settings import S3Keys

T = TypeVar("T")
_Read = Callable[[str, int, int], Coroutine[Any, Any, bytes]]

_BYTES = "application/octet-stream"
_NS = 10**9
_THREADS = 16
_PIECE = 8 << 20
_AHEAD = 4
"""Pieces read at once for one hasher: see ADR 11."""


class S3Direct:
    """The public side of a bucket. `strict`: sign what a sender must say of its bytes.

    That holds everywhere but behind a proxy which changes headers.
    """

    def __init__(
        self,
        bucket: S3Bucket,
        url: S3Url,
        given: S3Keys,
        clock: Callable[[], int],
        *,
        strict: bool = True,
    ) -> None:
        self._bucket = bucket
        self._keys = _Keys(given)
        self._clock = clock
        self._strict = strict
        self._checks: bool | None = None
        self._threads = anyio.CapacityLimiter(_THREADS)
        meta = bucket.client.meta
        self._region = str(meta.region_name)
        scheme, _, host = (url.public_endpoint or str(meta.endpoint_url)).partition("://")
        in_path = url.path_style or "." in url.bucket
        self._folder = f"/{url.bucket}" if in_path else ""
        self.address = f"{scheme}://{host if in_path else f'{url.bucket}.{host}'}"
        self.is_public = bool(url.public_endpoint) or not url.endpoint

    # URLs

    async def _signer(self, expires_s: int) -> Signer:
        keys = self._keys.ready()
        if keys is None:
            keys = await self._run(self._keys.fetch)
        return Signer(keys, self._region, self.address, self._clock() // _NS, expires_s)

    def _path(self, storage_key: str) -> str:
        return f"{self._folder}/{self._bucket.blob(storage_key)}"

    async def read_url(self, storage_key: str, expires_s: int) -> str:
        """See `Direct`."""
        signer = await self._signer(expires_s)
        # Whatever type a sender gave its bytes, no browser is to take them for a page.
        return signer.url("GET", self._path(storage_key), {"response-content-type": _BYTES})

    async def part_url(self, target: Multipart, number: int, size: int, expires_s: int) -> str:
        """See `Direct`."""
        signer = await self._signer(expires_s)
        query = {"partNumber": str(number), "uploadId": target.id}
        return signer.url("PUT", self._path(target.storage_key), query, self._said(size))

    async def put_url(
        self, storage_key: str, digest: Digest, size: int, expires_s: int
    ) -> DirectPut:
        """See `Direct`."""
        signer = await self._signer(expires_s)
        checksum = {"x-amz-checksum-sha256": _base64(digest)}
        signed = {**checksum, **self._said(size)}
        url = signer.url("PUT", self._path(storage_key), headers=signed)
        return DirectPut(url, {**checksum, "content-type": _BYTES})

    def _said(self, size: int) -> dict[str, str]:
        if not self._strict:
            return {}
        return {"content-length": str(size), "content-type": _BYTES}

    # objects of parts

    def new_key(self) -> str:
        """See `Direct`."""
        return new_key()

    async def begin(self) -> Multipart:
        """See `Direct`."""
        key = new_key()
        made = await self._call("create_multipart_upload", key, ContentType=_BYTES)
        return Multipart(key, str(made["UploadId"]))

    async def parts(self, target: Multipart) -> list[SentPart]:
        """See `Direct`."""
        found: list[SentPart] = []
        marker, more = 0, True
        while more:
            page = await self._of(target, "list_parts", PartNumberMarker=marker)
            found += [
                SentPart(int(part["PartNumber"]), int(part["Size"]), str(part["ETag"]))
                for part in page.get("Parts", ())
            ]
            more = bool(page.get("IsTruncated")) and found[-1].number > marker
            marker = found[-1].number if found else 0
        return sorted(found, key=lambda part: part.number)

    async def complete(self, target: Multipart, parts: Sequence[SentPart]) -> None:
        """See `Direct`. An answer that was lost shows as UploadUnknown, and the object is there."""
        named = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        try:
            await self._of(target, "complete_multipart_upload", MultipartUpload={"Parts": named})
        except Refused as error:
            if error.code in {"InvalidPart", "InvalidPartOrder"}:
                raise Conflict("a part was sent anew while the upload was committed") from error
            raise

    async def drop(self, target: Multipart) -> None:
        """See `Direct`."""
        if target.id:
            with contextlib.suppress(UploadUnknown):  # completed, or aborted by somebody else
                await self._of(target, "abort_multipart_upload")
        with contextlib.suppress(Gone):
            await self._call("delete_object", target.storage_key)

    # whole objects

    async def landed(self, storage_key: str) -> Landed | None:
        """See `Direct`."""
        try:
            head = await self._call("head_object", storage_key, ChecksumMode="ENABLED")
        except Gone:
            return None
        return Landed(int(head["ContentLength"]), _sha256(head))

    async def checks_sums(self) -> bool:
        """See `Direct`. Tried once, by sending a byte with the checksum of others."""
        if self._checks is None:
            self._checks = await self._run(self._probe)
        return self._checks

    def _probe(self) -> bool:
        key = self._bucket.path("incoming", f"probe-{secrets.token_hex(8)}")
        wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
        client, bucket = self._bucket.client, self._bucket.name
        try:
            client.put_object(Bucket=bucket, Key=key, Body=b"x", ChecksumSHA256=wrong)
        except (ClientError, BotoCoreError) as error:
            status = getattr(error, "response", {}).get("ResponseMetadata", {})
            if status.get("HTTPStatusCode") == 400:
                return True
            raise translated(error) from error
        self._bucket.call("delete_object", Key=key)
        return False

    def arrived(self, storage_key: str, landed: Landed) -> Arrived:
        """See `Direct`."""
        return _Object(storage_key, landed, self._read)

    async def _read(self, storage_key: str, start: int, stop: int) -> bytes:
        step = partial(self._bucket.read, self._bucket.blob(storage_key), start, stop)
        try:
            return await self._run(step)
        except Gone as error:
            raise UploadUnknown("the store has lost the upload") from error

    # calls

    async def _of(self, target: Multipart, operation: str, **given: Any) -> dict[str, Any]:
        try:
            return await self._call(operation, target.storage_key, UploadId=target.id, **given)
        except Gone as error:
            raise UploadUnknown("the store does not know the upload") from error

    async def _call(self, operation: str, storage_key: str, **given: Any) -> dict[str, Any]:
        key = self._bucket.blob(storage_key)
        return await self._run(partial(self._bucket.call, operation, Key=key, **given))

    async def _run(self, step: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(step, limiter=self._threads)


class _Object:
    """`Arrived` of an object."""

    def __init__(self, key: str, landed: Landed, read: _Read) -> None:
        self._key = key
        self.size = landed.size
        self._sha256 = landed.sha256
        self._read = read

    async def digest(self, algorithm: str = "sha256") -> Digest:
        """See `Arrived`."""
        if algorithm != "sha256":
            return await self._hashed(algorithm)
        if self._sha256 is None:
            self._sha256 = await self._hashed(algorithm)
        return self._sha256

    async def _hashed(self, algorithm: str) -> Digest:
        """Read everything, several pieces at once, and hash it in order."""
        hasher = hashlib.new(algorithm)
        ahead: deque[asyncio.Task[bytes]] = deque()
        try:
            for start in range(0, self.size, _PIECE):
                stop = min(start + _PIECE, self.size)
                ahead.append(asyncio.create_task(self._read(self._key, start, stop)))
                if len(ahead) > _AHEAD:
                    await asyncio.to_thread(hasher.update, await ahead.popleft())
            while ahead:
                await asyncio.to_thread(hasher.update, await ahead.popleft())
        finally:
            for task in ahead:
                task.cancel()
        return Digest(algorithm, hasher.hexdigest())

    async def seal(self) -> Digest:
        """See `Arrived`."""
        return await self.digest()

    async def publish(self, digest: Digest) -> str:
        """See `Arrived`: the object's key is the final one."""
        sealed = await self.seal()
        if sealed != digest:
            raise DigestMismatch(str(digest), str(sealed))
        return self._key

    def confirm(self) -> None:
        """See `Arrived`: no key is used again, so nobody can have deleted it."""


class _Keys:
    """Credentials: those of the settings, or of wherever AWS's own programs look for them."""

    def __init__(self, given: S3Keys) -> None:
        self._given = given
        self._found: Any = None
        self._lock = threading.Lock()

    def ready(self) -> Keys | None:
        """Credentials at hand; None if they must be asked for over the network."""
        if self._given.access_key:
            given = self._given
            return Keys(given.access_key, given.secret_key, given.session_token)
        found = self._found
        if found is None or getattr(found, "refresh_needed", lambda: False)():
            return None
        return self._frozen(found)

    def fetch(self) -> Keys:
        """Ask for credentials, which may take a while: for threads."""
        with self._lock:
            if self._found is None:
                self._found = boto3.session.Session().get_credentials()
        if self._found is None:
            raise Refused("there are no credentials for the object store", "NoCredentials")
        try:
            return self._frozen(self._found)
        except BotoCoreError as error:
            raise Unavailable("the credentials of the object store cannot be renewed") from error

    def _frozen(self, found: Any) -> Keys:
        keys = found.get_frozen_credentials()
        return Keys(keys.access_key, keys.secret_key, keys.token or "")


def _base64(digest: Digest) -> str:
    return base64.b64encode(bytes.fromhex(digest.hex)).decode()


def _sha256(head: dict[str, Any]) -> Digest | None:
    """The checksum of all bytes; that of an object of parts is one of their checksums."""
    text = str(head.get("ChecksumSHA256", ""))
    if head.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT" or "-" in text:
        return None
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return Digest("sha256", raw.hex()) if len(raw) == hashlib.sha256().digest_size else None
