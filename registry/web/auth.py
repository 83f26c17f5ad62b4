"""Who asks, and may they: decisions about callers, and the challenge of a refusal.

Every handler that needs a right asks here: `authorize` for a repository, `require` for an endpoint
group, `may` where a refusal must look like absence. While `settings.auth` is off everybody is
`EVERYTHING` and nothing is looked up.

401 is answered only where other credentials could help: none were sent, they are not true (any
more), or a token is narrower than its owner. Whoever is known and may not gets 403, before anything
is looked up, so that what is absent and what is forbidden look alike, in time too.

Source: spec registry-protocol 1.4, 4, 8.3, 8.4.
"""

from starlette.requests import Request

from registry.core.access import EVERYTHING, Caller, Group, Right
from registry.core.challenge import INSUFFICIENT_SCOPE, INVALID_TOKEN, Challenge
from registry.core.digest import Digest
from registry.core.errors import Denied, RegistryError, Unauthenticated
from registry.core.names import RepositoryName
from registry.services import Services
from registry.services.access.rights import FREE, TagGuard, Usable
from registry.services.access.tokens import Access
from registry.services.library.listing import View
from registry.services.library.name_pages import Readable
from registry.web.auditing import DENIED, note
from registry.web.credentials import Auth, Challenged, service_name
from registry.web.credentials import Evidence as Evidence
from registry.web.urls import external_base

CATALOG = Access("registry", "catalog", ("*",))

_OFF = Evidence(EVERYTHING, EVERYTHING)


def auth_of(request: Request) -> Auth:
    """The application's."""
    found: Auth = request.app.state.auth
    return found


def is_off(request: Request) -> bool:
    """Whether everybody may do everything."""
    return not request.app.state.services.settings.auth


async def evidence(request: Request) -> Evidence:
    """What the credentials prove. See `Auth.evidence`."""
    if is_off(request):
        return _OFF
    return await auth_of(request).evidence(request)


async def proves(request: Request) -> bool:
    """Whether the credentials are good now; for answers that are kept ready."""
    try:
        await evidence(request)
    except RegistryError:  # the handler says what is wrong
        return False
    return True


async def caller(request: Request) -> Caller:
    """Who asks.

    Raises:
        Unauthenticated: the credentials are not true.
    """
    return (await evidence(request)).caller


async def require(request: Request, group: Group) -> Caller:
    """The caller, if the credentials are for that kind of endpoint.

    Raises:
        Unauthenticated: somebody we know might.
        Denied: they are for other kinds.
        TooOften: there were too many requests.
    """
    found = (await evidence(request)).caller
    if not is_off(request):
        auth_of(request).admit_request(request, found)
    if group in found.groups:
        return found
    if not found.is_signed_in:
        raise Challenged("sign in: this needs an API key, or a key known here")
    note(request, f"{request.method} {request.url.path}", "", DENIED)
    raise Denied("this credential is not for requests of this kind")


async def may(request: Request, repository: RepositoryName, right: Right) -> bool:
    """Whether the caller has the right, for whoever words the refusal.

    Raises:
        Unauthenticated: the credentials are not true.
    """
    if is_off(request):
        return True
    found = await auth_of(request).evidence(request)
    policies = await auth_of(request).policies()
    allowed = right in found.rights(policies, repository)
    if not allowed:
        note(request, f"{right.name}".lower(), str(repository), DENIED)
    return allowed


async def demand(request: Request, repository: RepositoryName, right: Right) -> None:
    """`may`, or a refusal that does not say whether the repository is there.

    Raises:
        Unauthenticated: somebody we know might.
        Denied: the caller may not.
    """
    if not await may(request, repository, right):
        if not (await caller(request)).is_signed_in:
            raise Challenged("sign in: this needs an API key, or a key known here")
        raise Denied("you may not do this with models of that name")


async def guard(request: Request, repository: RepositoryName) -> TagGuard:
    """What the caller may do with a repository's tags."""
    if is_off(request):
        return FREE
    found = await auth_of(request).evidence(request)
    policies = await auth_of(request).policies()
    return policies.guard(found.rights(policies, repository), repository, found.owner.name)


async def holder(request: Request) -> str:
    """Whom an upload session belongs to: the account, whatever token it comes with."""
    return "" if is_off(request) else (await auth_of(request).evidence(request)).holder


