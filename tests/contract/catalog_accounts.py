"""What every catalog does with accounts, what they prove themselves with, and their rights."""

import asyncio
import time
from dataclasses import replace

import pytest

from registry.core.access import Group, Policy, Right, Rule, Scope, Visibility
from registry.core.errors import AccountUnknown, Conflict
from registry.ports.accounts import (
    Account,
    ApiKey,
    AuditEntry,
    Code,
    Grant,
    PublicKey,
    Session,
)
from registry.ports.catalog import Catalog, Transaction

FUTURE = 1 << 62


def put(tx: Transaction, name: str, kind: str = "user", admin: bool = False) -> Account:
    return tx.put_account(Account(0, kind, name, admin, 1))


def public_key(account: Account, word: str, at: int = 1) -> PublicKey:
    return PublicKey(f"blob {word}", f"SHA256:{word}", account.id, word, at)


def api_key(account: Account, word: str, expires_at: int | None = None) -> ApiKey:
    return ApiKey(
        word, account.id, "title", "hf_abc", f"sha of {word}", Group.READ, None, 1, expires_at
    )


class PeopleContract:
    async def test_an_account_comes_back_as_it_was_put_by_any_spelling(
        self, catalog: Catalog
    ) -> None:
        given = Account(0, "user", "Alice", True, 7, password_hash="hash")
        made = await catalog.write(lambda tx: tx.put_account(given))
        assert made == replace(given, id=made.id)
        assert made.id > 0
        for look in ("alice", "ALICE", "Alice"):
            assert await catalog.read(lambda tx, n=look: tx.account_named(n)) == made  # type: ignore[misc]
        assert await catalog.read(lambda tx: tx.account(made.id)) == made
        changed = replace(made, disabled=True, is_admin=False, password_hash="")
        assert await catalog.write(lambda tx: tx.put_account(changed)) == changed
        assert await catalog.read(lambda tx: tx.account(made.id)) == changed

    async def test_absent_things_are_none(self, catalog: Catalog) -> None:
        assert await catalog.read(
            lambda tx: [
                tx.account(1), tx.account_named("a"), tx.public_key("b"), tx.api_key("c"),
                tx.find_public_key("d"), tx.find_api_key("e"), tx.session("f"), tx.code("g"),
            ]
        ) == [None] * 8  # fmt: skip

    async def test_one_name_is_one_account(self, catalog: Catalog) -> None:
        outcomes = await asyncio.gather(
            *(catalog.write(lambda tx, n=n: put(tx, n)) for n in ("bob", "Bob", "BOB")),  # type: ignore[misc]
            return_exceptions=True,
        )
        assert [isinstance(one, Conflict) for one in outcomes].count(True) == 2
        second = await catalog.write(lambda tx: put(tx, "carol"))
        with pytest.raises(Conflict):
            await catalog.write(lambda tx: tx.put_account(replace(second, name="BOB")))
        with pytest.raises(Conflict):
            await catalog.write(lambda tx: tx.put_account(Account(99, "user", "new", False, 1)))

    async def test_accounts_are_listed_by_name_and_admins_apart(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            for name in ("b", "A", "c"):
                put(tx, name, admin=name == "c")

        await catalog.write(work)
        names = [one.name for one in await catalog.scan(lambda tx: tx.accounts("", 9))]
        assert names == ["A", "b", "c"]
        names = [one.name for one in await catalog.scan(lambda tx: tx.accounts("A", 1))]
        assert names == ["b"]
        assert [one.name for one in await catalog.read(lambda tx: tx.admins())] == ["c"]

    async def test_with_an_account_goes_all_that_it_has(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> Account:
            account = put(tx, "alice")
            tx.put_public_key(public_key(account, "k"))
            tx.put_api_key(api_key(account, "a"))
            tx.put_session(Session("s", account.id, 1, FUTURE))
            tx.put_code(Code("c", "node", FUTURE, account.id))
            tx.put_grant("user:alice", Rule("team/*", Right.READ))
            tx.set_members(tx.put_team("core").id, [account.id])
            tx.put_account_blob(account.id, "sha256:00", FUTURE)
            return account

        account = await catalog.write(work)
        await catalog.write(lambda tx: tx.delete_account(account.id))
        found = await catalog.read(
            lambda tx: [
                tx.account(account.id),
                tx.public_key("blob k"),
                tx.api_key("sha of a"),
                tx.session("s"),
                tx.code("c"),
                *tx.grants(),
            ]
        )
        assert found == [None] * 5
        assert [team.members for team in await catalog.read(lambda tx: tx.teams())] == [()]
        assert not await catalog.read(lambda tx: tx.has_account_blob(account.id, "sha256:00"))
        again = await catalog.write(lambda tx: put(tx, "alice"))
        assert again.id != account.id  # tokens for the old one must not become the new one's

    async def test_the_version_grows_with_what_decides_and_with_nothing_else(
        self, catalog: Catalog
    ) -> None:
        account = await catalog.write(lambda tx: put(tx, "alice"))
        key, api = public_key(account, "k"), api_key(account, "a")
        deciding = [
            lambda tx: tx.put_account(replace(account, disabled=True)),
            lambda tx: tx.put_public_key(key),
            lambda tx: tx.delete_public_key(key.blob),
            lambda tx: tx.put_api_key(api),
            lambda tx: tx.delete_api_key(api.id),
            lambda tx: tx.delete_session("s"),
            lambda tx: tx.delete_sessions(account.id),
            lambda tx: tx.set_members(tx.put_team("core").id, [account.id]),
            lambda tx: tx.put_grant("users", Rule("a/*", Right.READ)),
            lambda tx: tx.delete_grant(1),
            lambda tx: tx.put_policy(Policy("a/*")),
            lambda tx: tx.delete_policy("a/*"),
            lambda tx: tx.delete_team("core"),
            lambda tx: tx.delete_account(account.id),
        ]
        other = [
            lambda tx: tx.use_api_key(api.id, 5),
            lambda tx: tx.use_public_key(key.blob, 5),
            lambda tx: tx.put_code(Code("c", "setup", FUTURE)),
            lambda tx: tx.use_nonce("k", "n", FUTURE),
            lambda tx: tx.put_audit(AuditEntry(1, "", "", "", "", "", "", "")),
            lambda tx: tx.forget_expired(1),
        ]
        seen = await catalog.read(lambda tx: tx.accounts_version())
        assert seen > 0
        for change in deciding + other:
            await catalog.write(change)
            now = await catalog.read(lambda tx: tx.accounts_version())
            assert (now > seen) == (change in deciding)
            seen = now

    async def test_policies_have_a_version_of_their_own(self, catalog: Catalog) -> None:
        async def version() -> int:
            return await catalog.read(lambda tx: tx.policies_version())

        assert await version() == 0
        await catalog.write(lambda tx: tx.put_policy(Policy("a/*")))
        first = await version()
        await catalog.write(lambda tx: put(tx, "alice"))
        await catalog.write(lambda tx: tx.put_grant("users", Rule("a/*", Right.READ)))
        assert await version() == first > 0
        await catalog.write(lambda tx: tx.put_policy(Policy("a/*", Visibility.PUBLIC)))
        second = await version()
        await catalog.write(lambda tx: tx.delete_policy("a/*"))
        assert await version() > second > first


class CredentialsContract:
    async def test_public_keys_come_back_oldest_first(self, catalog: Catalog) -> None:
        account = await catalog.write(lambda tx: put(tx, "alice"))
        late, early = public_key(account, "late", 9), public_key(account, "early", 2)
        early = replace(early, rights=Right.READ, used_at=8)

        def work(tx: Transaction) -> None:
            for key in (late, early):
                tx.put_public_key(key)

        await catalog.write(work)
        assert await catalog.read(lambda tx: tx.public_keys(account.id)) == [early, late]
        assert await catalog.read(lambda tx: tx.public_key("blob early")) == early
        assert await catalog.read(lambda tx: tx.find_public_key("SHA256:late")) == late
        await catalog.write(lambda tx: tx.use_public_key("blob late", 11))
        used = await catalog.read(lambda tx: tx.public_key("blob late"))
        assert used == replace(late, used_at=11)
        assert await catalog.write(lambda tx: tx.delete_public_key("blob late"))
        assert not await catalog.write(lambda tx: tx.delete_public_key("blob late"))
        await catalog.write(lambda tx: tx.use_public_key("blob late", 12))
        assert await catalog.read(lambda tx: tx.public_key("blob late")) is None

    async def test_a_key_is_one_accounts(self, catalog: Catalog) -> None:
        alice, bob = await catalog.write(lambda tx: (put(tx, "alice"), put(tx, "bob")))
        await catalog.write(lambda tx: tx.put_public_key(public_key(alice, "k")))
        await catalog.write(lambda tx: tx.put_public_key(public_key(alice, "k", 3)))
        for wrong in (bob, replace(alice, id=99)):
            with pytest.raises(Conflict):
                await catalog.write(lambda tx, w=wrong: tx.put_public_key(public_key(w, "k")))  # type: ignore[misc]
        with pytest.raises(Conflict):
            await catalog.write(
                lambda tx: tx.put_public_key(public_key(replace(alice, id=99), "other"))
            )

    async def test_api_keys_come_back_with_scopes_and_groups(self, catalog: Catalog) -> None:
        account = await catalog.write(lambda tx: put(tx, "ci", "robot"))
        plain = api_key(account, "plain")
        narrow = replace(
            api_key(account, "narrow", FUTURE),
            groups=Group.READ | Group.INFER,
            scopes=(Scope("team/*", Right.READ | Right.WRITE), Scope("a/b:c", Right.DELETE)),
            created_at=2,
            used_at=3,
        )

        def work(tx: Transaction) -> None:
            for key in (narrow, plain):
                tx.put_api_key(key)

        await catalog.write(work)
        assert await catalog.read(lambda tx: tx.api_keys(account.id)) == [plain, narrow]
        assert await catalog.read(lambda tx: tx.api_key("sha of narrow")) == narrow
        assert await catalog.read(lambda tx: tx.find_api_key("plain")) == plain
        await catalog.write(lambda tx: tx.use_api_key("plain", 9))
        assert await catalog.read(lambda tx: tx.find_api_key("plain")) == replace(plain, used_at=9)
        assert await catalog.write(lambda tx: tx.delete_api_key("plain"))
        assert not await catalog.write(lambda tx: tx.delete_api_key("plain"))
        with pytest.raises(Conflict):
            await catalog.write(lambda tx: tx.put_api_key(replace(plain, account_id=99)))

    async def test_sessions_end_one_by_one_or_all(self, catalog: Catalog) -> None:
        account = await catalog.write(lambda tx: put(tx, "alice"))
        sessions = [Session(word, account.id, 1, FUTURE) for word in ("a", "b", "c")]

        def work(tx: Transaction) -> None:
            for session in sessions:
                tx.put_session(session)
            tx.delete_session("a")

        await catalog.write(work)
        read = [await catalog.read(lambda tx, w=w: tx.session(w)) for w in "abc"]  # type: ignore[misc]
        assert read == [None, *sessions[1:]]
        await catalog.write(lambda tx: tx.delete_sessions(account.id))
        assert await catalog.read(lambda tx: tx.session("b")) is None
        with pytest.raises(Conflict):
            await catalog.write(lambda tx: tx.put_session(Session("d", 99, 1, 2)))

    async def test_of_many_who_take_a_code_one_gets_it(self, catalog: Catalog) -> None:
        code = Code("c", "key", 10, None, "a key", "a host")
        await catalog.write(lambda tx: tx.put_code(code))
        assert await catalog.read(lambda tx: tx.code("c")) == code
        taken = await asyncio.gather(
            *(catalog.write(lambda tx: tx.take_code("c", 9)) for _ in range(20))
        )
        assert [one for one in taken if one] == [code]
        assert await catalog.read(lambda tx: tx.code("c")) is None

    async def test_codes_expire_and_go_by_purpose(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            tx.put_code(Code("old", "key", 10))
            tx.put_code(Code("setup", "setup", FUTURE))

        await catalog.write(work)
        assert await catalog.write(lambda tx: tx.take_code("old", 10)) is None
        await catalog.write(lambda tx: tx.delete_codes("setup"))
        assert await catalog.read(lambda tx: (tx.code("setup"), tx.code("old"))) == (
            None,
            Code("old", "key", 10),
        )
        with pytest.raises(Conflict):
            await catalog.write(lambda tx: tx.put_code(Code("n", "node", 9, 99)))

    async def test_a_nonce_is_new_once_for_each_key(self, catalog: Catalog) -> None:
        used = await asyncio.gather(
            *(catalog.write(lambda tx: tx.use_nonce("k", "n", FUTURE)) for _ in range(9))
        )
        assert used.count(True) == 1
        assert await catalog.write(lambda tx: tx.use_nonce("k", "m", FUTURE))
        assert await catalog.write(lambda tx: tx.use_nonce("l", "n", FUTURE))


class RightsContract:
    async def test_rules_reach_whom_they_are_for(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> tuple[Account, Account]:
            alice, bob = put(tx, "Alice"), put(tx, "bob")
            tx.set_members(tx.put_team("Core").id, [alice.id])
            subjects = ("everybody", "users", "user:alice", "user:BOB", "team:core")
            for number, subject in enumerate(subjects):
                tx.put_grant(subject, Rule(f"p{number}/*", Right.READ | Right.WRITE))
            return alice, bob

        alice, bob = await catalog.write(work)

        async def patterns(account_id: int | None) -> list[str]:
            rules = await catalog.read(lambda tx: tx.rules_for(account_id))
            assert all(rule.rights == Right.READ | Right.WRITE for rule in rules)
            return [rule.pattern for rule in rules]

        assert await patterns(None) == ["p0/*"]
        assert await patterns(alice.id) == ["p0/*", "p1/*", "p2/*", "p4/*"]
        assert await patterns(bob.id) == ["p0/*", "p1/*", "p3/*"]
        assert await patterns(99) == ["p0/*", "p1/*"]
        grants = await catalog.read(lambda tx: tx.grants())
        assert [one.subject for one in grants] == [
            "everybody", "users", "user:Alice", "user:bob", "team:Core",
        ]  # fmt: skip
        assert await catalog.write(lambda tx: tx.delete_grant(grants[1].id))
        assert not await catalog.write(lambda tx: tx.delete_grant(grants[1].id))
        assert await catalog.write(lambda tx: tx.delete_team("CORE"))
        assert not await catalog.write(lambda tx: tx.delete_team("core"))
        assert await patterns(alice.id) == ["p0/*", "p2/*"]

    async def test_an_equal_rule_is_found_again(self, catalog: Catalog) -> None:
        rule = Rule("a/*", Right.ALL)
        first = await catalog.write(lambda tx: tx.put_grant("users", rule))
        assert first == Grant(first.id, "users", rule)
        assert await catalog.write(lambda tx: tx.put_grant("users", rule)) == first
        assert len(await catalog.read(lambda tx: tx.grants())) == 1
        for subject in ("user:nobody", "team:nobody"):
            with pytest.raises(AccountUnknown):
                await catalog.write(lambda tx, s=subject: tx.put_grant(s, rule))  # type: ignore[misc]

    async def test_the_members_of_a_team_are_replaced(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> list[int]:
            ids = [put(tx, name).id for name in ("c", "A", "b")]
            team = tx.put_team("core")
            assert tx.put_team("CORE") == team
            tx.set_members(team.id, ids)
            return [team.id, *ids]

        team_id, c, _, b = await catalog.write(work)
        (team,) = await catalog.read(lambda tx: tx.teams())
        assert (team.id, team.name, team.members) == (team_id, "core", ("A", "b", "c"))
        await catalog.write(lambda tx: tx.set_members(team_id, [b, b, c]))
        assert (await catalog.read(lambda tx: tx.teams()))[0].members == ("b", "c")
        for wrong in (99, team_id):
            members = [99] if wrong == team_id else [b]
            with pytest.raises(Conflict):
                await catalog.write(lambda tx, w=wrong, m=members: tx.set_members(w, m))  # type: ignore[misc]
        assert (await catalog.read(lambda tx: tx.teams()))[0].members == ("b", "c")

    async def test_a_pattern_has_one_policy(self, catalog: Catalog) -> None:
        policy = Policy("public/*", Visibility.PUBLIC, ("v*", "stable"))
        other = Policy("a/*", Visibility.INTERNAL)

        def work(tx: Transaction) -> None:
            for one in (replace(policy, visibility=Visibility.PRIVATE), policy, other):
                tx.put_policy(one)

        await catalog.write(work)
        assert await catalog.read(lambda tx: tx.policies()) == [other, policy]
        assert await catalog.write(lambda tx: tx.delete_policy("a/*"))
        assert not await catalog.write(lambda tx: tx.delete_policy("a/*"))

    async def test_the_audit_is_read_from_its_newest_end(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            for number in range(9):
                tx.put_audit(
                    AuditEntry(number, f"who {number}", "via", "::1", "put", "t", "done", "r")
                )

        await catalog.write(work)
        newest = await catalog.scan(lambda tx: tx.audit(0, 3))
        assert [one.who for one in newest] == ["who 8", "who 7", "who 6"]
        assert newest[0] == AuditEntry(
            8, "who 8", "via", "::1", "put", "t", "done", "r", newest[0].id
        )
        older = await catalog.scan(lambda tx: tx.audit(newest[-1].id, 3))
        assert [one.at for one in older] == [5, 4, 3]

    async def test_old_entries_of_the_audit_are_dropped_oldest_first(
        self, catalog: Catalog
    ) -> None:
        assert await catalog.scan(lambda tx: tx.audit_start(4, 7)) == 1
        assert await catalog.write(lambda tx: tx.trim_audit(1, 99)) == 0
        for number in range(9):
            entry = AuditEntry(number, "", "", "", "", "", "", "")
            await catalog.write(lambda tx, entry=entry: tx.put_audit(entry))  # type: ignore[misc]
        ids = [one.id for one in reversed(await catalog.scan(lambda tx: tx.audit(0, 99)))]
        for keep, since, first in [(4, 0, 5), (99, 3, 3), (4, 7, 7), (2, 3, 7), (99, -1, 0)]:
            start = await catalog.scan(lambda tx, k=keep, s=since: tx.audit_start(k, s))  # type: ignore[misc]
            assert max(start, ids[0]) == ids[first]
        assert await catalog.scan(lambda tx: tx.audit_start(99, 9)) == ids[-1] + 1
        assert await catalog.write(lambda tx: tx.trim_audit(ids[5], 3)) == 3
        assert await catalog.write(lambda tx: tx.trim_audit(ids[5], 3)) == 2
        assert [one.at for one in await catalog.scan(lambda tx: tx.audit(0, 99))] == [8, 7, 6, 5]

    async def test_a_proof_of_upload_holds_for_its_time_and_account(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> tuple[Account, Account]:
            alice, bob = put(tx, "alice"), put(tx, "bob")
            tx.put_account_blob(alice.id, "sha256:aa", 1)
            tx.put_account_blob(alice.id, "sha256:aa", time.time_ns() + 10**12)
            tx.put_account_blob(alice.id, "sha256:bb", 1)
            return alice, bob

        alice, bob = await catalog.write(work)
        cases = [(alice, "sha256:aa"), (alice, "sha256:bb"), (bob, "sha256:aa")]
        held = [
            await catalog.read(lambda tx, a=a, d=d: tx.has_account_blob(a.id, d))  # type: ignore[misc]
            for a, d in cases
        ]
        assert held == [True, False, False]
        with pytest.raises(Conflict):
            await catalog.write(lambda tx: tx.put_account_blob(99, "sha256:aa", 1))

    async def test_what_ran_out_is_forgotten_and_only_that(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> Account:
            account = put(tx, "alice")
            for word, until in (("old", 10), ("new", 11)):
                tx.use_nonce("k", word, until)
                tx.put_code(Code(word, "key", until))
                tx.put_session(Session(word, account.id, 1, until))
                tx.put_api_key(api_key(account, word, until))
            tx.put_api_key(api_key(account, "forever"))
            tx.forget_expired(10)
            return account

        account = await catalog.write(work)
        assert await catalog.read(lambda tx: (tx.code("old"), tx.session("old"))) == (None, None)
        assert await catalog.read(lambda tx: tx.code("new") and tx.session("new"))
        keys = await catalog.read(lambda tx: tx.api_keys(account.id))
        assert [key.id for key in keys] == ["forever", "new"]
        assert await catalog.write(lambda tx: tx.use_nonce("k", "old", 99))
        assert not await catalog.write(lambda tx: tx.use_nonce("k", "new", 99))


class AccountsContract(PeopleContract, CredentialsContract, RightsContract):
    """All of it."""
