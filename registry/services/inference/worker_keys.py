"""What workers on other machines prove themselves with.

An administrator makes an enrolment token; a worker brings it once and gets a credential of its own,
good until it is revoked. Both lie among the catalog's codes, as digests: a credential under its
worker's name, so that there is one of each. They are good for links and for nothing else.
"""

import hmac
import re
import secrets
from collections.abc import Callable

from registry.core.accounts import code_key, code_text
from registry.core.errors import Conflict, NotFound, RequestInvalid, Unauthenticated
from registry.ports.accounts import Code
from registry.ports.catalog import Catalog, Reader, Transaction
from registry.services.access.account_place import new_code, sha256_of

_NS = 1_000_000_000
_ONCE, _OFTEN, _KEY = "worker", "workers", "worker-key"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_CREDENTIAL = re.compile(r"rgw_([a-z0-9-]{1,63})\.([A-Za-z0-9_-]{43})")
_FOR_EVER = 1 << 62
_KEPT_NS = 5 * _NS
_MOST_KEPT = 10_000
RESERVED = frozenset({"local"})


class WorkerKeys:
    """Tokens and credentials of workers. `clock` gives nanoseconds since the epoch."""

    def __init__(self, catalog: Catalog, clock: Callable[[], int]) -> None:
        self._catalog = catalog
        self._clock = clock
        self._known: dict[str, tuple[str, int]] = {}

    async def make_token(self, life_s: int, *, reusable: bool = False) -> str:
        """A token that enrols one worker, or any number until it expires."""
        plain = new_code()
        purpose = _OFTEN if reusable else _ONCE
        code = Code(sha256_of(plain), purpose, self._clock() + life_s * _NS)
        await self._catalog.write(lambda tx: tx.put_code(code))
        return code_text(plain)

    async def enrol(self, token: str, name: str) -> str:
        """The credential of a new worker; it is shown this once.

        Raises:
            RequestInvalid: no worker can be called so.
            NotFound: the token is unknown, used or expired.
            Conflict: there is a worker of that name.
        """
        if not _NAME.fullmatch(name) or name in RESERVED:
            raise RequestInvalid(
                f"invalid worker name {name[:80]!r}: up to 63 lower-case letters, digits and '-'"
            )
        secret, now = secrets.token_urlsafe(32), self._clock()
        row = Code(_place(name), _KEY, _FOR_EVER, None, name, sha256_of(secret))

        def work(tx: Transaction) -> None:
            if is_enrolled(tx, name) or any(server.name == name for server in tx.workers()):
                raise Conflict(
                    f"there is a worker called {name} already: choose another name, or revoke it"
                )
            _use(tx, token, now)
            tx.put_code(row)

        await self._catalog.write(work)
        return f"rgw_{name}.{secret}"

    async def name_of(self, credential: str) -> str:
        """Whose credential it is.

        Raises:
            Unauthenticated: nobody's, or it was revoked.
        """
        match = _CREDENTIAL.fullmatch(credential)
        if match is None:
            raise Unauthenticated("a worker's credential is needed")
        name, sha256 = match[1], sha256_of(match[2])
        if not hmac.compare_digest(await self._digest_of(name), sha256):
            raise Unauthenticated("this worker is not enrolled here (any more)")
        return name

    async def revoke(self, name: str) -> bool:
        """Make a worker's credential void; whether it had one."""
        self._known.pop(name, None)
        now = self._clock()
        return await self._catalog.write(lambda tx: forget(tx, name, now))

    async def _digest_of(self, name: str) -> str:
        """Of the secret; kept for seconds, since workers ask often. Empty if there is none."""
        now = self._clock()
        known = self._known.get(name)
        if known is not None and now < known[1]:
            return known[0]
        found = await self._catalog.read(lambda tx: tx.code(_place(name)))
        sha256 = found.note if found is not None and found.purpose == _KEY else ""
        if sha256:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            self._known[name] = (sha256, now + _KEPT_NS)
        return sha256


def is_enrolled(tx: Reader, name: str) -> bool:
    """Whether a worker of that name has a credential."""
    return tx.code(_place(name)) is not None


def forget(tx: Transaction, name: str, now: int) -> bool:
    """Make a worker's credential void; whether it had one. Its link ends within seconds."""
    return tx.take_code(_place(name), now) is not None


def _place(name: str) -> str:
    """Under which the credential of a worker lies."""
    return sha256_of(f"worker {name}")


def _use(tx: Transaction, token: str, now: int) -> None:
    plain = code_key(token)
    found = tx.code(sha256_of(plain)) if plain else None
    if found is None or found.purpose not in {_ONCE, _OFTEN} or found.expires_at <= now:
        raise NotFound("this enrolment token is unknown, used or expired")
    if found.purpose == _ONCE:
        tx.take_code(found.sha256, now)
