"""Presigned URLs of an S3 store: an address that carries the right to make one request.

Signature version 4, in the query. Pure: time and secrets are the caller's. An S3 client library
signs no header of UploadPart, but which headers are signed is what holds a sender to what was
announced: `content-length` fixes how much it may store, `x-amz-checksum-sha256` exactly what; and
some stores refuse a `content-type` that is sent and not signed.

Source: Amazon S3 API Reference, "Authenticating Requests: Using Query Parameters"; spec
registry-protocol 2.3.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

LONGEST_S = 7 * 86_400
"""No URL is good for longer than this."""

_ALGORITHM = "AWS4-HMAC-SHA256"
_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials of the store. `token` comes with temporary ones."""

    access: str
    secret: str
    token: str = ""

    def __repr__(self) -> str:  # it might be logged
        return f"Keys({self.access!r})"


@dataclass(frozen=True, slots=True)
class Signer:
    """Makes URLs below `endpoint` (scheme and host) that are good until `expires_s` after `now_s`.

    `now_s` is Unix time.
    """

    keys: Keys
    region: str
    endpoint: str
    now_s: int
    expires_s: int

    def url(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """The URL for one request.

        `path` is not percent-encoded yet. The request must come with these `headers` as they are
        (`host` goes without saying), and may bear others.
        """
        path = quote(path, safe="/~")
        at = datetime.fromtimestamp(self.now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{at[:8]}/{self.region}/s3/aws4_request"
        signed = {"host": _host(self.endpoint)}
        signed |= {name.lower(): " ".join(value.split()) for name, value in (headers or {}).items()}
        names = ";".join(sorted(signed))
        asked = self._query(query or {}, f"{self.keys.access}/{scope}", at, names)
        lines = [f"{name}:{signed[name]}\n" for name in sorted(signed)]
        request = "\n".join((method, path, asked, "".join(lines), names, "UNSIGNED-PAYLOAD"))
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = "\n".join((_ALGORITHM, at, scope, digest))
        signature = hmac.new(self._key(at[:8]), text.encode(), hashlib.sha256).hexdigest()
        return f"{self.endpoint}{path}?{asked}&X-Amz-Signature={signature}"

    def _query(self, given: Mapping[str, str], credential: str, at: str, names: str) -> str:
        values = {
            **given,
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": credential,
            "X-Amz-Date": at,
            "X-Amz-Expires": str(min(self.expires_s, LONGEST_S)),
            "X-Amz-SignedHeaders": names,
        }
        if self.keys.token:
            values["X-Amz-Security-Token"] = self.keys.token
        pairs = sorted((quote(name, safe="~"), quote(values[name], safe="~")) for name in values)
        return "&".join(f"{name}={value}" for name, value in pairs)

    def _key(self, day: str) -> bytes:
        key = f"AWS4{self.keys.secret}".encode()
        for text in (day, self.region, "s3", "aws4_request"):
            key = hmac.new(key, text.encode(), hashlib.sha256).digest()
        return key


def _host(endpoint: str) -> str:
    """The Host header that clients send: without the scheme's own port."""
    scheme, _, host = endpoint.partition("://")
    return host.removesuffix(_PORTS.get(scheme, ""))