async def authorize(request: Request, repository: RepositoryName, right: Right, scope: str) -> None:
    """Let a request of the registry protocol pass; `scope` is what a challenge would ask for.

    Raises:
        Challenged: other credentials could help.
        TooOften: too many were not true.
        Denied: they could not.
    """
    if is_off(request):
        return
    found = await _proven(request, scope)
    policies = await auth_of(request).policies()
    if right in found.rights(policies, repository):
        return
    is_narrow = found.access is not None
    if found.is_given and not found.owner.is_signed_in:  # no other token will be given either
        note(request, f"{right.name}".lower(), str(repository), DENIED)
    if not found.owner.is_signed_in or (
        is_narrow and right in policies.rights(found.owner, repository)
    ):
        raise Challenged("a token is needed", scope, INSUFFICIENT_SCOPE if is_narrow else "")
    note(request, f"{right.name}".lower(), str(repository), DENIED)
    what = scope.rpartition(":")[2].replace(",", "/")
    raise Denied(
        f"this credential of {found.owner.name} has no right to {what} {repository}; "
        "whoever manages it can give it"
    )


async def authorize_registry(request: Request, access: Access | None) -> None:
    """Let a request pass that is about no repository: any credentials, or those for `access`.

    Raises:
        Challenged: none, or a token without that access.
        TooOften: too many were not true.
    """
    if is_off(request):
        return
    scope = f"{access.type}:{access.name}:{','.join(access.actions)}" if access else ""
    found = await _proven(request, scope)
    if not found.is_given:
        raise Challenged("a token is needed", scope)
    if access is not None and found.access is not None and access not in found.access:
        raise Challenged("a token is needed", scope, INSUFFICIENT_SCOPE)


async def _proven(request: Request, scope: str) -> Evidence:
    """The evidence; what is wrong with credentials is told by a challenge."""
    try:
        return await auth_of(request).evidence(request)
    except Unauthenticated as error:
        raise Challenged(str(error), scope, INVALID_TOKEN) from error


async def reader(request: Request) -> Readable | None:
    """Tells which repositories the caller may read; None if that is every one.

    A token for the whole registry says nothing about single ones: what its owner may read counts.
    """
    if is_off(request):
        return None
    found = await auth_of(request).evidence(request)
    return (await auth_of(request).policies()).reader(found.owner)


async def view(request: Request) -> View | None:
    """What the caller sees of the list of models; None for all of it."""
    if is_off(request):
        return None
    found = await auth_of(request).evidence(request)
    policies = await auth_of(request).policies()
    readable = policies.reader(found.caller)
    return None if readable is None else View((found.caller, policies), readable)


async def usable(request: Request) -> Usable | None:
    """Tells of blobs whether the caller reads or has sent them; None if that is every one."""
    readable = await reader(request)
    if readable is None:
        return None
    services: Services = request.app.state.services
    account = (await caller(request)).account
    may_read = readable

    async def decide(digest: Digest) -> bool:
        if account is not None and await services.accounts.has_proven(account, digest):
            return True
        return await services.blobs.readable_in(digest, may_read) is not None

    return decide


async def prove_blob(request: Request, digest: Digest) -> None:
    """Take note that the caller has sent all bytes of a blob."""
    account = (await caller(request)).account
    if account is not None and not is_off(request):
        services: Services = request.app.state.services
        await services.accounts.prove_blob(account, digest)


async def mountable(request: Request) -> Readable | None:
    """Tells from which repositories a blob may be taken: those that the caller may read.

    A token is asked for the target alone and a push would otherwise send again what is here, so
    here too its owner counts.
    """
    return await reader(request)


def realm(request: Request) -> str:
    """Where tokens are issued: on the address that the client uses, or it would not go there."""
    return f"{external_base(request)}/v2/token"


def refusal_status(request: Request, error: Unauthenticated) -> int:
    """401; for a token that is too narrow 403 where only that makes a client ask for another.

    RFC 6750 3.1 has 403 for it, registries and their clients 401, the Python client of oras, which
    names itself as the library it uses, 403.
    """
    is_narrow = isinstance(error, Challenged) and error.error == INSUFFICIENT_SCOPE
    agent = request.headers.get("user-agent", "")
    return 403 if is_narrow and agent.startswith("python-requests/") else 401


def challenge_headers(request: Request, error: Unauthenticated) -> list[str]:
    """The values of `WWW-Authenticate` for a refusal."""
    if not request.url.path.startswith("/v2"):
        return [f'Bearer realm="{service_name(request)}"']
    scope, word = "", ""
    if isinstance(error, Challenged):
        scope, word = error.scope, error.error
    return Challenge(realm(request), service_name(request), scope, word).headers()
