"""Who may do what: callers, rights, the rules that give them. Every decision is made here.

A caller has rights on repositories through rules: a rule names a subject (an account, a team,
everybody signed in, everybody), a pattern of repository paths and a set of rights. A namespace that
is called like a user is that user's own. Besides, a repository's visibility lets everybody signed
in (`internal`) or everybody (`public`) read it; what no policy mentions is private.

What a credential may be used for can be narrower than what its owner may do: an API key or a token
carries endpoint groups and scopes, and both must allow.

Source: spec registry-protocol 4.1 (scopes), 8.3; the rights' names are this project's.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, Flag, auto
from functools import lru_cache
from typing import Self, TypeVar

from registry.core.errors import RequestInvalid
from registry.core.names import RepositoryName

F = TypeVar("F", bound=Flag)


class Right(Flag):
    """What can be done with a repository."""

    NONE = 0
    READ = auto()  # manifests, blobs, tags; seeing that it exists
    CREATE_TAG = auto()  # upload blobs, put manifests, make tags that are new
    MOVE_TAG = auto()  # point an existing tag elsewhere
    DELETE = auto()  # tags, manifests, blob links
    MANAGE = auto()  # its rules and visibility

    WRITE = CREATE_TAG | MOVE_TAG
    ALL = READ | CREATE_TAG | MOVE_TAG | DELETE | MANAGE


class Group(Flag):
    """Endpoint groups of the HTTP API, for credentials that are for one kind of use."""

    NONE = 0
    INFER = auto()
    READ = auto()
    WRITE = auto()
    ADMIN = auto()

    ALL = INFER | READ | WRITE | ADMIN


class Visibility(Enum):
    """Who may read a repository without a rule."""

    PRIVATE = "private"
    INTERNAL = "internal"  # everybody signed in
    PUBLIC = "public"  # everybody


RIGHT_NAMES = {
    "read": Right.READ,
    "create": Right.CREATE_TAG,
    "move": Right.MOVE_TAG,
    "write": Right.WRITE,
    "delete": Right.DELETE,
    "manage": Right.MANAGE,
    "all": Right.ALL,
}
GROUP_NAMES = {
    "infer": Group.INFER,
    "read": Group.READ,
    "write": Group.WRITE,
    "admin": Group.ADMIN,
    "all": Group.ALL,
}
_ACTIONS = {"pull": Right.READ, "push": Right.WRITE, "delete": Right.DELETE}  # of scopes
_PATTERN = re.compile(r"[A-Za-z0-9_.:*-]+(/[A-Za-z0-9_.:*-]+){0,8}")


def parse_rights(text: str) -> Right:
    """Read `read,write`.

    Raises:
        RequestInvalid: a word that is none of `RIGHT_NAMES`.
    """
    return _words(text, RIGHT_NAMES, Right.NONE, "right")


def parse_groups(text: str) -> Group:
    """Read `infer,read`.

    Raises:
        RequestInvalid: a word that is none of `GROUP_NAMES`.
    """
    return _words(text, GROUP_NAMES, Group.NONE, "endpoint group")


def _words(text: str, names: Mapping[str, F], none: F, what: str) -> F:
    found = none
    for word in filter(None, (part.strip().lower() for part in text.split(","))):
        if word not in names:
            raise RequestInvalid(f"unknown {what} {word[:40]!r}: known are {', '.join(names)}")
        found |= names[word]
    return found


def right_words(rights: Right) -> list[str]:
    """The words for a set of rights, the shortest list of them."""
    if rights == Right.ALL:
        return ["all"]
    hidden = {"all", "create", "move"} if rights & Right.WRITE == Right.WRITE else {"all"}
    return [
        word
        for word, right in RIGHT_NAMES.items()
        if word not in hidden and rights & right == right
    ]


def group_words(groups: Group) -> list[str]:
    """The words for a set of endpoint groups."""
    if groups == Group.ALL:
        return ["all"]
    return [
        word for word, group in GROUP_NAMES.items() if word != "all" and groups & group == group
    ]


def check_pattern(text: str) -> str:
    """Return `text` if it is a pattern of repository paths: `team/*`, `team/llama`, `*`.

    `*` stands for any characters but a slash, a last `*` for any rest.

    Raises:
        RequestInvalid: it is none.
    """
    if len(text) > 255 or not _PATTERN.fullmatch(text) or text.count("*") > 4:
        raise RequestInvalid(f"invalid repository pattern: {text[:100]!r}")
    return text.lower()


@lru_cache(4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    head, tail = (pattern[:-1], ".*") if pattern.endswith("*") else (pattern, "")
    return re.compile("[^/]*".join(re.escape(part) for part in head.split("*")) + tail)


def matches(pattern: str, name: RepositoryName) -> bool:
    """Whether a pattern (as `check_pattern` returned it) covers a repository."""
    return _compiled(pattern).fullmatch(name.key) is not None


@dataclass(frozen=True, slots=True)
class Rule:
    """Rights on the repositories that a pattern covers."""

    pattern: str
    rights: Right


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for the repositories that a pattern covers, whoever asks.

    Tags that match one of `immutable` can be made and not moved.
    """

    pattern: str
    visibility: Visibility = Visibility.PRIVATE
    immutable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """Rights that a token or API key carries: narrower than or equal to its owner's."""

    pattern: str
    rights: Right


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `account` is None for somebody who did not sign in.

    `rules` are those of the account, of its teams, of everybody signed in and of everybody.
    `scopes` None: the credential is not narrowed.
    """

    account: int | None = None
    name: str = ""
    is_admin: bool = False
    rules: tuple[Rule, ...] = ()
    groups: Group = Group.ALL
    scopes: tuple[Scope, ...] | None = None
    via: str = "anonymous"  # for the audit: which kind of credential
    own: tuple[str, ...] = field(default=())  # namespaces that are the caller's own

    @property
    def is_signed_in(self) -> bool:
        """Whether it is somebody we know."""
        return self.account is not None

    def narrowed(self, scopes: Iterable[Scope], groups: Group) -> Self:
        """The same caller with a credential that carries less."""
        return type(self)(
            self.account, self.name, self.is_admin, self.rules, self.groups & groups,
            tuple(scopes), self.via, self.own,
        )  # fmt: skip


EVERYTHING = Caller(account=0, name="", is_admin=True, via="no authentication")
"""The caller while authentication is off."""


def rights_of(caller: Caller, name: RepositoryName, policies: Iterable[Policy] = ()) -> Right:
    """Everything the caller may do with a repository."""
    held = Right.ALL if caller.is_admin else Right.NONE
    if name.key.partition("/")[0] in caller.own and name.key.count("/") == 1:
        held |= Right.ALL
    for rule in caller.rules:
        if matches(rule.pattern, name):
            held |= rule.rights
    visibility = policy_of(name, policies).visibility
    if visibility is Visibility.PUBLIC or (
        visibility is Visibility.INTERNAL and caller.is_signed_in
    ):
        held |= Right.READ
    if caller.scopes is None:
        return held
    carried = Right.NONE
    for scope in caller.scopes:
        if matches(scope.pattern, name):
            carried |= scope.rights
    return held & carried


def policy_of(name: RepositoryName, policies: Iterable[Policy]) -> Policy:
    """The policy that holds: the one with the longest pattern among those that cover it."""
    found = [policy for policy in policies if matches(policy.pattern, name)]
    return max(found, key=lambda policy: (len(policy.pattern), policy.pattern), default=Policy("*"))


def is_immutable(tag: str, policy: Policy) -> bool:
    """Whether a tag of a repository under that policy must not move."""
    return any(_compiled(pattern.lower()).fullmatch(tag.lower()) for pattern in policy.immutable)


@dataclass(frozen=True, slots=True)
class ScopeRequest:
    """One scope that a client asks a token for: `repository:team/llama:pull,push`."""

    type: str
    name: str
    actions: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read one scope; None if it is none. The name may hold a colon (`host:port/…`)."""
        kind, colon, rest = text.partition(":")
        name, colon2, actions = rest.rpartition(":")
        if not (colon and colon2 and name) or len(text) > 1024:
            return None
        kind = kind.partition("(")[0]
        return cls(kind, name, tuple(dict.fromkeys(filter(None, actions.split(",")))))

    @property
    def rights(self) -> Right:
        """The rights that the actions stand for; unknown actions stand for none."""
        if "*" in self.actions:
            return Right.READ | Right.WRITE | Right.DELETE
        wanted = Right.NONE
        for action in self.actions:
            wanted |= _ACTIONS.get(action, Right.NONE)
        return wanted


def granted_actions(wanted: ScopeRequest, held: Right) -> list[str]:
    """Those of the asked actions that the held rights cover, in the asked order.

    `push` is granted to whoever may at least make new tags; whether one may move is asked later.
    """
    covered = {
        "pull": Right.READ in held,
        "push": Right.CREATE_TAG in held,
        "delete": Right.DELETE in held,
    }
    asked = ("pull", "push", "delete") if "*" in wanted.actions else wanted.actions
    return [action for action in asked if covered.get(action, False)]
