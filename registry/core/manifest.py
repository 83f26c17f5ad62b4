"""Manifests: what the exact bytes of one say, and the bytes of those we write ourselves.

A manifest is kept and served as its bytes; this only reads them, so unknown keys survive. `parse`
takes any JSON object with a media type: Ollama's and Docker's manifests, OCI images, indexes and
artifacts. It does not ask whether what a manifest refers to exists: that is for
`services/library/manifests.py`.

Source: OCI image-spec 1.1, manifest.md, image-index.md, descriptor.md; spec registry-protocol 3.3
"Manifests", 8.2; spec ollama-api 3.2 for the manifest of a model.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.core import gojson, strict_json
from registry.core.digest import Digest
from registry.core.errors import DigestInvalid, ManifestInvalid
from registry.core.media import (
    DOCKER_MANIFEST,
    INDEXES,
    MANIFESTS,
    NON_DISTRIBUTABLE,
    OCI_INDEX,
    OCI_MANIFEST,
)
from registry.core.strict_json import INT64_MAX

MAX_DESCRIPTORS = 10_000
MAX_MARKS = 200_000
"""Commas and opening brackets. A manifest has ten for each layer; 4 MiB of nothing else keep the
JSON readers busy for half a second in one go, with no other thread let in."""
"""Layers or children of one manifest. The largest known models have some 2,000."""

_TOKEN = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"  # noqa: S105 - RFC 6838, restricted-name
_MEDIA_TYPE = re.compile(f"{_TOKEN}/{_TOKEN}")
_PRINTABLE = re.compile(r"[ -~]{1,255}")
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference by digest. `origin` and `name` are Ollama's own keys `from` and `name`."""

    media_type: str
    digest: Digest
    size: int
    origin: str = ""
    name: str = ""
    distributable: bool = True  # False: the bytes may be absent from the repository

    def encode(self) -> str:
        """The JSON of the descriptor as Ollama writes a layer."""
        parts = [
            f'"mediaType":{_quoted(self.media_type)}',
            f'"digest":"{self.digest}"',
            f'"size":{self.size}',
        ]
        if self.origin:
            parts.append(f'"from":{_quoted(self.origin)}')
        if self.name:
            parts.append(f'"name":{_quoted(self.name)}')
        return "{" + ",".join(parts) + "}"


@dataclass(frozen=True, slots=True)
class _Document:
    body: bytes
    media_type: str
    subject: Descriptor | None
    artifact_type: str | None  # as a referrers list shows it
    annotations: Mapping[str, str]

    @property
    def digest(self) -> Digest:
        """The sha256 of the bytes: the manifest's name."""
        return Digest.of(self.body)


@dataclass(frozen=True, slots=True)
class Manifest(_Document):
    """An image, a model, an artifact: a config and layers, which are blobs."""

    config: Descriptor | None
    layers: tuple[Descriptor, ...]

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The config, then the layers in order, without those that may be absent."""
        config = () if self.config is None else (self.config,)
        return tuple(item for item in config + self.layers if item.distributable)

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """None: only an index has them."""
        return ()


@dataclass(frozen=True, slots=True)
class Index(_Document):
    """A list of manifests."""

    manifests: tuple[Descriptor, ...]

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """None: an index refers to manifests only."""
        return ()

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """The manifests in order."""
        return self.manifests


def parse(body: bytes, content_type: str | None = None) -> Manifest | Index:
    """Read the bytes of a manifest; `content_type` is what the sender called them.

    Raises:
        ManifestInvalid: not strict JSON, not an object, a field of a wrong type, a media type that
            disagrees with `content_type` or is Docker's schema 1, too many descriptors or values,
            sizes that overflow.
    """
    if is_excessive(body):
        raise ManifestInvalid(f"invalid manifest: more than {MAX_MARKS} commas and brackets")
    try:
        value = strict_json.parse(body)
    except strict_json.JsonInvalid as error:
        raise ManifestInvalid(f"invalid manifest: {error}") from error
    if not isinstance(value, dict):
        raise ManifestInvalid("invalid manifest: not a JSON object")
    media_type = _media_type(value, content_type)
    if not _is_index(value, media_type):
        return _manifest(body, media_type, value)
    return Index(
        body=body,
        media_type=media_type,
        manifests=_descriptors(value, "manifests"),
        subject=_optional(value, "subject"),
        artifact_type=_artifact_type(value),
        annotations=_annotations(value),
    )


def is_excessive(body: bytes) -> bool:
    """Whether a JSON text has so many values that it is not even read."""
    return body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_MARKS


def encode_model(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """The bytes of a model's manifest exactly as Ollama writes them, newline included."""
    items = "[" + ",".join(layer.encode() for layer in layers) + "]" if layers else "null"
    return (
        f'{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}",'
        f'"config":{config.encode()},"layers":{items}}}\n'
    ).encode()


@dataclass(frozen=True, slots=True)
class Referrer:
    """One entry of a referrers list; `annotations` is a JSON object as text, or None."""

    media_type: str
    digest: Digest
    size: int
    artifact_type: str | None
    annotations: str | None


def encode_referrers(referrers: Iterable[Referrer]) -> bytes:
    """The image index that answers a referrers request."""
    manifests: list[dict[str, Any]] = []
    for item in referrers:
        entry: dict[str, Any] = {
            "mediaType": item.media_type,
            "digest": str(item.digest),
            "size": item.size,
        }
        if item.artifact_type:
            entry["artifactType"] = item.artifact_type
        if item.annotations:
            entry["annotations"] = json.loads(item.annotations)
        manifests.append(entry)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    return json.dumps(index, separators=(",", ":")).encode()


