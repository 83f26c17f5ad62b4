"""What the parts of the accounts service share: where accounts lie, what time it is, secrets."""

import hashlib
import secrets
import string
from collections.abc import Callable

from registry.core.accounts import CODE_ALPHABET, CODE_LENGTH, check_name
from registry.core.errors import AccountUnknown, Conflict
from registry.ports.accounts import Account, AccountReader
from registry.ports.catalog import Catalog
from registry.services.access.passwords import Passwords
from registry.settings import Settings

NS = 1_000_000_000
_ALPHANUMERIC = string.ascii_letters + string.digits
_API_KEY_LENGTH = 40  # 238 bits


class AccountPlace:
    """The root of the parts."""

    def __init__(
        self,
        catalog: Catalog,
        settings: Settings,
        clock: Callable[[], int],
        passwords: Passwords | None = None,
    ) -> None:
        self._catalog = catalog
        self._settings = settings
        self._clock = clock
        self._passwords = passwords or Passwords()

    def _after(self, seconds: int) -> int:
        return self._clock() + seconds * NS

    async def account(self, account_id: int) -> Account:
        """An account by id.

        Raises:
            AccountUnknown: there is none.
        """
        return await self._catalog.read(lambda tx: expect_account(tx, account_id))

    async def named(self, name: str) -> Account:
        """An account by name, any case.

        Raises:
            NameInvalid: nobody can be called so.
            AccountUnknown: nobody is.
        """
        found = await self._catalog.read(lambda tx: tx.account_named(check_name(name)))
        if found is None:
            raise AccountUnknown(name)
        return found


def expect_account(tx: AccountReader, account_id: int) -> Account:
    """An account by id.

    Raises:
        AccountUnknown: there is none.
    """
    found = tx.account(account_id)
    if found is None:
        raise AccountUnknown(f"number {account_id}")
    return found


def expect_another_admin(tx: AccountReader, account: Account) -> None:
    """Make sure that somebody can still administer when `account` no longer does.

    Raises:
        Conflict: it is the last administrator.
    """
    if not any(admin.id != account.id and not admin.disabled for admin in tx.admins()):
        raise Conflict(f"{account.name} is the last administrator; make another one first")


def sha256_of(text: str) -> str:
    """What is kept of a secret text. Those are random and long: nothing slower is needed."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def new_api_key() -> str:
    """A key of the shape that every client takes."""
    return "hf_" + "".join(secrets.choice(_ALPHANUMERIC) for _ in range(_API_KEY_LENGTH))


def new_code() -> str:
    """A one-time code, without the dashes it is shown with."""
    return "".join(secrets.choice(CODE_ALPHABET) for _ in range(CODE_LENGTH))
