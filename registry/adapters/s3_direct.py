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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from registry.adapters.s3_client import Gone, Refused, S3Bucket, new_key, translated
from registry.adapters.s3_gathering import Run
from registry.adapters.s3_reading import hash_object
from registry.adapters.s3_sessions import Session
from registry.core.digest import Digest
from registry.core.errors import Conflict, DigestMismatch, Unavailable, UploadUnknown
from registry.core.sigv4 import Keys, Signer
from registry.core.storage_url import S3Url
from registry.ports.blobs import Arrived
from registry.ports.direct import DirectPut, Landed, SentPart
from registry.settings import S3Keys

T = TypeVar("T")

_BYTES = "application/octet-stream"
_NS = 10**9
_THREADS = 16


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
        self._pool = ThreadPoolExecutor(_THREADS, "s3-direct")
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

    async def part_url(self, key: str, number: int, size: int, expires_s: int) -> str:
        """See `Direct`."""
        signer = await self._signer(expires_s)
        session = self._session(key)
        query = {"partNumber": str(number), "uploadId": session.upload}
        return signer.url("PUT", self._path(session.storage_key), query, self._said(size))

    async def put_url(self, key: str, digest: Digest, size: int, expires_s: int) -> DirectPut:
        """See `Direct`."""
        signer = await self._signer(expires_s)
        checksum = {"x-amz-checksum-sha256": _base64(digest)}
        url = signer.url("PUT", self._path(key), headers={**checksum, **self._said(size)})
        return DirectPut(url, {**checksum, "content-type": _BYTES})

    def _said(self, size: int) -> dict[str, str]:
        if not self._strict:
            return {}
        return {"content-length": str(size), "content-type": _BYTES}

    # objects

    def new_key(self) -> str:
        """See `Direct`."""
        return new_key()

    def _session(self, key: str) -> Session:
        """What the key of an object of parts, or of a whole one, means."""
        session = Session.parse(self._bucket, key)
        if session is None:
            raise UploadUnknown("upload unknown")
        if not session.upload:
            session.storage_key = session.name
        return session

    async def begin(self) -> str:
        """See `Direct`. No kind of checksum is agreed on: clients send none with their parts."""
        name = new_key()
        target = {"Key": self._bucket.blob(name), "ContentType": _BYTES}
        made = await self._run(partial(self._bucket.call, "create_multipart_upload", **target))
        return Session(self._bucket, name, name, str(made["UploadId"])).key

    async def parts(self, key: str) -> list[SentPart]:
        """See `Direct`."""
        found = await self._run(self._session(key).parts)
        if found is None:
            raise UploadUnknown("upload unknown")
        return [SentPart(number, part.size, part.etag) for number, part in sorted(found.items())]

    async def complete(self, key: str, parts: Sequence[SentPart]) -> None:
        """See `Direct`. An answer that was lost shows as UploadUnknown, and the object is there."""
        session = self._session(key)
        named = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        step = partial(
            self._bucket.call,
            "complete_multipart_upload",
            Key=self._bucket.blob(session.storage_key),
            UploadId=session.upload,
            MultipartUpload={"Parts": named},
        )
        try:
            await self._run(step)
        except Gone as error:
            raise UploadUnknown("upload unknown") from error
        except Refused as error:
            if error.code in {"InvalidPart", "InvalidPartOrder"}:
                raise Conflict("a part was sent anew while the upload was committed") from error
            raise

    async def landed(self, key: str) -> Landed | None:
        """See `Direct`."""
        head = await self._run(self._session(key).head)
        return None if head is None else Landed(int(head["ContentLength"]), _sha256(head))

    async def drop(self, key: str) -> None:
        """See `Direct`."""
        session = self._session(key)
        await self._run(session.abort)
        with contextlib.suppress(Gone):
            await self._run(session.remove)

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
        self._bucket.delete(key)
        return False

    def arrived(self, key: str, landed: Landed) -> Arrived:
        """See `Direct`."""
        return _Object(self._bucket, self._run, self._session(key).storage_key, landed)

    def _run(self, work: Callable[[], T], /) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._pool, work)


class _Object:
    """`Arrived` of an object."""

    def __init__(self, bucket: S3Bucket, run: Run, storage_key: str, landed: Landed) -> None:
        self._bucket = bucket
        self._run = run
        self._key = storage_key
        self.size = landed.size
        self._sha256 = landed.sha256

    async def digest(self, algorithm: str = "sha256") -> Digest:
        """See `Arrived`."""
        if algorithm != "sha256":
            return await self._hashed(algorithm)
        if self._sha256 is None:
            self._sha256 = await self._hashed(algorithm)
        return self._sha256

    async def _hashed(self, algorithm: str) -> Digest:
        found = await hash_object(self._bucket, self._run, self._key, self.size, algorithm)
        return Digest(algorithm, found)

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
