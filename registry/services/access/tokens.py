"""Registry tokens: signed statements of who asked and for what, good for an hour or so.

A token is a JWT with an EdDSA signature. It names the credential that it was given for and what of
the asked scopes was granted; whoever verifies it asks the catalog what credential and account may
do now, so a token never outlives a right, only narrows it.

Keys lie among the catalog's secrets, `token-key-<period>-<number>`: all replicas make the same key
of a period (the first one wins), a new period brings a new key, and `rotate` begins a new number,
which makes every older token void at once.

Source: spec registry-protocol 4.2, 8.4; RFC 7519; RFC 8037 for EdDSA.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from registry.core.errors import Unauthenticated
from registry.core.ollama_signature import SignedBy
from registry.ports.catalog import Catalog, Reader
from registry.settings import Credentials

ALGORITHM = "EdDSA"
MAX_TOKEN = 8192
"""Longer texts are no tokens of ours; a longer one would not pass most proxies either."""

_NS = 10**9
_PERIOD_S = 30 * 86_400
_RING_NS = 5 * _NS  # how long this process may use a ring that another has rotated
_MAX_ROTATIONS = 1000
_SHARED_S = 15
_MAX_ISSUED = 1024
_REQUIRED = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "access"]


@dataclass(frozen=True, slots=True)
class Access:
    """What a token carries for one repository, or for `registry:catalog`."""

    type: str
    name: str
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a token is for. `credential` says what to look up: `user:<id>`, `key:…`, `api:…`."""

    name: str = ""
    credential: str = ""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says. Times are Unix seconds."""

    subject: Subject
    access: tuple[Access, ...]
    expires_s: int
    id: str


@dataclass(frozen=True, slots=True)
class Issued:
    """A token and what its receiver is told about it."""

    token: str
    expires_in_s: int
    issued_s: int


class TokenInvalid(Unauthenticated):
    """A token that is none of ours, has expired, or is for somebody else."""


class Tokens:
    """Issue and verify. One per process; keys are shared by way of the catalog."""

    def __init__(self, catalog: Catalog, lives: Credentials, clock: Callable[[], int]) -> None:
        self._catalog = catalog
        self._lives = lives
        self._clock = clock
        self._ring: dict[str, Ed25519PrivateKey] = {}
        self._current = ""
        self._ring_until = 0
        self._shared_s = min(_SHARED_S, lives.token_s // 10)
        self._issued: dict[tuple[Subject, tuple[Access, ...], str, str], Issued] = {}

    async def ring_id(self) -> str:
        """Names the keys in use: a token verified under another one has to be verified again."""
        await self._load(self._clock() // _NS)
        return self._current

    async def issue(self, subject: Subject, access: Sequence[Access], audience: str) -> Issued:
        """Make a token for `audience`, the name of this service.

        Whoever asks for the same again within seconds, as the connections of one client do, gets
        the same token: signing it, and verifying each anew, costs more than the rest.
        """
        now = self._clock() // _NS
        await self._load(now)
        wish = (subject, tuple(access), audience, self._current)
        known = self._issued.get(wish)
        if known is not None and 0 <= now - known.issued_s < self._shared_s:
            return replace(known, expires_in_s=known.expires_in_s - (now - known.issued_s))
        if len(self._issued) >= _MAX_ISSUED:
            self._issued.clear()
        issued = self._issued[wish] = self._sign(subject, access, audience, now)
        return issued

    def _sign(self, subject: Subject, access: Sequence[Access], audience: str, now: int) -> Issued:
        claims: dict[str, Any] = {
            "iss": audience,
            "sub": subject.name,
            "aud": audience,
            "exp": now + self._lives.token_s,
            "nbf": now - self._lives.skew_s,  # a replica's clock may be behind ours
            "iat": now,
            "jti": secrets.token_urlsafe(12),
            "cred": subject.credential,
            "access": [
                {"type": item.type, "name": item.name, "actions": list(item.actions)}
                for item in access
            ],
        }
        key = self._ring[self._current]
        token = jwt.encode(claims, key, ALGORITHM, headers={"kid": self._current})
        return Issued(token, self._lives.token_s, now)

    async def verify(self, token: str, audience: str) -> Claims:
        """Read a token.

        Raises:
            TokenInvalid: it is not ours, not for `audience`, not yet or no longer good.
        """
        if len(token) > MAX_TOKEN:
            raise TokenInvalid("the token is too long")
        now = self._clock() // _NS
        await self._load(now)
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = self._ring.get(kid) if isinstance(kid, str) else None
            if key is None:
                raise TokenInvalid("the token was signed by a key that is not in use")
            found = jwt.decode(
                token,
                key.public_key(),
                algorithms=[ALGORITHM],
                audience=audience,
                issuer=audience,
                # times are compared below, with the service's own clock
                options={
                    "require": _REQUIRED,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            return _claims(found, now)
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError) as error:
            raise TokenInvalid("the token is invalid") from error

    async def rotate(self) -> str:
        """Begin a new key; tokens signed by older ones are refused from now on."""
        period = self._clock() // _NS // _PERIOD_S
        fresh = secrets.token_bytes(32)
        number = await self._catalog.read(lambda tx: _newest(tx, period)) + 1
        await self._catalog.write(lambda tx: tx.put_secret(_name(period, number), fresh))
        self._ring_until = 0
        return _kid(period, number)

    async def _load(self, now_s: int) -> None:
        """Have the keys of this and the neighbouring periods; make the present one's."""
        if self._clock() < self._ring_until and self._current.startswith(_kid(now_s // _PERIOD_S)):
            return
        period = now_s // _PERIOD_S
        found = await self._catalog.read(lambda tx: _ring(tx, period))
        if period not in found:
            fresh = secrets.token_bytes(32)
            secret = await self._catalog.write(lambda tx: tx.put_secret(_name(period, 0), fresh))
            found[period] = (0, secret)
        rotated = found[period][0] > 0  # keys of before the rotation are void with it
        self._ring = {
            _kid(item, number): Ed25519PrivateKey.from_private_bytes(secret)
            for item, (number, secret) in found.items()
            if item >= period or not rotated
        }
        self._current = _kid(period, found[period][0])
        self._ring_until = self._clock() + _RING_NS

    # Ollama's signatures

    def is_signed(self, by: SignedBy, text: bytes) -> bool:
        """Whether the key made the signature of just this text."""
        try:
            Ed25519PublicKey.from_public_bytes(by.key.raw).verify(by.signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True

    def is_fresh(self, at_s: int) -> bool:
        """Whether a moment is now, as far as clocks of clients can be trusted."""
        return abs(self._clock() // _NS - at_s) <= self._lives.skew_s

    async def use_nonce(self, key: str, nonce: str) -> bool:
        """Take note that a key used a nonce; False if it had done so before."""
        until = self._clock() + 2 * (self._lives.skew_s + 1) * _NS
        return await self._catalog.write(lambda tx: tx.use_nonce(key, nonce, until))


def _claims(found: dict[str, Any], now_s: int) -> Claims:
    if not int(found["nbf"]) <= now_s < int(found["exp"]):
        raise TokenInvalid("the token has expired")
    access = tuple(
        Access(str(item["type"]), str(item["name"]), tuple(map(str, item["actions"])))
        for item in found["access"]
    )
    subject = Subject(str(found["sub"]), str(found.get("cred", "")))
    return Claims(subject, access, int(found["exp"]), str(found["jti"]))


def _kid(period: int, number: int | None = None) -> str:
    return f"{period}-" if number is None else f"{period}-{number}"


def _name(period: int, number: int) -> str:
    return f"token-key-{_kid(period, number)}"


def _newest(tx: Reader, period: int) -> int:
    """The number of the newest key of a period; -1 if there is none."""
    for number in range(_MAX_ROTATIONS):
        if tx.secret(_name(period, number)) is None:
            return number - 1
    return _MAX_ROTATIONS - 1


def _ring(tx: Reader, period: int) -> dict[int, tuple[int, bytes]]:
    """The newest keys of the periods whose tokens may still be about."""
    found = {}
    for item in (period - 1, period, period + 1):
        number = _newest(tx, item)
        secret = tx.secret(_name(item, number)) if number >= 0 else None
        if secret is not None:
            found[item] = (number, secret)
    return found
