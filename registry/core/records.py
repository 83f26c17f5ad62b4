"""Records: what the store keeps of manifests and tags for which the models folder has no file.

A record is a line of JSON and, if it is a manifest's, the exact bytes of that:

    {"repository":"a/b/c","tag":"v1","manifest":"sha256:…"}
    {"repository":"a/b","manifest":"sha512:…","mediaType":"…","blobs":{"sha512:…":"sha256:…"}}

Its place is made of a hash of the repository's name, since that may be longer than a file's name
may be, and of what two spellings have in common, since a file system may take them for one.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from registry.core import strict_json
from registry.core.digest import Digest
from registry.core.errors import DigestInvalid, ManifestInvalid, NameInvalid
from registry.core.names import RepositoryName, check_tag

_TAG = "tag-"
_SHORT = 32


def folder_of(repository: RepositoryName) -> str:
    """The folder of a repository's records."""
    return hashlib.sha256(repository.key.encode()).hexdigest()[:_SHORT]


def reference_of(file_name: str) -> str:
    """The tag, in lower case, or the digest that a record is of, by its file's name.

    Raises:
        DigestInvalid: it is no record's.
    """
    if file_name.startswith(_TAG):
        return file_name.removeprefix(_TAG)
    return str(Digest.parse(file_name.replace("-", ":", 1)))


@dataclass(frozen=True, slots=True)
class RecordName:
    """What a record is of: a tag of a repository, or a manifest by its digest."""

    repository: RepositoryName
    reference: str

    @property
    def is_digest(self) -> bool:
        """Whether it is a manifest's."""
        return ":" in self.reference

    @property
    def key(self) -> str:
        """What two spellings of the reference have in common."""
        return self.reference if self.is_digest else self.reference.lower()

    @property
    def file_path(self) -> str:
        """The record's place below `records/`."""
        name = self.key.replace(":", "-") if self.is_digest else f"{_TAG}{self.key}"
        return f"{folder_of(self.repository)}/{name}"

    @property
    def short(self) -> str:
        """The name as people write it."""
        return f"{self.repository}{'@' if self.is_digest else ':'}{self.reference}"

    def __str__(self) -> str:
        """The same."""
        return self.short


@dataclass(frozen=True, slots=True)
class Record:
    """A record. `aliases` are blobs that the manifest names by sha512, and their sha256.

    `body` and `media_type` are empty for a tag's.
    """

    name: RecordName
    manifest: Digest
    media_type: str = ""
    body: bytes = b""
    aliases: Mapping[Digest, Digest] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Its bytes."""
        head: dict[str, Any] = {"repository": self.name.repository.path}
        if not self.name.is_digest:
            head["tag"] = self.name.reference
        head["manifest"] = str(self.manifest)
        if self.name.is_digest:
            head["mediaType"] = self.media_type
        if self.aliases:
            head["blobs"] = {str(alias): str(own) for alias, own in self.aliases.items()}
        return orjson.dumps(head) + b"\n" + self.body

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Read one.

        Raises:
            ManifestInvalid: it is none, or its manifest is not the one that it names.
        """
        line, _, body = content.partition(b"\n")
        try:
            record = cls._read(strict_json.parse(line), body)
        except (strict_json.JsonInvalid, DigestInvalid, NameInvalid) as error:
            raise ManifestInvalid(f"invalid record: {error}") from error
        if record.name.is_digest and Digest.of(body, record.manifest.algorithm) != record.manifest:
            raise ManifestInvalid("invalid record: its manifest has another digest")
        return record

    @classmethod
    def _read(cls, head: Any, body: bytes) -> Self:
        if not isinstance(head, dict):
            raise ManifestInvalid("invalid record: not a JSON object")
        repository = RepositoryName.parse(_text(head, "repository"))
        manifest = Digest.parse(_text(head, "manifest"))
        if "tag" in head:
            return cls(RecordName(repository, check_tag(_text(head, "tag"))), manifest)
        aliases = head.get("blobs", {})
        if not isinstance(aliases, dict):
            raise ManifestInvalid("invalid record: blobs is not an object")
        return cls(
            RecordName(repository, str(manifest)),
            manifest,
            _text(head, "mediaType"),
            body,
            {Digest.parse(alias): Digest.parse(_text(aliases, alias)) for alias in aliases},
        )


def _text(head: Mapping[str, Any], key: str) -> str:
    text = head.get(key)
    if not isinstance(text, str):
        raise ManifestInvalid(f"invalid record: {key[:20]} is not a string")
    return text
