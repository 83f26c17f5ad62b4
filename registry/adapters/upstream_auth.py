"""Showing another registry who we are: challenges, the key of this service, token requests.

A registry answers 401 with a challenge that names a token endpoint (the realm). A token request is
signed with an Ed25519 key, as Ollama's are, and carries nothing that could be used elsewhere: the
signature covers the full URL, and only a realm on the registry's own host and port gets one. A
realm on another host is asked, without the key, only if the administrator named that host.

Source: spec registry-protocol 1.4 (signature), 4.1-4.2 (OCI tokens), 8.5 (realm rules); RFC 9110,
section 11.2 for the syntax of challenges; OpenSSH PROTOCOL.key for the file.
"""

import base64
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

import anyio.to_thread
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from registry.core.errors import UpstreamRefused

_PARAMETER = re.compile(
    r"""\s*,?\s*(?:([A-Za-z0-9!#$%&'*+.^_`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))"""
)
_SCHEME = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9-]*)(?:\s+|$)(?!=)")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_CHALLENGE = 8192

EMPTY_BODY = base64.b64encode(
    b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
).decode()
"""What a signature has in place of the body: base64 of the hex sha256 of no bytes."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """A `Bearer` challenge."""

    realm: str
    service: str
    scope: str

    @classmethod
    def find(cls, headers: Iterable[str]) -> Self | None:
        """The first usable `Bearer` challenge of some `WWW-Authenticate` headers."""
        for text in headers:
            for scheme, values in _challenges(text[:_MAX_CHALLENGE]):
                if scheme == "bearer" and values.get("realm"):
                    service, scope = values.get("service", ""), values.get("scope", "")
                    return cls(values["realm"], service, scope)
        return None

    def url(self, extra: Mapping[str, str]) -> str:
        """The URL of the token request: the realm's with its own query, ours and `extra` merged."""
        realm = urlsplit(self.realm)
        query = parse_qsl(realm.query, keep_blank_values=True)
        query += [("service", self.service)] if self.service else []
        query += [("scope", scope) for scope in self.scope.split()]
        query += extra.items()
        encoded = urlencode(sorted(query, key=lambda item: item[0]))
        return realm._replace(query=encoded, fragment="").geturl()


def _challenges(text: str) -> list[tuple[str, dict[str, str]]]:
    """Scheme (lower case) and parameters of each challenge in one header."""
    found: list[tuple[str, dict[str, str]]] = []
    text = re.sub(r"\s+", " ", text)  # long blanks would cost the patterns quadratic time
    at = 0
    while at < len(text):
        if match := _PARAMETER.match(text, at):
            if found:
                quoted = match[2]
                value = match[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                found[-1][1].setdefault(match[1].lower(), value)
        elif match := _SCHEME.match(text, at):
            found.append((match[1].lower(), {}))
        else:
            break  # not a challenge any more; what came before holds
        at = match.end()
    return found


def same_origin(one: SplitResult, other: SplitResult) -> bool:
    """Whether scheme, host and port agree."""
    return _origin(one) == _origin(other)


def _origin(url: SplitResult) -> tuple[str, str | None, int | None]:
    try:
        return url.scheme, url.hostname, url.port or _DEFAULT_PORTS.get(url.scheme)
    except ValueError:
        return url.scheme, url.netloc, None


def realm_is_ours(realm: str, registry: str, foreign: Callable[[str, int], bool]) -> bool:
    """Judge a realm: True if the key may sign for it, False if it may be asked anonymously.

    `foreign(host, port)` says whether the administrator named that host.

    Raises:
        UpstreamRefused: it lies elsewhere: the registry must not choose whom we talk to.
    """
    url, home = urlsplit(realm), urlsplit(registry)
    if same_origin(url, home) and url.username is None:
        return True
    _, host, port = _origin(url)
    if url.scheme == "https" and host and port and url.username is None and foreign(host, port):
        return False
    host_port = url.netloc.rpartition("@")[2]
    raise UpstreamRefused(
        f'realm host "{host_port}" does not match original host "{home.netloc}"'
        if host_port != home.netloc
        else f'realm "{url.scheme}://{host_port}" is not "{home.scheme}://{home.netloc}"'
    )


class Key:
    """The Ed25519 key of this service, made when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "id_ed25519"
        self._key: Ed25519PrivateKey | None = None

    async def authorization(self, url: str) -> str:
        """The `Authorization` header of a GET of `url`: public key and signature."""
        if self._key is None:
            self._key = await anyio.to_thread.run_sync(self._load)
        return authorization(self._key, url)

    def _load(self) -> Ed25519PrivateKey:
        try:
            found = load_ssh_private_key(self._path.read_bytes(), None)
        except FileNotFoundError:
            found = self._make()
        except (OSError, ValueError, TypeError) as error:
            raise UpstreamRefused("the key file id_ed25519 of this server is unusable") from error
        if not isinstance(found, Ed25519PrivateKey):
            raise UpstreamRefused("the key file id_ed25519 of this server holds no Ed25519 key")
        return found

    def _make(self) -> Ed25519PrivateKey:
        """Write a new key pair; if another process was first, take its key."""
        key = Ed25519PrivateKey.generate()
        text = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        folder = self._path.parent
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f".id_ed25519-{secrets.token_hex(8)}"
        try:
            with os.fdopen(
                os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
            ) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            try:
                self._path.hardlink_to(fresh)  # unlike a rename it never replaces a key
            except FileExistsError:
                return self._load()
            self._path.with_suffix(".pub").write_bytes(public + b"\n")
        finally:
            fresh.unlink(missing_ok=True)
        return key


def authorization(key: Ed25519PrivateKey, url: str) -> str:
    """`<base64 key>:<base64 signature>` for a GET of `url`."""
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]
    signature = key.sign(f"GET,{url},{EMPTY_BODY}".encode())
    return f"{public.decode()}:{base64.b64encode(signature).decode()}"


def nonce() -> str:
    """16 random bytes, URL-safe, unpadded."""
    return secrets.token_urlsafe(16)
