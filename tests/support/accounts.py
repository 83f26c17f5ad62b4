"""An accounts service on a database of its own, with a clock that tests turn and cheap hashes."""

import base64
from pathlib import Path

from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from registry.ports.catalog import Catalog
from registry.services.access.accounts import Accounts
from registry.services.access.passwords import Passwords
from registry.settings import Settings
from tests.support.backends import BACKENDS

NS = 1_000_000_000
PASSWORD = "correct horse battery"


class Clock:
    """Time that passes only when told to."""

    def __init__(self, now_s: int = 1_800_000_000) -> None:
        self.now = now_s * NS

    def __call__(self) -> int:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += int(seconds * NS)


def cheap_passwords(time_cost: int = 1) -> Passwords:
    return Passwords(PasswordHasher(time_cost=time_cost, memory_cost=8, parallelism=1))


def new_catalog(folder: Path) -> Catalog:
    return BACKENDS.catalog(folder)


def new_accounts(catalog: Catalog, clock: Clock, time_cost: int = 1) -> Accounts:
    return Accounts(catalog, Settings.load({}, auth=True), clock, cheap_passwords(time_cost))


def key_blob(seed: int) -> str:
    """The public half of the Ed25519 key whose 32 private bytes are all `seed`."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    text = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return text.decode().split()[1]


def wire(raw: bytes) -> str:
    """The base64 wire form of 32 bytes, whatever they are."""
    return base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + raw).decode()
