"""What an Ollama client signs with its key, and how it says so in `Authorization`.

Two texts are signed: that of a token request (the whole URL) and, by a command line that was told
to (`OLLAMA_AUTH=1`), that of each request to the API (method, path and time; neither host nor
body). Here they are built and read; whether a signature is true is the caller's to find out.

Source: spec registry-protocol 1.4, 8.4; product 3.1; RFC 4253 6.6 for the key's form.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Self

from registry.core.errors import RequestInvalid
from registry.core.ssh_key import SshKey

_KEY_TEXT = 68
_SIGNATURE_BYTES = 64
_SIGNATURE_TEXT = 88
_NO_BODY = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
_TIME_DIGITS = 12


@dataclass(frozen=True, slots=True)
class SignedBy:
    """The key and the signature of a request. One that exists is well formed, not yet verified."""

    key: SshKey
    signature: bytes  # 64 bytes

    @classmethod
    def parse(cls, header: str) -> Self | None:
        """Read the value of `Authorization`; None if it is not of this form."""
        text, _, signature = header.partition(":")
        if len(text) != _KEY_TEXT or len(signature) != _SIGNATURE_TEXT:
            return None
        try:
            key = SshKey.parse(text)
            raw = base64.b64decode(signature, validate=True)
        except (RequestInvalid, binascii.Error):
            return None
        # in the one spelling that encoding gives: no other may stand for the same bytes
        is_strict = base64.b64encode(raw).decode() == signature
        return cls(key, raw) if is_strict and len(raw) == _SIGNATURE_BYTES else None


def looks_signed(header: str) -> bool:
    """Whether a value of `Authorization` is meant to be of this form: it has no scheme word."""
    return header.startswith("AAAAC3NzaC1lZDI1NTE5") and " " not in header


def token_text(url: str) -> bytes:
    """What is signed for a token request: `url` is the whole one, query as sent."""
    return f"GET,{url},{_NO_BODY}".encode()


def api_text(method: str, path: str, ts: str) -> bytes:
    """What is signed for a request to the API: `path` is without the host and the query."""
    return f"{method},{path}?ts={ts}".encode()


def signed_at(ts: str) -> int | None:
    """The Unix time of a request, None if the text is no time."""
    return int(ts) if ts.isascii() and ts.isdigit() and len(ts) <= _TIME_DIGITS else None
