"""The object store's client: one bucket and prefix, calls that are tried again, errors as ours.

Everything that talks to the store goes through `S3Bucket`. Keys, below the prefix:

    blobs/<2 hex>/<32 hex>                a blob; the 32 digits, random, are its storage key
    incoming/<32 hex>/<start>-<stop>      less than a part, of bytes on their way in
    manifests/<host>/<ns>/<model>/<tag>   tags, as in the models folder

A storage key is written by one process once and never used again.

Source: Amazon S3 API reference 2006-03-01, "Error responses".
"""

import contextlib
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, Self, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    NoCredentialsError,
)

from registry.core.errors import OperationFailed, RegistryError, StorageFull, Unavailable
from registry.core.storage_url import S3Url
from registry.settings import S3Keys

T = TypeVar("T")

_CONNECT_S = 5.0
_READ_S = 60.0  # without a byte
_CONNECTIONS = 128
_TRIES = 6
_PATIENCE_S = 60.0  # after which nothing is tried again: a silent store takes `_READ_S` each time
_PAUSE_S = 0.2
_LONGEST_S = 5.0
_GONE = {"NoSuchKey", "NoSuchUpload", "NotFound", "404", "InvalidRange"}
_FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"}
_BUSY = {
    "SlowDown", "InternalError", "RequestTimeout", "ServiceUnavailable", "Throttling", "BadDigest",
    "ThrottlingException", "OperationAborted", "XAmzContentSHA256Mismatch", "IncompleteBody",
    "429", "500", "502", "503", "504",
    # A server over a file system, when the last object of a folder goes while one is put there:
    "ExistingObjectIsDirectory", "ObjectParentIsFile",
}  # fmt: skip
_REFUSED = {
    "NoSuchBucket": "the bucket does not exist",
    "AccessDenied": "it refuses access to the bucket",
    "403": "it refuses access to the bucket",
    "InvalidAccessKeyId": "it does not know the access key",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "ExpiredToken": "the credentials have expired",
    "AuthorizationHeaderMalformed": "the region is wrong",
    "PermanentRedirect": "the region or the endpoint is wrong",
    "301": "the region or the endpoint is wrong",
}
_STORAGE_KEY = re.compile(r"[0-9a-f]{32}")


class Gone(Exception):
    """There is no such object or multipart upload. Never leaves the adapters."""


