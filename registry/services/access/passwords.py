"""Passwords: hashed with argon2id, compared in a thread, never kept or logged.

Source: RFC 9106 4, second recommended option (64 MiB, three passes); RFC 8265 4.2 for the
normal form: one password typed on two systems must be one password.
"""

import asyncio
import hmac
import secrets
import unicodedata
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from registry.core.accounts import PASSWORD_MAX, check_password
from registry.core.errors import Unavailable

T = TypeVar("T")

_AT_ONCE = 2  # 64 MiB each; there is no use in more than there are processors
_WAITING = 64
_PROVEN = 1024


class Passwords:
    """Hashing and comparing. At most two at once, and a bounded queue before them."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=4)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._nobodys = ""
        self._key = secrets.token_bytes(32)
        self._proven: OrderedDict[bytes, str] = OrderedDict()

    async def hash(self, password: str) -> str:
        """The text to keep.

        Raises:
            RequestInvalid: the password is too short or too long.
            Unavailable: too many are waiting.
        """
        return await self._turn(self._hasher.hash, _normal(check_password(password)))

    async def fits(self, name: str, password: str, kept: str) -> bool:
        """Whether it is the password of the account `name`, whose kept text is `kept`.

        With `kept` empty (there is no such account, or none with a password) it takes as long, and
        fits not. A password that fitted is known again at no cost while its hash stays.

        Raises:
            Unavailable: too many are waiting.
        """
        proof = self.proof(name, password)
        if kept and self.is_proven(name, password, kept):
            return True
        nobodys = await self._nobody()
        if not await self._turn(self._verify, _normal(password), kept or nobodys) or not kept:
            return False
        self._proven[proof] = kept
        if len(self._proven) > _PROVEN:
            self._proven.popitem(last=False)
        return True

    def is_proven(self, name: str, password: str, kept: str) -> bool:
        """Whether it was found to fit before, by this process; takes microseconds."""
        return bool(kept) and self._proven.get(self.proof(name, password)) == kept

    def proof(self, name: str, password: str) -> bytes:
        """What is remembered of a password that fitted: useless without this process's key."""
        text = name.lower().encode("utf-8", "surrogatepass") + b"\0" + _normal(password)
        return hmac.digest(self._key, text, "sha256")

    def is_outdated(self, kept: str) -> bool:
        """Whether the password should be hashed again with today's parameters."""
        return self._hasher.check_needs_rehash(kept)

    def _verify(self, password: bytes, kept: str) -> bool:
        try:
            return self._hasher.verify(kept, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _nobody(self) -> str:
        """A hash that no password fits, made by the present parameters."""
        if not self._nobodys:
            self._nobodys = await self._turn(self._hasher.hash, secrets.token_bytes(32))
        return self._nobodys

    async def _turn(self, work: Callable[..., T], *values: object) -> T:
        if self._waiting >= _WAITING:
            raise Unavailable("too many sign-ins at once; try again", 2)
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(work, *values)
        finally:
            self._waiting -= 1


def _normal(password: str) -> bytes:
    """The bytes that are hashed. What is far too long to fit is cut, so that it costs no more."""
    text = unicodedata.normalize("NFC", password[: PASSWORD_MAX + 1])
    return text.encode("utf-8", "surrogatepass")
