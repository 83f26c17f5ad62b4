"""What a `/v2/` path names, read from its raw bytes.

A component of a repository's name may itself be `blobs` or `manifests`, so paths are read from
their right end. Percent-encoding is undone after the path was split, and every piece must match its
own pattern in full, so an encoded slash, a `..` or a control character never gets through.

Source: OCI distribution-spec 1.1, "Endpoints"; spec registry-protocol 3.1, 8.1.
"""

import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote_to_bytes

from registry.core.errors import NameInvalid, NotFound, UploadUnknown
from registry.core.names import RepositoryName

_MAX_PATH = 2048
_SESSION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NOWHERE = RepositoryName("")


class Kind(Enum):
    """The kinds of resources."""

    PING = "ping"
    CATALOG = "catalog"
    BLOB = "blob"
    UPLOADS = "uploads"
    UPLOAD = "upload"
    MANIFEST = "manifest"
    TAGS = "tags"
    REFERRERS = "referrers"


_BY_DIGEST = {"blobs": Kind.BLOB, "manifests": Kind.MANIFEST, "referrers": Kind.REFERRERS}


@dataclass(frozen=True, slots=True)
class Target:
    """A resource: its repository, and the digest, tag or session that ends the path.

    `name` is the repository as the client spelt it: clients find their own name in our answers.
    """

    kind: Kind
    repository: RepositoryName = _NOWHERE
    name: str = ""
    argument: str = ""


def parse(raw_path: bytes) -> Target:
    """Read a path that begins with `/v2`, without its query.

    Raises:
        NotFound: no resource has such a path.
        NameInvalid: the repository's name is none.
        UploadUnknown: the session's id is none of ours.
    """
    if len(raw_path) > _MAX_PATH:
        raise NameInvalid("the path is too long")
    parts = [_decoded(part) for part in raw_path.split(b"/")[2:]]
    if parts in ([], [""]):
        return Target(Kind.PING)
    if parts == ["_catalog"]:
        return Target(Kind.CATALOG)
    kind, length = _ending(parts)
    name = "/".join(parts[:-length])
    repository = RepositoryName.parse(name)
    argument = "" if kind in {Kind.TAGS, Kind.UPLOADS} else parts[-1]
    if kind is Kind.UPLOAD and not _SESSION.fullmatch(argument):
        raise UploadUnknown("upload unknown")
    return Target(kind, repository, name, argument)


def _decoded(part: bytes) -> str:
    data = unquote_to_bytes(part)
    if b"/" in data or not data.isascii():
        raise NameInvalid("the path has an encoded slash or is not ASCII")
    return data.decode("ascii")


def _ending(parts: list[str]) -> tuple[Kind, int]:
    """The kind that the last components make, and how many of them."""
    if len(parts) > 2 and parts[-2:] == ["blobs", "uploads"]:
        return Kind.UPLOADS, 2
    if len(parts) > 3 and parts[-3:-1] == ["blobs", "uploads"]:
        return (Kind.UPLOAD if parts[-1] else Kind.UPLOADS), 3
    if len(parts) > 2 and parts[-2:] == ["tags", "list"]:
        return Kind.TAGS, 2
    if len(parts) > 2 and parts[-2] in _BY_DIGEST:
        return _BY_DIGEST[parts[-2]], 2
    raise NotFound("page not found")
