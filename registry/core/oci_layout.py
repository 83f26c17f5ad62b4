"""The OCI image layout: a folder or tar of blobs by digest, with an index that names manifests.

Docker's manifests, which those of models are, stand in our index twice: first as OCI's, since
skopeo and podman pass over all others, then as what they are, which oras takes (of two of a name
the last) and sends as the type when it pushes. The bytes are the same.

Source: OCI image-spec 1.1, image-layout.md; annotations.md for `ref.name`. That annotation may be
a tag alone or a whole name; `io.containerd.image.name` is always a whole one.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from registry.core import strict_json
from registry.core.digest import Digest
from registry.core.errors import DigestInvalid, ManifestInvalid
from registry.core.media import DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_INDEX, OCI_MANIFEST
from registry.core.names import ModelName

MARKER = "oci-layout"
INDEX = "index.json"
MARKER_TEXT = b'{"imageLayoutVersion":"1.0.0"}'
MAX_INDEX = 4 << 20
_MAX_ENTRIES = 100_000
_CALLED = {DOCKER_MANIFEST: OCI_MANIFEST, DOCKER_MANIFEST_LIST: OCI_INDEX}
_REF = "org.opencontainers.image.ref.name"
_CONTAINERD = "io.containerd.image.name"


@dataclass(frozen=True, slots=True)
class Entry:
    """A manifest of the index; `label` is what the index calls it, empty if nothing."""

    digest: Digest
    size: int
    media_type: str
    label: str = ""

    @property
    def name(self) -> ModelName | None:
        """The name of a model, if the label is one and not a tag alone."""
        if "/" not in self.label and ":" not in self.label:
            return None
        name = ModelName.parse(self.label)
        return name if name.is_valid else None


def blob_path(digest: Digest) -> str:
    """Where a blob or manifest lies."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def encode_index(entries: Iterable[Entry]) -> bytes:
    """The bytes of `index.json`; the same for the same entries."""
    manifests = [
        {
            "mediaType": media_type,
            "digest": str(entry.digest),
            "size": entry.size,
            "annotations": {_REF: entry.label},
        }
        for entry in entries
        for media_type in dict.fromkeys([_CALLED.get(entry.media_type), entry.media_type])
        if media_type is not None
    ]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    return json.dumps(index, separators=(",", ":")).encode()


def parse_index(body: bytes) -> list[Entry]:
    """Read `index.json`.

    Raises:
        ManifestInvalid: it is none.
    """
    try:
        value = strict_json.parse(body)
    except strict_json.JsonInvalid as error:
        raise ManifestInvalid(f"invalid index.json: {error}") from error
    items = value.get("manifests") if isinstance(value, dict) else None
    if not isinstance(items, list) or len(items) > _MAX_ENTRIES:
        raise ManifestInvalid("invalid index.json: it has no list of manifests")
    return [_entry(item) for item in items]


def _entry(item: Any) -> Entry:
    found = item if isinstance(item, dict) else {}
    size, media_type = found.get("size"), found.get("mediaType")
    try:
        digest = Digest.parse(str(found.get("digest")))
    except DigestInvalid as error:
        raise ManifestInvalid("invalid index.json: a manifest has no valid digest") from error
    if not isinstance(size, int) or size < 0 or not isinstance(media_type, str):
        raise ManifestInvalid("invalid index.json: a manifest has no size or media type")
    annotations = found.get("annotations")
    marks = annotations if isinstance(annotations, dict) else {}
    label = marks.get(_CONTAINERD) or marks.get(_REF) or ""
    return Entry(digest, size, media_type, label if isinstance(label, str) else "")