def _quoted(text: str) -> str:
    return gojson.dumps(text).decode()


def _manifest(body: bytes, media_type: str, value: dict[str, Any]) -> Manifest:
    config = _optional(value, "config")
    if config is None and media_type == OCI_MANIFEST:
        raise ManifestInvalid("invalid manifest: config is missing")
    layers = _descriptors(value, "layers") + _descriptors(value, "blobs")
    if sum(layer.size for layer in layers) + (config.size if config else 0) > INT64_MAX:
        raise ManifestInvalid("invalid manifest: the sizes are too large")
    return Manifest(
        body=body,
        media_type=media_type,
        config=config,
        layers=layers,
        subject=_optional(value, "subject"),
        artifact_type=_artifact_type(value) or (config.media_type if config else None),
        annotations=_annotations(value),
    )


def _media_type(value: dict[str, Any], content_type: str | None) -> str:
    """The one type that body and sender agree on; guessed from the keys if neither says."""
    stated = value.get("mediaType") or ""
    sent = (content_type or "").partition(";")[0].strip()
    if not isinstance(stated, str):
        raise ManifestInvalid("invalid manifest: mediaType is not a string")
    if stated and sent and stated != sent:
        raise ManifestInvalid("invalid manifest: mediaType is not the Content-Type")
    media_type = stated or sent or (OCI_INDEX if "manifests" in value else OCI_MANIFEST)
    if not _MEDIA_TYPE.fullmatch(media_type):
        raise ManifestInvalid("invalid manifest: mediaType is not a media type")
    _check_schema(value, media_type)
    return media_type


def _check_schema(value: dict[str, Any], media_type: str) -> None:
    version = value.get("schemaVersion")
    if version == 1 or media_type.startswith(_SCHEMA_1):
        raise ManifestInvalid("invalid manifest: Docker's schema 1 is not supported")
    # Types of others, such as the ORAS artifact manifest, need not have the key.
    if (version is not None or media_type in MANIFESTS) and (version != 2 or version is True):
        raise ManifestInvalid("invalid manifest: schemaVersion is not 2")


def _is_index(value: dict[str, Any], media_type: str) -> bool:
    """Which of the two it is; a body that reads as both is refused (CVE-2021-41190)."""
    children = value.get("manifests") is not None
    blobs = any(value.get(key) is not None for key in ("config", "layers", "blobs"))
    if children and blobs:
        raise ManifestInvalid("invalid manifest: it has manifests as well as config or layers")
    if media_type in INDEXES:
        if blobs:
            raise ManifestInvalid("invalid manifest: an index has no config and no layers")
        return True
    if children and media_type in MANIFESTS:
        raise ManifestInvalid("invalid manifest: only an index has manifests")
    return children


def _descriptors(value: dict[str, Any], key: str) -> tuple[Descriptor, ...]:
    items = value.get(key)
    if items is None:  # Go writes an empty list as null
        return ()
    if not isinstance(items, list):
        raise ManifestInvalid(f"invalid manifest: {key} is not a list")
    if len(items) > MAX_DESCRIPTORS:
        raise ManifestInvalid(f"invalid manifest: more than {MAX_DESCRIPTORS} {key}")
    return tuple(_descriptor(item, f"{key}[{i}]") for i, item in enumerate(items))


def _optional(value: dict[str, Any], key: str) -> Descriptor | None:
    item = value.get(key)
    # An Ollama model without config has an empty descriptor in its place.
    if item is None or (isinstance(item, dict) and item.get("digest") == "" and key == "config"):
        return None
    return _descriptor(item, key)


def _descriptor(item: Any, where: str) -> Descriptor:
    if not isinstance(item, dict):
        raise ManifestInvalid(f"invalid manifest: {where} is not a descriptor")
    media_type, size = item.get("mediaType"), item.get("size")
    if not isinstance(media_type, str) or not _PRINTABLE.fullmatch(media_type):
        raise ManifestInvalid(f"invalid manifest: {where} has no valid mediaType")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ManifestInvalid(f"invalid manifest: {where} has no valid size")
    return Descriptor(
        media_type=media_type,
        digest=_digest(item.get("digest"), where),
        size=size,
        origin=_text(item, "from", where),
        name=_text(item, "name", where),
        distributable=not (media_type.startswith(NON_DISTRIBUTABLE) or item.get("urls")),
    )


def _digest(text: Any, where: str) -> Digest:
    try:
        return Digest.parse(text if isinstance(text, str) else "")
    except DigestInvalid as error:
        raise ManifestInvalid(f"invalid manifest: {where} has no valid digest") from error


def _text(item: dict[str, Any], key: str, where: str) -> str:
    text = item.get(key) or ""
    if not isinstance(text, str):
        raise ManifestInvalid(f"invalid manifest: {key} of {where} is not a string")
    return text


def _artifact_type(value: dict[str, Any]) -> str | None:
    text = value.get("artifactType") or None
    if text is not None and not (isinstance(text, str) and _PRINTABLE.fullmatch(text)):
        raise ManifestInvalid("invalid manifest: artifactType is not a media type")
    return text


def _annotations(value: dict[str, Any]) -> Mapping[str, str]:
    annotations = value.get("annotations") or {}
    if not isinstance(annotations, dict) or not all(
        isinstance(text, str) for text in annotations.values()
    ):
        raise ManifestInvalid("invalid manifest: annotations are not an object of strings")
    return annotations
