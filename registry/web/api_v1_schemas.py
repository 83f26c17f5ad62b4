"""What `/api/v1` takes and gives, as pydantic models; the OpenAPI document is made of them.

Requests refuse fields they do not know: nobody becomes an administrator by a field more. Texts hold
no control characters. Times are RFC 3339 in UTC.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    SecretStr,
    StringConstraints,
    TypeAdapter,
)

from registry.core.accounts import PASSWORD_MAX, PASSWORD_MIN

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,79}$"
PATTERN = r"^[A-Za-z0-9_.:*-]+(/[A-Za-z0-9_.:*-]+){0,8}$"
SUBJECT = r"^(?:users|(?:user|team):[A-Za-z0-9][A-Za-z0-9_-]{0,79})$"
TITLE = r"^[^\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]*$"
TEN_YEARS_S = 315_360_000
BIGGEST = (1 << 63) - 1

Name = Annotated[str, StringConstraints(pattern=NAME)]
Title = Annotated[str, StringConstraints(pattern=TITLE, max_length=100)]
Pattern = Annotated[str, StringConstraints(pattern=PATTERN, max_length=255)]
Subject = Annotated[str, StringConstraints(pattern=SUBJECT)]
TagPattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.*-]+$", max_length=128)]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^SHA256:[A-Za-z0-9+/]{43}$")]
TokenId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Secret = Annotated[SecretStr, Field(min_length=1, max_length=PASSWORD_MAX)]
NewPassword = Annotated[SecretStr, Field(min_length=PASSWORD_MIN, max_length=PASSWORD_MAX)]
RightWord = Literal["read", "create", "move", "write", "delete", "manage", "all"]
GroupWord = Literal["infer", "read", "write", "admin", "all"]
Kind = Literal["user", "robot", "node"]


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 60.0 is an integer too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Seconds = Annotated[int, Field(ge=1, le=TEN_YEARS_S), BeforeValidator(_whole)]

PATH_PARTS: dict[str, TypeAdapter[Any]] = {
    "user": TypeAdapter(Name),
    "team": TypeAdapter(Name),
    "token": TypeAdapter(TokenId),
    "worker": TypeAdapter(
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
    ),
    "job": TypeAdapter(Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]),
    "grant": TypeAdapter(Annotated[int, Field(ge=1, le=BIGGEST)]),
}


class Ask(BaseModel):
    """A body or a query."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """What is answered."""

    model_config = ConfigDict(frozen=True)


class ErrorAnswer(Answer):
    """What went wrong, in one sentence."""

    error: str


class NoQuery(Ask):
    """No parameter."""


class Page(Ask):
    """Where a list begins and how long it may be."""

    after: Name | None = Field(None, description="`next` of the page before")
    limit: int = Field(100, ge=1, le=1000)


class AuditPage(Ask):
    """Where the audit begins and how long it may be; newest first."""

    after: int | None = Field(None, ge=1, le=BIGGEST, description="`next` of the page before")
    limit: int = Field(100, ge=1, le=1000)


class OfUser(Ask):
    """Whose things: one's own, or (for administrators) those of somebody else."""

    user: Name | None = None


class OneKey(OfUser):
    """A public key."""

    fingerprint: Fingerprint


class OnePattern(Ask):
    """A policy."""

    pattern: Pattern


class SetupAsk(Ask):
    """The first administrator."""

    code: str = Field(min_length=1, max_length=200, description="what the service printed")
    name: Name
    password: NewPassword


class SignInAsk(Ask):
    """A name and a password."""

    name: str = Field(min_length=1, max_length=80)
    password: Secret


class Me(Answer):
    """The caller. `groups` are those that the credential may be used for."""

    name: str
    is_admin: bool
    groups: list[GroupWord]
    via: str
    teams: list[str]


class User(Answer):
    """An account."""

    name: str
    kind: Kind
    is_admin: bool
    disabled: bool
    created_at: datetime


class Users(Answer):
    """A page of accounts, by name."""

    users: list[User]
    next: str | None


class NewPerson(Ask):
    """A user. Without a password they can only use keys."""

    name: Name
    kind: Literal["user"] = "user"
    password: NewPassword | None = None
    is_admin: bool = False


