"""The accounts service: people, keys, rights, enrolment, and who a caller is. Put together here.

- people (`people.py`): create_user, create_machine, named, accounts, set_password, set_disabled,
  set_admin, delete_account, has_admin, ensure_setup_code, make_setup_code, complete_setup
- keys (`keys.py`): create_api_key, api_keys, revoke_api_key, add_public_key, public_keys,
  all_public_keys, all_api_keys, remove_public_key
- enrolment (`enrolment.py`): begin_enrolment, pending, confirm_enrolment, make_node_code,
  enrol_node
- rules (`rules.py`): grant, revoke, grants, set_policy, delete_policy, set_team, delete_team,
  teams
- callers (`callers.py`): anonymous, by_password, by_api_key, by_public_key, by_session,
  by_credential, sign_in, sign_out, policies
- here: proofs that an account has a blob; what the housekeeping and the end of the process need
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

from registry.core.digest import Digest
from registry.ports.catalog import Catalog, Transaction
from registry.services.access.attempts import Attempts
from registry.services.access.callers import Callers, Use
from registry.services.access.enrolment import Enrolment
from registry.services.access.keys import Keys
from registry.services.access.passwords import Passwords
from registry.services.access.people import People
from registry.services.access.rules import Rules
from registry.services.sharing.write_behind import WriteBehind
from registry.settings import Settings

_USES_PAUSE_S = 60.0
_USES = 20_000


class Accounts(People, Keys, Rules, Enrolment, Callers):
    """All of it. One per process; other processes may change the same accounts meanwhile."""

    def __init__(
        self,
        catalog: Catalog,
        settings: Settings,
        clock: Callable[[], int],
        passwords: Passwords | None = None,
    ) -> None:
        super().__init__(catalog, settings, clock, passwords)
        self._attempts = Attempts(settings.credentials.tries_per_minute, clock)
        self._uses = WriteBehind(self._write_uses, "key uses", _USES_PAUSE_S, _USES)
        self._links = OrderedDict()
        self._kept = {}
        self._checks = WeakValueDictionary()
        self._marked = {}
        self._policies = (-1, -1, ())
        self._policies_turn = asyncio.Lock()
        self._seen = None
        self._changes = -1

    async def prove_blob(self, account_id: int, digest: Digest) -> None:
        """Remember that the account sent all bytes of a blob: it may use it for a while."""
        until = self._after(self._settings.retention.grace_s)
        await self._catalog.write(lambda tx: tx.put_account_blob(account_id, str(digest), until))

    async def has_proven(self, account_id: int, digest: Digest) -> bool:
        """Whether the account sent the blob itself, not too long ago."""
        return await self._catalog.read(lambda tx: tx.has_account_blob(account_id, str(digest)))

    async def sweep(self) -> None:
        """Forget what ran out: nonces, codes, sessions, proofs, API keys."""
        now = self._clock()
        await self._catalog.write(lambda tx: tx.forget_expired(now))

    async def close(self) -> None:
        """Write what is left of the times of last use."""
        await self._uses.close()

    async def _write_uses(self, uses: Sequence[Use]) -> None:
        def work(tx: Transaction) -> None:
            for use in uses:
                if use.api_key:
                    tx.use_api_key(use.api_key, use.at)
                else:
                    tx.use_public_key(use.public_key, use.at)

        await self._catalog.write(work)
