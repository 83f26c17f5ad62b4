"""Ed25519 public keys as Ollama clients show them: OpenSSH's wire form in base64, 68 characters.

Only reading and judging; signatures are verified where requests are. Keys of small order are
refused: a signature "by" such a key fits any text. So are encodings that are not canonical, or one
key would have two names.

Source: spec registry-protocol 1.4; RFC 8709 4 (wire form); RFC 8032 5.1.3 (points).
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Self

from registry.core.errors import RequestInvalid

_PREFIX = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"
_TEXT_LENGTH = 68  # of 51 bytes: no padding and no spare bits, so that base64 has one spelling
_LINE_MAX = 2_048

_P = 2**255 - 19
_D = -121_665 * pow(121_666, -1, _P) % _P
_SIGN = 1 << 255
_ORDER_8 = tuple(
    int.from_bytes(bytes.fromhex(text), "little")
    for text in (
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    )
)
_SMALL = frozenset((0, 1, _P - 1, *_ORDER_8))  # the y of all eight points of small order


@dataclass(frozen=True, slots=True)
class SshKey:
    """A key. One that exists is well formed: only `parse` makes them."""

    blob: str  # the 68 characters
    comment: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a line of `id_ed25519.pub`, or its second field alone.

        Raises:
            RequestInvalid: it is none; what is wrong is said without quoting the text, which might
                be a private key.
        """
        if "PRIVATE KEY" in text:
            raise RequestInvalid(
                "that is a private key: keep it to yourself and give the file that ends in .pub"
            )
        words = text[: _LINE_MAX + 1].split(None, 2)
        if len(text) > _LINE_MAX or not words or "\n" in text.strip():
            raise RequestInvalid("a public key is one line: ssh-ed25519 AAAA… comment")
        if words[0] == "ssh-ed25519" and len(words) > 1:
            comment = words[2].strip() if len(words) > 2 else ""
            return cls(_checked(words[1]), "".join(filter(str.isprintable, comment))[:100])
        if len(words) == 1 and words[0].startswith("AAAAC3"):
            return cls(_checked(words[0]))
        raise RequestInvalid("only keys of type ssh-ed25519 are taken: ssh-ed25519 AAAA… comment")

    @property
    def raw(self) -> bytes:
        """The 32 bytes of the key itself."""
        return base64.b64decode(self.blob)[len(_PREFIX) :]

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`, as `ssh-keygen -l` prints it."""
        return fingerprint(self.blob)


def fingerprint(blob: str) -> str:
    """The fingerprint of a key's base64 text."""
    hashed = hashlib.sha256(base64.b64decode(blob)).digest()
    return "SHA256:" + base64.b64encode(hashed).decode().rstrip("=")


def _checked(text: str) -> str:
    try:
        wire = base64.b64decode(text, validate=True) if len(text) == _TEXT_LENGTH else b""
    except (binascii.Error, ValueError) as error:
        raise RequestInvalid("the public key is not base64") from error
    if len(wire) != len(_PREFIX) + 32 or not wire.startswith(_PREFIX):
        raise RequestInvalid("the public key is not 68 characters of base64 of an ssh-ed25519 key")
    if not _is_sound(int.from_bytes(wire[len(_PREFIX) :], "little")):
        raise RequestInvalid("the public key is no usable Ed25519 key")
    return text


def _is_sound(encoded: int) -> bool:
    """Whether it is the canonical encoding of a point of the curve, not of small order."""
    y = encoded & ~_SIGN
    if y >= _P or y in _SMALL:
        return False
    # x² = (y² - 1) / (d·y² + 1) has a root if and only if the product of the two is a square
    square = y * y % _P
    return pow((square - 1) * (_D * square + 1), (_P - 1) // 2, _P) == 1
