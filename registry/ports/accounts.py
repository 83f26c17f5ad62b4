"""What the catalog keeps of people, keys and rights; part of the same transactions as the rest.

`AccountReader` and `AccountWriter` are mixed into `Reader` and `Transaction`. Secrets never lie
here: passwords are argon2id hashes, API keys, sessions and codes are SHA-256 digests of random
texts. Times are integer nanoseconds since the epoch; None means never.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from registry.core.access import Group, Policy, Right, Rule, Scope


@dataclass(frozen=True, slots=True)
class Account:
    """A person (`user`), a robot or a node. Names are unique ignoring case, first spelling kept."""

    id: int
    kind: str  # user, robot, node
    name: str
    is_admin: bool
    created_at: int
    disabled: bool = False
    password_hash: str = ""  # argon2id, "" for accounts without a password


@dataclass(frozen=True, slots=True)
class Team:
    """A named set of accounts."""

    id: int
    name: str
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 key that an Ollama client signs with. `blob` is the 68-character base64 text."""

    blob: str
    fingerprint: str  # SHA256:…, as OpenSSH prints it
    account_id: int
    title: str
    created_at: int
    used_at: int | None = None
    rights: Right = Right.ALL  # a read-only key carries READ


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key. Its text is shown once; `hint` is its beginning, for lists."""

    id: str
    account_id: int
    title: str
    hint: str
    sha256: str
    groups: Group
    scopes: tuple[Scope, ...] | None
    created_at: int
    expires_at: int | None
    used_at: int | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A sign-in on the page."""

    sha256: str
    account_id: int
    created_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Grant:
    """A rule and whom it is for: `user:alice`, `team:core`, `users` (signed in) or `everybody`."""

    id: int
    subject: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class Code:
    """A one-time code or link.

    `purpose`: `setup` makes the first admin, `key` attaches `subject` (a public key) to whoever
    confirms, `node` attaches the key of whoever brings the code to `account_id`. `worker`,
    `workers` and `worker-key` are tokens for one worker and for many, and the credential of one
    (`services/inference/worker_keys.py`).
    """

    sha256: str
    purpose: str
    expires_at: int
    account_id: int | None = None
    subject: str = ""
    note: str = ""  # for `key`: the host that the client asked from


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what, from where, with which result. Never holds a secret."""

    at: int
    who: str
    via: str
    address: str
    action: str
    target: str
    result: str
    request_id: str
    id: int = 0


class AccountReader(Protocol):
    """What a read function may ask."""

    def account(self, account_id: int) -> Account | None:
        """An account by id."""

    def account_named(self, name: str) -> Account | None:
        """An account by name, any case."""

    def accounts(self, after: str, limit: int) -> list[Account]:
        """Up to `limit` accounts with a name above `after`, by lower-case name."""

    def admins(self) -> list[Account]:
        """All administrators, disabled ones too."""

    def accounts_version(self) -> int:
        """A number that grows with every change of what a caller may do or prove."""

    def teams(self) -> list[Team]:
        """All teams with their members, by name."""

    def public_key(self, blob: str) -> PublicKey | None:
        """A key by its base64 text."""

    def find_public_key(self, fingerprint: str) -> PublicKey | None:
        """A key by its fingerprint."""

    def public_keys(self, account_id: int) -> list[PublicKey]:
        """The keys of an account, oldest first."""

    def api_key(self, sha256: str) -> ApiKey | None:
        """A key by the digest of its text, expired or not."""

    def find_api_key(self, key_id: str) -> ApiKey | None:
        """A key by id, expired or not."""

    def api_keys(self, account_id: int) -> list[ApiKey]:
        """The API keys of an account, oldest first."""

    def session(self, sha256: str) -> Session | None:
        """A session by the digest of its cookie, expired or not."""

    def code(self, sha256: str) -> Code | None:
        """A code that was not used, expired or not."""

    def grants(self) -> list[Grant]:
        """All rules, by id."""

    def rules_for(self, account_id: int | None) -> list[Rule]:
        """The rules that hold for an account: its own, its teams', those for users and everybody.

        For None only those for everybody.
        """

    def policies(self) -> list[Policy]:
        """All policies, by pattern."""

    def policies_version(self) -> int:
        """A number that grows with every change of policies, and of nothing else."""

    def audit(self, before: int, limit: int) -> list[AuditEntry]:
        """Up to `limit` entries with an id below `before` (0: the newest), newest first."""

    def audit_start(self, keep: int, since: int) -> int:
        """The id of the first entry to keep: one of the newest `keep`, and no older than `since`.

        Entries are taken to be in the order of their times.
        """

    def has_account_blob(self, account_id: int, digest: str) -> bool:
        """Whether the account uploaded the blob itself and the proof still holds."""


class AccountWriter(AccountReader, Protocol):
    """What a write function may do besides."""

    def put_account(self, account: Account) -> Account:
        """Add an account (`id` 0: a new one, which is returned) or overwrite its row.

        Raises:
            Conflict: another account has the name.
        """

    def delete_account(self, account_id: int) -> None:
        """Remove an account with its keys, sessions, memberships and rules."""

    def put_team(self, name: str) -> Team:
        """Find a team or make it."""

    def set_members(self, team_id: int, account_ids: Sequence[int]) -> None:
        """Replace a team's members.

        Raises:
            Conflict: the team or an account is not there (any more).
        """

    def delete_team(self, name: str) -> bool:
        """Remove a team and its rules; False if there is none."""

    def put_public_key(self, key: PublicKey) -> None:
        """Add a key, or overwrite its row.

        Raises:
            Conflict: it belongs to another account, or the account is not there (any more).
        """

    def use_public_key(self, blob: str, at: int) -> None:
        """Note when the key was last used; one that was removed stays so."""

    def delete_public_key(self, blob: str) -> bool:
        """Remove a key; False if there is none."""

    def put_api_key(self, key: ApiKey) -> None:
        """Add a key, or overwrite its row.

        Raises:
            Conflict: the account is not there (any more).
        """

    def use_api_key(self, key_id: str, at: int) -> None:
        """Note when the key was last used; one that was removed stays so."""

    def delete_api_key(self, key_id: str) -> bool:
        """Remove a key; False if there is none."""

    def put_session(self, session: Session) -> None:
        """Add a session."""

    def delete_session(self, sha256: str) -> None:
        """End a session."""

    def delete_sessions(self, account_id: int) -> None:
        """End all sessions of an account."""

    def put_code(self, code: Code) -> None:
        """Add a code."""

    def take_code(self, sha256: str, now: int) -> Code | None:
        """Use up a code: it is returned once, and only while it has not expired."""

    def delete_codes(self, purpose: str) -> None:
        """Take all codes for a purpose out of use."""

    def put_grant(self, subject: str, rule: Rule) -> Grant:
        """Add a rule; an equal one is found again.

        Raises:
            AccountUnknown: `subject` names a user or team that is not there.
        """

    def delete_grant(self, grant_id: int) -> bool:
        """Remove a rule; False if there is none."""

    def put_policy(self, policy: Policy) -> None:
        """Set what holds for a pattern."""

    def delete_policy(self, pattern: str) -> bool:
        """Remove it; False if there is none."""

    def use_nonce(self, key: str, nonce: str, until: int) -> bool:
        """Remember a nonce until then; False if it was used before."""

    def put_audit(self, entry: AuditEntry) -> None:
        """Add an entry; its `id` is chosen here."""

    def trim_audit(self, start: int, limit: int) -> int:
        """Drop up to `limit` entries with an id below `start`, oldest first; return how many."""

    def put_account_blob(self, account_id: int, digest: str, until: int) -> None:
        """The account proved that it has the bytes: it sent them all."""

    def forget_expired(self, now: int) -> None:
        """Remove nonces, codes, sessions, upload proofs and API keys that ran out."""
