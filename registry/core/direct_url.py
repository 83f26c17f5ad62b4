"""Direct URLs: a blob's own address that carries its permission, for readers without credentials.

A URL is good for reading one blob of one repository until a moment, and says which key signed it.
Pure: the clock and the secret are the caller's. Whoever has the URL may read the blob, so it is a
secret itself: nothing logs its query.

Source: spec registry-protocol 0.1 rule 4, 8.3 "Direct URLs".
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from registry.core.digest import Digest
from registry.core.names import RepositoryName

_SECONDS = 12  # digits: enough until the year 33658, and no larger number is ever parsed


class SigningKey:
    """A secret and its public id, the beginning of the secret's own hash."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.id = hashlib.sha256(b"direct url key\0" + secret).hexdigest()[:8]

    def signature(self, grant: "Grant") -> str:
        """The signature of a grant: 64 hex digits."""
        text = "|".join(
            ("GET", grant.repository.key, str(grant.digest), str(grant.expires_s), self.id)
        )
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Grant:
    """Reading (GET, and HEAD with it) one blob of one repository until `expires_s`, Unix time."""

    repository: RepositoryName
    digest: Digest
    expires_s: int

    def query(self, key: SigningKey) -> str:
        """The query that makes the blob's URL a direct one."""
        return urlencode({"exp": self.expires_s, "kid": key.id, "sig": key.signature(self)})


def is_direct(query: Mapping[str, str]) -> bool:
    """Whether a request claims to be for a direct URL."""
    return "sig" in query


def verify(
    query: Mapping[str, str],
    repository: RepositoryName,
    digest: Digest,
    keys: tuple[SigningKey, ...],
    now_s: int,
) -> bool:
    """Whether one of `keys` signed just this request and its time has not passed."""
    expires = query.get("exp", "")
    if not (expires.isascii() and expires.isdigit() and len(expires) <= _SECONDS):
        return False
    grant = Grant(repository, digest, int(expires))
    given = query.get("sig", "").encode()
    return grant.expires_s > now_s and any(
        key.id == query.get("kid") and hmac.compare_digest(key.signature(grant).encode(), given)
        for key in keys
    )
