"""Rights, asked often: what `core/access.py` decides, over policies that are kept ready.

A repository has one policy of its own at most, so those without a wildcard lie in a table; what is
left to compare are the few with one. A check then costs the same however many repositories, and
policies about them, there are.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from registry.core.access import Caller, Policy, Right, is_immutable, policy_of, rights_of
from registry.core.digest import Digest
from registry.core.errors import Denied, TagImmutable
from registry.core.names import RepositoryName

_CALLERS = 1_000
_NAMES = 10_000


@dataclass(frozen=True, eq=False)
class Policies:
    """The policies at one moment. Equal to itself alone."""

    wide: tuple[Policy, ...] = ()
    own: dict[str, Policy] = field(default_factory=dict)  # by pattern, which is a repository's key
    _held: dict[int, tuple[Caller, dict[str, Right]]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, policies: Sequence[Policy]) -> "Policies":
        """Sort them."""
        wide = tuple(policy for policy in policies if "*" in policy.pattern)
        own = {policy.pattern: policy for policy in policies if "*" not in policy.pattern}
        return cls(wide, own)

    def about(self, name: RepositoryName) -> tuple[Policy, ...]:
        """Those that may cover a repository."""
        own = self.own.get(name.key)
        return self.wide if own is None else (own, *self.wide)

    def rights(self, caller: Caller, name: RepositoryName) -> Right:
        """Everything the caller may do with a repository.

        Remembered by the caller object: whoever finds callers gives out the same one until
        something changes, and a new one then.
        """
        known = self._held.get(id(caller))
        if known is None or known[0] is not caller:
            if len(self._held) >= _CALLERS:
                self._held.clear()
            known = self._held[id(caller)] = caller, {}
        rights = known[1].get(name.key)
        if rights is None:
            if len(known[1]) >= _NAMES:
                known[1].clear()
            rights = known[1][name.key] = rights_of(caller, name, self.about(name))
        return rights

    def guard(self, rights: Right, name: RepositoryName, who: str = "") -> "TagGuard":
        """What somebody with these rights may do with the repository's tags."""
        return TagGuard(rights, policy_of(name, self.about(name)), who)

    def reader(self, caller: Caller) -> Callable[[RepositoryName], bool] | None:
        """Tells which repositories the caller may read; None if that is every one."""
        scopes = caller.scopes
        is_open = scopes is None or any(
            scope.pattern == "*" and Right.READ in scope.rights for scope in scopes
        )
        wide = caller.is_admin or any(
            rule.pattern == "*" and Right.READ in rule.rights for rule in caller.rules
        )
        if is_open and wide:
            return None
        return lambda name: Right.READ in self.rights(caller, name)


@dataclass(frozen=True, slots=True)
class TagGuard:
    """Decides about each tag that a write touches, inside its transaction.

    Only there it is known whether a tag is made or moved.
    """

    rights: Right = Right.ALL
    policy: Policy = Policy("*")  # noqa: RUF009 - a value
    who: str = ""  # for the tags' history

    def put(self, tag: str, old: Digest | None, new: Digest) -> None:
        """Let a tag be pointed at `new`; a repeated put changes nothing and is fine.

        Raises:
            Denied: the caller may not make it, or not move it.
            TagImmutable: nobody may move it.
        """
        if old is None:
            if Right.CREATE_TAG not in self.rights:
                raise Denied(f"you may not make the tag {tag} here")
        elif old != new:
            if is_immutable(tag, self.policy):
                raise TagImmutable(f"the tag {tag} is immutable: choose another one")
            if Right.MOVE_TAG not in self.rights:
                raise Denied(f"the tag {tag} exists, and you may not move it")

    def delete(self, tag: str) -> None:
        """Let a tag be deleted; an immutable one only by who manages the repository.

        Raises:
            Denied, TagImmutable: it may not.
        """
        if Right.DELETE not in self.rights:
            raise Denied(f"you may not delete the tag {tag}")
        if is_immutable(tag, self.policy) and Right.MANAGE not in self.rights:
            raise TagImmutable(f"the tag {tag} is immutable: only a manager may delete it")


FREE = TagGuard()
"""Lets everything happen: no authentication, or work of the service itself."""

Usable = Callable[[Digest], Awaitable[bool]]
"""Whether the caller may use a blob that is here: reads it somewhere, or has sent it."""


@dataclass(frozen=True, slots=True)
class Permit:
    """What goes with a model that is being made: about its tag, and about blobs that are here.

    Blobs that the caller may not use are as good as absent: known by their digest alone, they
    could otherwise be had by making a model of them. `usable` None: all may be used.
    """

    guard: TagGuard = FREE
    usable: Usable | None = None

    async def allows(self, digest: Digest) -> bool:
        """Whether a blob may be used, if it is here."""
        return self.usable is None or await self.usable(digest)


ANY = Permit()
"""No limits."""
