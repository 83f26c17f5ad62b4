"""Teams, rules and policies: who may do what, as it is written down. `core/access.py` decides."""

from collections.abc import Sequence

from registry.core.access import Policy, Right, Rule, Visibility, check_pattern
from registry.core.accounts import check_name, parse_subject
from registry.core.errors import AccountUnknown, NotFound, RequestInvalid
from registry.ports.accounts import Grant, Team
from registry.ports.catalog import Transaction
from registry.services.access.account_place import AccountPlace

_IMMUTABLE = 20


class Rules(AccountPlace):
    """What administrators write down. All of it holds from the next request on."""

    async def teams(self) -> list[Team]:
        """All teams with their members, by name."""
        return await self._catalog.scan(lambda tx: tx.teams())

    async def set_team(self, name: str, members: Sequence[str]) -> Team:
        """Make a team of just these accounts, or change one.

        Raises:
            NameInvalid: a team cannot be called so.
            AccountUnknown: one of the members is not there; nothing is changed.
        """
        check_name(name, "team")

        def work(tx: Transaction) -> Team:
            ids: dict[int, str] = {}
            for member in members:
                found = tx.account_named(check_name(member))
                if found is None:
                    raise AccountUnknown(member)
                ids[found.id] = found.name
            team = tx.put_team(name)
            tx.set_members(team.id, list(ids))
            return Team(team.id, team.name, tuple(sorted(ids.values(), key=str.lower)))

        return await self._catalog.write(work)

    async def delete_team(self, name: str) -> None:
        """Remove a team and its rules.

        Raises:
            AccountUnknown: there is none.
        """
        check_name(name, "team")
        if not await self._catalog.write(lambda tx: tx.delete_team(name)):
            raise AccountUnknown(name, "team")

    async def grants(self) -> list[Grant]:
        """All rules, by id."""
        return await self._catalog.scan(lambda tx: tx.grants())

    async def grant(self, subject: str, pattern: str, rights: Right) -> Grant:
        """Let `subject` (`user:NAME`, `team:NAME`, `users`, `everybody`) do more.

        Raises:
            RequestInvalid: one of the three cannot be; or everybody would get more than READ.
            AccountUnknown: there is no such user or team.
        """
        parse_subject(subject)
        if not rights:
            raise RequestInvalid("a rule needs at least one right")
        if subject == "everybody" and rights & ~Right.READ:
            raise RequestInvalid("people who did not sign in can be given no right but read")
        rule = Rule(check_pattern(pattern), rights)
        return await self._catalog.write(lambda tx: tx.put_grant(subject, rule))

    async def revoke(self, grant_id: int) -> None:
        """Remove a rule.

        Raises:
            NotFound: there is none with that id.
        """
        if not await self._catalog.write(lambda tx: tx.delete_grant(grant_id)):
            raise NotFound(f"there is no rule {grant_id}")

    async def set_policy(
        self, pattern: str, visibility: Visibility, immutable: Sequence[str] = ()
    ) -> Policy:
        """Say what holds for the repositories that a pattern covers, whoever asks.

        Raises:
            RequestInvalid: a pattern, of repositories or of tags that must not move, is none.
        """
        if len(immutable) > _IMMUTABLE:
            raise RequestInvalid(f"a policy can have up to {_IMMUTABLE} patterns of tags")
        for tag in immutable:
            if "/" in check_pattern(tag):
                raise RequestInvalid(f"invalid tag pattern: {tag[:100]!r}")
        policy = Policy(check_pattern(pattern), visibility, tuple(immutable))
        await self._catalog.write(lambda tx: tx.put_policy(policy))
        return policy

    async def delete_policy(self, pattern: str) -> None:
        """Remove what holds for a pattern.

        Raises:
            NotFound: nothing does.
        """
        if not await self._catalog.write(lambda tx: tx.delete_policy(check_pattern(pattern))):
            raise NotFound(f"there is no policy for {pattern[:100]!r}")