class NewMachine(Ask):
    """A robot or node: no password, no namespace of its own."""

    name: Name
    kind: Literal["robot", "node"]


class NewUser(RootModel[NewPerson | NewMachine]):
    """An account to be made."""


class UserChange(Ask):
    """What is to be different; what is left out stays."""

    is_admin: bool | None = None
    disabled: bool | None = None


class PasswordChange(Ask):
    """A new password; who changes their own proves the old one."""

    password: NewPassword
    old_password: Secret | None = None


class Team(Answer):
    """A set of accounts."""

    name: str
    members: list[str]


class Teams(Answer):
    """All teams, by name."""

    teams: list[Team]


class Members(Ask):
    """Who is in a team, all of them."""

    members: list[Name] = Field(max_length=1000)


class PublicKey(Answer):
    """A key that an Ollama client signs with."""

    fingerprint: str
    title: str
    rights: list[RightWord]
    created_at: datetime
    used_at: datetime | None


class PublicKeys(Answer):
    """The public keys of an account, oldest first."""

    keys: list[PublicKey]


class NewPublicKey(Ask):
    """A key to be added: the line of `~/.ollama/id_ed25519.pub`."""

    key: str = Field(min_length=1, max_length=1000)
    title: Title = ""
    rights: list[RightWord] = Field(default=["all"], min_length=1, max_length=7)
    user: Name | None = Field(None, description="for whom; administrators only")


class Enrolment(Ask):
    """A machine's key, and the one-time code that was made for it."""

    code: str = Field(min_length=1, max_length=100)
    key: str = Field(min_length=1, max_length=1000, description="the line of id_ed25519.pub")


class ScopeText(Answer):
    """Rights on the repositories of a pattern."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: Pattern
    rights: list[RightWord] = Field(min_length=1, max_length=7)


class Token(Answer):
    """An API key, without its text. `scopes` null: not narrowed to repositories."""

    id: str
    title: str
    hint: str
    groups: list[GroupWord]
    scopes: list[ScopeText] | None
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None


class MadeToken(Token):
    """An API key that was just made. Its text is in no other answer."""

    token: str


class Tokens(Answer):
    """The API keys of an account, oldest first."""

    tokens: list[Token]


class NewToken(Ask):
    """An API key to be made. `expires_in_s` null: it does not expire."""

    title: Title
    groups: list[GroupWord] = Field(default=["all"], min_length=1, max_length=5)
    scopes: list[ScopeText] | None = Field(None, min_length=1, max_length=50)
    expires_in_s: Seconds | None = None
    user: Name | None = Field(None, description="for whom; administrators only")


class Grant(Answer):
    """Rights of a subject on the repositories of a pattern."""

    id: int
    subject: str
    pattern: str
    rights: list[RightWord]


class Grants(Answer):
    """All grants, by id."""

    grants: list[Grant]


class SomebodysGrant(Ask):
    """For `user:NAME`, `team:NAME` or `users`: everybody signed in."""

    subject: Subject
    pattern: Pattern
    rights: list[RightWord] = Field(min_length=1, max_length=7)


class EverybodysGrant(Ask):
    """For everybody, signed in or not: reading and nothing else."""

    subject: Literal["everybody"]
    pattern: Pattern
    rights: list[Literal["read"]] = Field(min_length=1, max_length=7)


class NewGrant(RootModel[SomebodysGrant | EverybodysGrant]):
    """A grant to be made."""


class Policy(Ask):
    """What holds for the repositories of a pattern. Tags that match `immutable` do not move."""

    pattern: Pattern
    visibility: Literal["private", "internal", "public"] = "private"
    immutable: list[TagPattern] = Field(default=[], max_length=20)


class Policies(Answer):
    """All policies, by pattern."""

    policies: list[Policy]


class UrlRotation(Ask):
    """How the key of direct URLs is replaced."""

    revoke: bool = Field(False, description="URLs that were given out are void at once")


class AuditEntry(Answer):
    """Who did what, from where, with which result."""

    id: int
    at: datetime
    who: str
    via: str
    address: str
    action: str
    target: str
    result: str
    request_id: str


class Audit(Answer):
    """A page of the audit, newest first."""

    entries: list[AuditEntry]
    next: int | None
