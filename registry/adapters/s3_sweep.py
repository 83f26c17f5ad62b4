"""Leftovers of an object store: multipart uploads and rests that nobody goes on with."""

from collections.abc import Iterator, Set
from datetime import datetime
from typing import Any

from registry.adapters.s3_client import Gone, Refused, S3Bucket

_NOT_OFFERED = {"NotImplemented", "MethodNotAllowed"}


def sweep(bucket: S3Bucket, names: Set[str], uploads: Set[str], older_than_ns: int) -> int:
    """Delete rests of other sessions than `names`, abort other uploads than `uploads`.

    An upload counts as new while parts arrive, whenever it was begun: another replica may be at it,
    in one long request that no row mentions. Returns the number of bytes freed.
    """
    freed = 0
    for item in bucket.listed(bucket.path("incoming", "")):
        name = item["Key"].split("/")[-2]
        if name not in names and _is_older(item["LastModified"], older_than_ns):
            bucket.delete(item["Key"])
            freed += int(item["Size"])
    for upload in _uploads(bucket):
        if upload["UploadId"] in uploads or not _is_older(upload["Initiated"], older_than_ns):
            continue
        freed += _abort(bucket, {name: upload[name] for name in ("Key", "UploadId")}, older_than_ns)
    return freed


def _abort(bucket: S3Bucket, target: dict[str, str], older_than_ns: int) -> int:
    size, after = 0, 0
    try:
        while True:
            page = bucket.call("list_parts", **target, PartNumberMarker=after)
            for part in page.get("Parts", []):
                if not _is_older(part["LastModified"], older_than_ns):
                    return 0
                size += int(part["Size"])
            after = int(page.get("NextPartNumberMarker") or 0)
            if not page.get("IsTruncated") or not after:
                break
        bucket.call("abort_multipart_upload", **target)
    except Gone:
        return 0
    return size


def _uploads(bucket: S3Bucket) -> Iterator[dict[str, Any]]:
    """The multipart uploads below our prefix; none where the store cannot list them."""
    marker: dict[str, str] = {}
    while True:
        try:
            page = bucket.call("list_multipart_uploads", Prefix=bucket.path("blobs", ""), **marker)
        except Refused as error:
            if error.code in _NOT_OFFERED:
                return
            raise
        yield from page.get("Uploads", [])
        if not page.get("IsTruncated"):
            return
        marker = {
            "KeyMarker": page["NextKeyMarker"],
            "UploadIdMarker": page["NextUploadIdMarker"],
        }


def _is_older(time: datetime, than_ns: int) -> bool:
    return time.timestamp() * 1e9 < than_ns
