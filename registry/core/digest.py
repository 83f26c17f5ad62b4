"""Digests: a blob's name is the hash of its bytes.

Source: OCI image-spec 1.1, descriptor.md, "Digests". The store's own name of a blob is its sha256;
sha512 is accepted where OCI clients ask for it and kept beside it.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Self

from registry.core.errors import DigestInvalid

_LENGTHS = {"sha256": 64, "sha512": 128}
_TEXT = re.compile(r"(sha256)[:-]([0-9a-fA-F]{64})|(sha512):([0-9a-f]{128})")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A sha256 or sha512 digest. One that exists is well formed: make them with the class methods.

    `str()` is the form of the wire, `sha256:<hex>`.
    """

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        if len(self.hex) != _LENGTHS.get(self.algorithm, -1):
            raise DigestInvalid("invalid digest format")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `sha256:<hex>` or `sha512:<hex>`; also `sha256-<hex>`, as files on disk are spelt.

        Upper-case hex of a sha256 is read as lower case, so that one blob has one name.

        Raises:
            DigestInvalid: any other text.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise DigestInvalid("invalid digest format")
        if match[1]:
            return cls("sha256", match[2].lower())
        return cls("sha512", match[4])

    @classmethod
    def sha256(cls, hexdigest: str) -> Self:
        """The digest of 64 lower-case hex digits that a hasher of ours made."""
        return cls("sha256", hexdigest)

    @classmethod
    def of(cls, data: bytes | memoryview, algorithm: str = "sha256") -> Self:
        """The digest of `data`."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """The first 12 hex digits, as progress lines and listings show them."""
        return self.hex[:12]

    @property
    def file_name(self) -> str:
        """`sha256-<hex>`: the blob's name in a models folder."""
        return f"{self.algorithm}-{self.hex}"


EMPTY = Digest.of(b"")
