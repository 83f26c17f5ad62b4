"""What a service needs of an object store, made from its settings.

Loaded only where one is used: the client library takes 0.5 s and 40 MB.
"""

from collections.abc import Callable

from registry.adapters.blobs_s3 import S3BlobStore
from registry.adapters.s3_client import S3Bucket
from registry.adapters.s3_direct import S3Direct
from registry.adapters.s3_folder import FolderInS3
from registry.core.storage_url import S3Url
from registry.settings import Settings


def open_storage(
    settings: Settings, clock: Callable[[], int]
) -> tuple[S3BlobStore, FolderInS3, S3Direct]:
    """The place that the settings name; nothing is asked of it yet."""
    url, given = S3Url.parse(settings.storage_url), settings.s3
    bucket = S3Bucket.open(url, given)
    blobs = S3BlobStore(bucket)
    strict = settings.redirect.sign_headers == "strict"
    direct = S3Direct(bucket, url, given, clock, strict=strict)
    return blobs, FolderInS3(bucket, blobs.run_all), direct


def check(settings: Settings) -> None:
    """Raise what is wrong with the place that the settings name, in one sentence."""
    S3Bucket.open(S3Url.parse(settings.storage_url), settings.s3).check()
