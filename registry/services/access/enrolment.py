"""Enrolment: a public key finds its account without anybody copying files.

A person's: the refusal of a key that is not known carries a link (`begin_enrolment`), whoever is
signed in opens it, sees the fingerprint and the host that asked (`pending`), and confirms. The
server has seen by then that whoever got the link has the key. A node's: its owner makes a code
(`make_node_code`), the node brings it together with its key (`enrol_node`).
"""

from collections import OrderedDict
from dataclasses import dataclass

from registry.core.access import Right
from registry.core.accounts import check_title, code_key, code_text
from registry.core.errors import NotFound, TooOften
from registry.core.ssh_key import SshKey, fingerprint
from registry.ports.accounts import Code, PublicKey
from registry.ports.catalog import Reader, Transaction
from registry.services.access.account_place import AccountPlace, expect_account, new_code, sha256_of
from registry.services.access.keys import PublicKeyWish, attach

_OPEN_LINKS = 1_000
_GONE = "this code is unknown, used or expired"


@dataclass(frozen=True, slots=True)
class Pending:
    """What a person is asked to confirm."""

    fingerprint: str
    host: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class _Link:
    plain: str
    expires_at: int


class Enrolment(AccountPlace):
    """Codes, each good once and for `credentials.code_s` seconds."""

    _links: OrderedDict[tuple[str, str], _Link]

    async def begin_enrolment(self, key_blob: str, host: str) -> str:
        """A code for the link that lets a signed-in person take the key as theirs.

        Only for a client that has just proved that it has the key. Asking again gives the same
        code while most of its life is left: clients retry, and each code is a row.

        Raises:
            RequestInvalid: it is no key.
            TooOften: too many links are open.
        """
        key = SshKey.parse(key_blob)
        host, now, life = _clean(host), self._clock(), self._settings.credentials.code_s
        link = self._links.get((key.blob, host))
        if link is not None and link.expires_at > self._after(life // 2):
            sha256 = sha256_of(link.plain)  # another process may have seen it used
            if await self._catalog.read(lambda tx: tx.code(sha256)):
                return code_text(link.plain)
        while self._links and next(iter(self._links.values())).expires_at <= now:
            self._links.popitem(last=False)
        if len(self._links) >= _OPEN_LINKS:
            raise TooOften("too many keys wait to be confirmed; try again later", life)
        link = _Link(new_code(), self._after(life))
        code = Code(sha256_of(link.plain), "key", link.expires_at, None, key.blob, host)
        self._links.pop((key.blob, host), None)
        self._links[(key.blob, host)] = link
        await self._catalog.write(lambda tx: tx.put_code(code))
        return code_text(link.plain)

    async def pending(self, code: str) -> Pending:
        """What a link stands for.

        Raises:
            NotFound: it is unknown, used or expired.
        """
        now = self._clock()
        found = await self._catalog.read(lambda tx: _expect(tx, code, "key", now))
        return Pending(fingerprint(found.subject), found.note, found.expires_at)

    async def confirm_enrolment(self, code: str, account_id: int) -> PublicKey:
        """Attach the key of a link to the account of the person who confirmed it.

        Raises:
            NotFound: the link is unknown, used or expired.
            AccountUnknown: there is no such account.
            Conflict: the key belongs to another account, or this one has very many.
        """
        now = self._clock()

        def work(tx: Transaction) -> PublicKey:
            found = _expect(tx, code, "key", now)
            tx.take_code(found.sha256, now)
            wish = PublicKeyWish(found.note[:100], Right.ALL, now)
            return attach(tx, account_id, SshKey.parse(found.subject), wish)

        made = await self._catalog.write(work)
        self._forget_links(made.blob)
        return made

    async def refuse_enrolment(self, code: str) -> None:
        """Make a link void: the person who was asked does not know the key.

        Raises:
            NotFound: the link is unknown, used or expired.
        """
        now = self._clock()

        def work(tx: Transaction) -> str:
            found = _expect(tx, code, "key", now)
            tx.take_code(found.sha256, now)
            return found.subject

        blob = await self._catalog.write(work)
        self._forget_links(blob)

    def _forget_links(self, blob: str) -> None:
        """The next refusal of the key makes a new link: the one it had is used."""
        for asked in [asked for asked in self._links if asked[0] == blob]:
            del self._links[asked]

    async def make_node_code(self, account_id: int) -> str:
        """A code with which a machine attaches its key to the account.

        Raises:
            AccountUnknown: there is no such account.
        """
        plain = new_code()
        code = Code(
            sha256_of(plain), "node", self._after(self._settings.credentials.code_s), account_id
        )

        def work(tx: Transaction) -> None:
            expect_account(tx, account_id)
            tx.put_code(code)

        await self._catalog.write(work)
        return code_text(plain)

    async def enrol_node(self, code: str, key_blob: str, host: str = "") -> PublicKey:
        """Attach a machine's key to the account whose code it brings.

        Raises:
            RequestInvalid: it is no key; the code is still good.
            NotFound: the code is unknown, used or expired.
            Conflict: the key belongs to another account, or this one has very many.
        """
        key, now = SshKey.parse(key_blob), self._clock()
        title = check_title(key.comment or _clean(host)[:100])

        def work(tx: Transaction) -> PublicKey:
            found = _expect(tx, code, "node", now)
            tx.take_code(found.sha256, now)
            return attach(tx, found.account_id or 0, key, PublicKeyWish(title, Right.ALL, now))

        return await self._catalog.write(work)


def _expect(tx: Reader, code: str, purpose: str, now: int) -> Code:
    plain = code_key(code)
    found = tx.code(sha256_of(plain)) if plain else None
    if found is None or found.purpose != purpose or found.expires_at <= now:
        raise NotFound(_GONE)
    return found


def _clean(host: str) -> str:
    """The host's name as it may be shown: clients choose it."""
    return "".join(letter for letter in host if letter.isprintable() and letter.isascii())[:255]