class Refused(OperationFailed):
    """The store will not do it however often it is asked; `code` is the store's own."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def new_key() -> str:
    """A storage key that nobody has had."""
    return secrets.token_hex(16)


def is_storage_key(text: str) -> bool:
    """Whether a text is a storage key of this store."""
    return _STORAGE_KEY.fullmatch(text) is not None


def connect(url: S3Url, given: S3Keys, *, public: bool = False) -> Any:
    """A client of boto3; `public`: for signing URLs that clients of ours use.

    Whoever gives the same keys for the same server has the same client: to make one takes 60 ms of
    CPU. Without keys in the settings the usual places are searched: the AWS environment, files,
    roles.
    """
    endpoint = (public and url.public_endpoint) or url.endpoint
    server = replace(url, bucket="", prefix="", endpoint=endpoint, public_endpoint="")
    make = _client if given.access_key else _client.__wrapped__  # what is found may change
    return make(server, (given.access_key, given.secret_key, given.session_token))


@cache
def _client(server: S3Url, keys: tuple[str, str, str]) -> Any:
    config = Config(
        signature_version="s3v4",
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        max_pool_connections=_CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": 1},  # tried again here
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={
            "addressing_style": "path" if server.path_style else "auto",
            # Each part names its SHA-256 as a checksum, which the store compares.
            "payload_signing_enabled": False,
        },
    )
    try:
        return boto3.session.Session().client(
            "s3",
            region_name=server.region or ("us-east-1" if server.endpoint else None),
            endpoint_url=server.endpoint or None,
            aws_access_key_id=keys[0] or None,
            aws_secret_access_key=keys[1] or None,
            aws_session_token=keys[2] or None,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise OperationFailed(f"the object store cannot be used: {error}") from error


class S3Bucket:
    """A bucket and prefix. Calls block: they are for threads, of any number."""

    def __init__(self, client: Any, bucket: str, prefix: str, tries: int = _TRIES) -> None:
        self.client = client
        self.name = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self._tries = tries

    @classmethod
    def open(cls, url: S3Url, given: S3Keys) -> Self:
        """The place that an operator names."""
        return cls(connect(url, given), url.bucket, url.prefix)

    def blob(self, storage_key: str) -> str:
        """The object's key of a blob."""
        return f"{self.prefix}blobs/{storage_key[:2]}/{storage_key}"

    def path(self, *parts: str) -> str:
        """The key of another object."""
        return self.prefix + "/".join(parts)

    def call(self, operation: str, **given: Any) -> dict[str, Any]:
        """One operation of the client, such as `put_object`, tried again while that may help.

        Raises:
            Gone: the object or the upload is not there.
            StorageFull: a quota is used up.
            Refused: it cannot be done, with a sentence that says why.
            Unavailable: the store does not answer, or only with errors of its own.
        """
        method = getattr(self.client, operation)
        return self.tried(lambda: method(Bucket=self.name, **given))

    def tried(self, step: Callable[[], T]) -> T:
        """Do a step that talks to the store; see `call`."""
        failures, until_s = 0, time.monotonic() + _PATIENCE_S
        while True:
            try:
                return step()
            except (ClientError, BotoCoreError) as error:
                found = translated(error)
                failures += 1
                is_over = failures >= self._tries or time.monotonic() >= until_s
                if is_over or not isinstance(found, Unavailable):
                    raise found from error
            longest = min(_PAUSE_S * (1 << failures), _LONGEST_S)
            time.sleep(random.random() * longest)  # noqa: S311

    def read(self, key: str, start: int, stop: int) -> bytes:
        """The bytes `[start, stop)` of an object, all of them.

        Raises:
            Gone: it is not there, or is shorter.
            Unavailable: the store breaks off each time.
        """
        if start >= stop:
            return b""

        def step() -> bytes:
            answer = self.client.get_object(
                Bucket=self.name, Key=key, Range=f"bytes={start}-{stop - 1}"
            )
            with contextlib.closing(answer["Body"]) as body:
                data: bytes = body.read()
            if len(data) != stop - start:
                raise IncompleteReadError(actual_bytes=len(data), expected_bytes=stop - start)
            return data

        return self.tried(step)

    def delete(self, key: str) -> None:
        """Delete an object; absent is fine.

        It is to the protocol too, but a server over a file system answers 404 to the one of two who
        comes second.
        """
        with contextlib.suppress(Gone):
            self.call("delete_object", Key=key)

    def listed(self, prefix: str) -> Iterator[dict[str, Any]]:
        """The objects whose keys begin so, page by page."""
        token: dict[str, str] = {}
        while True:
            page = self.call("list_objects_v2", Prefix=prefix, **token)
            yield from page.get("Contents", [])
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def check(self) -> None:
        """Write an object and delete it.

        Raises:
            Refused: the bucket cannot be used; the sentence says why.
            Unavailable: the store does not answer.
        """
        probe = self.path("incoming", "probe")
        self.call("put_object", Key=probe, Body=b"")
        self.delete(probe)


def translated(error: ClientError | BotoCoreError) -> RegistryError | Gone:
    """Our error for one of the client library's; `Unavailable` where trying again may help."""
    if isinstance(error, NoCredentialsError):
        return Refused(
            "there are no credentials for the object store: set REGISTRY_S3__ACCESS_KEY and "
            "REGISTRY_S3__SECRET_KEY",
            "NoCredentials",
        )
    if not isinstance(error, ClientError):
        return Unavailable("the object store does not answer")
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _GONE:
        return Gone(code)
    if code == "RequestTimeTooSkewed":  # another replica's may be right
        return Unavailable("the object store refuses the clock of this machine")
    if code in _FULL or status == 507:
        return StorageFull("no space left in the object store")
    if code in _BUSY or status >= 500 or status == 200:
        return Unavailable("the object store is busy")
    denied = _REFUSED["403"] if status in (401, 403) else f"it answered {code[:60] or status}"
    why = _REFUSED.get(code, denied)
    return Refused(f"the object store cannot be used: {why}", code)
