"""Users, robots and nodes: made, disabled, deleted; their passwords; the first administrator."""

from dataclasses import replace

from registry.core.accounts import KINDS, check_name, check_password, code_key, code_text
from registry.core.errors import NotFound, RequestInvalid
from registry.ports.accounts import Account, Code
from registry.ports.catalog import Transaction
from registry.services.access.account_place import (
    AccountPlace,
    expect_account,
    expect_another_admin,
    new_code,
    sha256_of,
)

_SETUP_S = 86_400  # whoever starts a service may have lunch before setting it up
_SETUP_USED = "this set-up code is unknown, used or expired; `registry setup-code` makes a new one"


class People(AccountPlace):
    """Accounts by id; `named` finds one by name."""

    async def accounts(self, after: str = "", limit: int = 100) -> list[Account]:
        """Up to `limit` accounts with a name above `after`, by name."""
        return await self._catalog.scan(lambda tx: tx.accounts(after, limit))

    async def create_user(
        self, name: str, password: str | None = None, *, admin: bool = False
    ) -> Account:
        """Add a person. Without a password, they come in with keys only.

        Whoever is called like a namespace owns it: one that is in use becomes theirs.

        Raises:
            NameInvalid: nobody can be called so.
            RequestInvalid: the password is too short or too long.
            Conflict: somebody has the name.
        """
        check_name(name)
        hashed = "" if password is None else await self._passwords.hash(password)
        account = Account(0, "user", name, admin, self._clock(), password_hash=hashed)
        return await self._catalog.write(lambda tx: tx.put_account(account))

    async def create_machine(self, name: str, kind: str = "robot") -> Account:
        """Add a robot or node: without a password and without a namespace of its own.

        Raises:
            NameInvalid: it cannot be called so.
            Conflict: somebody has the name.
        """
        if kind not in KINDS or kind == "user":
            raise RequestInvalid(f"{kind!r} is no kind of machine: known are robot and node")
        account = Account(0, kind, check_name(name, kind), False, self._clock())
        return await self._catalog.write(lambda tx: tx.put_account(account))

    async def set_password(self, account_id: int, password: str) -> None:
        """Give a user a new password, and end their sessions.

        Raises:
            AccountUnknown: there is no such account.
            RequestInvalid: the password is too short or too long, or the account is no person's.
        """
        hashed = await self._passwords.hash(password)

        def work(tx: Transaction) -> None:
            account = expect_account(tx, account_id)
            if account.kind != "user":
                raise RequestInvalid(f"a {account.kind} has no password: give it an API key")
            tx.put_account(replace(account, password_hash=hashed))
            tx.delete_sessions(account_id)

        await self._catalog.write(work)

    async def set_disabled(self, account_id: int, disabled: bool = True) -> Account:
        """Let an account no longer in, or in again; what it has stays.

        Raises:
            AccountUnknown: there is no such account.
            Conflict: it is the last administrator.
        """

        def work(tx: Transaction) -> Account:
            account = expect_account(tx, account_id)
            if disabled and account.is_admin:
                expect_another_admin(tx, account)
            if disabled:
                tx.delete_sessions(account_id)
            return tx.put_account(replace(account, disabled=disabled))

        return await self._catalog.write(work)

    async def set_admin(self, account_id: int, admin: bool = True) -> Account:
        """Let a user administer, or no longer.

        Raises:
            AccountUnknown: there is no such account.
            RequestInvalid: it is no person's.
            Conflict: it is the last administrator.
        """

        def work(tx: Transaction) -> Account:
            account = expect_account(tx, account_id)
            if account.kind != "user":
                raise RequestInvalid(f"a {account.kind} cannot be administrator")
            if account.is_admin and not admin:
                expect_another_admin(tx, account)
            return tx.put_account(replace(account, is_admin=admin))

        return await self._catalog.write(work)

    async def delete_account(self, account_id: int) -> None:
        """Remove an account with its keys, sessions and rules. Its models stay.

        Raises:
            AccountUnknown: there is no such account.
            Conflict: it is the last administrator.
        """

        def work(tx: Transaction) -> None:
            account = expect_account(tx, account_id)
            if account.is_admin:
                expect_another_admin(tx, account)
            tx.delete_account(account_id)

        await self._catalog.write(work)

    async def has_admin(self) -> bool:
        """Whether the service is set up: there is an administrator."""
        return bool(await self._catalog.read(lambda tx: tx.admins()))

    async def ensure_setup_code(self) -> str | None:
        """A one-time code for the first administrator, to be shown to whoever started the service.

        None if authentication is off, or somebody administers already.
        """
        if not self._settings.auth or await self.has_admin():
            return None
        return await self.make_setup_code()

    async def make_setup_code(self) -> str:
        """A new one-time code with which `complete_setup` makes an administrator."""
        plain = new_code()
        code = Code(sha256_of(plain), "setup", self._after(_SETUP_S))
        await self._catalog.write(lambda tx: tx.put_code(code))
        return code_text(plain)

    async def complete_setup(self, code: str, name: str, password: str) -> Account:
        """Make the first administrator. All set-up codes are void then.

        Raises:
            NotFound: the code is unknown, used or expired, or somebody administers already.
            NameInvalid, RequestInvalid, Conflict: see `create_user`; the code is still good.
        """
        plain = code_key(code)
        check_name(name)
        check_password(password)
        if plain is None or not await self._catalog.read(lambda tx: tx.code(sha256_of(plain))):
            raise NotFound(_SETUP_USED)  # before the password costs anything
        hashed = await self._passwords.hash(password)
        account = Account(0, "user", name, True, self._clock(), password_hash=hashed)

        def work(tx: Transaction) -> Account:
            found = tx.code(sha256_of(plain))
            if found is None or found.purpose != "setup" or tx.admins():
                raise NotFound(_SETUP_USED)
            if tx.take_code(found.sha256, self._clock()) is None:
                raise NotFound(_SETUP_USED)
            tx.delete_codes("setup")
            return tx.put_account(account)

        return await self._catalog.write(work)
