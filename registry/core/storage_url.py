"""Where blobs are kept, as an operator writes it: `s3://bucket/prefix?endpoint=…&region=…`.

Credentials are never part of it: URLs end up in logs and process lists.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from registry.core.errors import RequestInvalid

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()-]+(/[A-Za-z0-9!_.*'()-]+)*")
_HOST = re.compile(r"https?://[^/?#@\s]+/?")
_OPTIONS = frozenset({"endpoint", "public_endpoint", "region", "path_style"})
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_MAX_PREFIX = 512


@dataclass(frozen=True, slots=True)
class S3Url:
    """A place in an object store. Empty strings: what the client library chooses by itself."""

    bucket: str
    prefix: str  # without slashes at its ends; perhaps empty
    endpoint: str  # http(s)://host[:port]
    public_endpoint: str  # how clients reach the same store, for URLs given to them
    region: str
    path_style: bool  # http://host/bucket/key, else http://bucket.host/key

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the URL. With an endpoint of its own, path style is the default.

        Raises:
            RequestInvalid: the sentence says what is wrong with it.
        """
        try:
            url = urlsplit(text)
            options = dict(parse_qsl(url.query, strict_parsing=True)) if url.query else {}
        except ValueError as error:
            raise RequestInvalid("cannot be read as a URL") from error
        if url.scheme != "s3":
            raise RequestInvalid("must be empty (the data folder) or begin with s3://")
        if "@" in url.netloc:
            raise RequestInvalid("must not hold credentials: use REGISTRY_S3__ACCESS_KEY")
        if not _BUCKET.fullmatch(url.netloc):
            raise RequestInvalid("must name a bucket: s3://bucket/prefix")
        prefix = url.path.strip("/")
        if prefix and not (_PREFIX.fullmatch(prefix) and _is_plain(prefix)):
            raise RequestInvalid("the prefix must be plain: letters, digits and !_.*'()-/")
        return cls._with_options(url.netloc, prefix, options)

    @classmethod
    def _with_options(cls, bucket: str, prefix: str, options: Mapping[str, str]) -> Self:
        unknown = sorted(options.keys() - _OPTIONS)
        if unknown:
            raise RequestInvalid(
                f"has no option {unknown[0][:40]!r}: {', '.join(sorted(_OPTIONS))}"
            )
        for name in ("endpoint", "public_endpoint"):
            if options.get(name) and not _HOST.fullmatch(options[name]):
                raise RequestInvalid(f"{name} must be http://host:port or https://host:port")
        endpoint = options.get("endpoint", "").rstrip("/")
        style = options.get("path_style", "true" if endpoint else "false")
        if style not in _FLAGS:
            raise RequestInvalid("path_style must be true or false")
        return cls(
            bucket=bucket,
            prefix=prefix,
            endpoint=endpoint,
            public_endpoint=options.get("public_endpoint", "").rstrip("/"),
            region=options.get("region", ""),
            path_style=_FLAGS[style],
        )


def _is_plain(prefix: str) -> bool:
    return len(prefix) <= _MAX_PREFIX and not {".", ".."} & set(prefix.split("/"))
