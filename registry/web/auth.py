"""Who asks, and may they: credentials -> `Caller`, decisions, and the challenge of a refusal.

Every handler that needs a right asks here: `authorize` for a repository, `require` for an endpoint
group, `may` where a refusal must look like absence. While `settings.auth` is off everybody is
`EVERYTHING` and nothing is looked up.

401 is answered only where other credentials could help: none were sent, they are not true (any
more), or a token is narrower than its owner. Whoever is known and may not gets 403, before anything
is looked up, so that what is absent and what is forbidden look alike, in time too.

Source: spec registry-protocol 1.4, 4, 8.3, 8.4.
"""

import base64
import binascii
import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from urllib.parse import parse_qs

from starlette.requests import Request

from registry.core.access import EVERYTHING, Caller, Group, Policy, Right, Scope, ScopeRequest
from registry.core.accounts import is_api_key
from registry.core.challenge import INSUFFICIENT_SCOPE, INVALID_TOKEN, Challenge, repository_scope
from registry.core.errors import Denied, RegistryError, TooOften, Unauthenticated
from registry.core.names import RepositoryName
from registry.core.ollama_signature import SignedBy, api_text, looks_signed, signed_at
from registry.services import Services
from registry.services.attempts import Attempts, network
from registry.services.blobs import Readable
from registry.services.callers import credential_of
from registry.services.rights import FREE, Policies, TagGuard
from registry.services.tokens import Access, Claims, Subject
from registry.web.auditing import note
from registry.web.forms import session_cookie
from registry.web.proxies import client_address
from registry.web.urls import external_base

CATALOG = Access("registry", "catalog", ("*",))
MAX_HEADER = 16 << 10

_KEPT = 4096
_NS = 10**9
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Evidence:
    """What credentials proved.

    `caller` is what they are good for, `owner` the same without what a token leaves out.
    """

    caller: Caller
    owner: Caller
    access: tuple[Access, ...] | None = None  # of a token
    is_given: bool = True

    @property
    def subject(self) -> Subject:
        """What a token made from them names; nobody, if nobody is known."""
        return Subject(self.owner.name, credential_of(self.owner))

    def rights(self, policies: Policies, name: RepositoryName) -> Right:
        """What they are good for with a repository: a token narrows, and never widens."""
        held = policies.rights(self.caller, name)
        return held if self.access is None else held & policies.rights(self.owner, name)

    @property
    def holder(self) -> str:
        """Whom upload sessions and proofs belong to."""
        return str(self.owner.account) if self.owner.account is not None else "anonymous"


class Challenged(Unauthenticated):
    """Credentials are needed; `scope` and `error` go into the challenge."""

    def __init__(self, message: str, scope: str = "", error: str = "") -> None:
        super().__init__(message)
        self.scope = scope
        self.error = error


class Auth:
    """Turns credentials into evidence. One per application."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._claims: OrderedDict[bytes, Claims] = OrderedDict()  # of tokens that were verified
        self._policies = Policies()
        self._policies_of: tuple[Policy, ...] | None = None
        limits = services.settings.credentials
        self._tries = Attempts(limits.tries_per_minute, services.clock)
        self._token_requests = Attempts(limits.tokens_per_minute, services.clock)

    async def policies(self) -> Policies:
        """The policies as they are now; the same object while none changes."""
        found = await self._services.accounts.policies()
        if found is not self._policies_of:
            self._policies, self._policies_of = Policies.of(found), found
        return self._policies

    async def evidence(self, request: Request) -> Evidence:
        """What the request's credentials prove; the first answer holds for the whole request.

        Raises:
            Unauthenticated: they are not true.
            TooOften: too many like it were not true.
        """
        state = request.scope.setdefault("state", {})
        found: Evidence | None = state.get("evidence")
        if found is None:
            found = state["evidence"] = await self._evidence(request)
        return found

    async def _evidence(self, request: Request) -> Evidence:
        header = request.headers.get("authorization", "")
        if not header:
            return await self._unnamed(_cookie(request))
        if looks_signed(header):
            return await self._signed(request, header)
        scheme, _, text = header.partition(" ")
        if len(header) > MAX_HEADER or not text:
            raise Unauthenticated("the Authorization header is not understood")
        match scheme.lower():
            case "bearer" if text.count(".") == 2:
                return await self._token(request, text.strip())
            case "bearer":
                return await self._api_key(request, text.strip())
            case "basic":
                return await self._basic(request, text.strip())
        raise Unauthenticated("the Authorization header is of a kind that is not known here")

    async def _unnamed(self, cookie: str) -> Evidence:
        if cookie:
            try:
                return _whole(await self._services.accounts.by_session(cookie))
            except Unauthenticated:  # the page asks to sign in again
                pass
        return await self.nobody()

    async def nobody(self) -> Evidence:
        """Somebody without credentials: reads what is public; more only by a rule for everybody."""
        caller = await self._services.accounts.anonymous()
        writes = any(rule.rights & Right.WRITE for rule in caller.rules)
        groups = Group.READ | (Group.WRITE if writes else Group.NONE)
        caller = replace(caller, groups=groups)
        return Evidence(caller, caller, is_given=False)

    async def by_public_key(self, blob: str) -> Evidence:
        """Whose key it is; the signature was verified before.

        Raises:
            Unauthenticated: nobody's.
        """
        return _whole(await self._services.accounts.by_public_key(blob))

    async def _basic(self, request: Request, text: str) -> Evidence:
        try:
            plain = base64.b64decode(text, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise Unauthenticated("the Basic credentials cannot be read") from error
        name, colon, password = plain.partition(":")
        if not colon:
            raise Unauthenticated("the Basic credentials have no colon")
        return await self.by_password(request, name, password)

    async def by_password(self, request: Request, name: str, password: str) -> Evidence:
        """A name and its password; or any name, with an API key in place of the password.

        Raises:
            Unauthenticated: they are not true.
            TooOften: too many tries from this address or for this account.
        """
        if is_api_key(password):
            return await self._api_key(request, password)
        address = client_address(request)
        caller = await self._services.accounts.by_password(name, password, address)
        return _whole(caller)

    async def _api_key(self, request: Request, text: str) -> Evidence:
        try:
            return _whole(await self._services.accounts.by_api_key(text))
        except Unauthenticated:
            # counted only now: one client with an old key must not lock out its neighbours' keys
            self._tries.begin(network(client_address(request)))
            raise

    async def _token(self, request: Request, text: str) -> Evidence:
        """A token of ours: what its credential and account may do now, as far as it goes."""
        claims = await self._verified(request, text)
        credential = claims.subject.credential
        accounts = self._services.accounts
        owner = await (accounts.by_credential(credential) if credential else accounts.anonymous())
        scopes = [scope for item in claims.access for scope in _scopes(item)]
        carried = replace(owner, scopes=tuple(scopes), groups=Group.NONE)
        return Evidence(carried, owner, claims.access)

    async def _verified(self, request: Request, text: str) -> Claims:
        key = hashlib.sha256(text.encode()).digest()
        claims = self._claims.get(key)
        if claims is not None and claims.expires_s > self._services.clock() // _NS:
            return claims
        claims = await self._services.tokens.verify(text, service_name(request))
        self._claims[key] = claims
        while len(self._claims) > _KEPT:
            self._claims.popitem(last=False)
        return claims

    async def _signed(self, request: Request, header: str) -> Evidence:
        """A request of the ollama command line, which signs method, path and time."""
        tokens = self._services.tokens
        by = SignedBy.parse(header)
        ts = parse_qs(request.url.query).get("ts", [""])
        at_s = signed_at(ts[0]) if len(ts) == 1 else None
        path = request.scope.get("raw_path", b"").decode("latin-1") or request.url.path
        if by is None or at_s is None:
            raise Unauthenticated("the signature of the request cannot be read")
        if not tokens.is_signed(by, api_text(request.method, path, ts[0])):
            raise Unauthenticated(f"key {by.key.fingerprint} did not sign this request")
        if not tokens.is_fresh(at_s):
            raise Unauthenticated("the clock of the machine that asks is wrong by minutes")
        found = await self.by_public_key(by.key.blob)
        if request.method not in _SAFE and not await tokens.use_nonce(
            by.key.blob, f"{request.method} {path} {ts[0]}"
        ):
            raise Unauthenticated("this signed request was seen before: repeat it in a second")
        return found

    def admit_token_request(self, request: Request) -> None:
        """Count a request for a token.

        Raises:
            TooOften: the address has made too many.
        """
        address = network(client_address(request))
        try:
            self._token_requests.begin(address)
        except TooOften as error:
            message = "too many token requests from your address"
            raise TooOften(message, error.retry_after_s) from error


def _whole(caller: Caller) -> Evidence:
    return Evidence(caller, caller)


def _scopes(item: Access) -> list[Scope]:
    """What a granted access covers; nothing if it is not about a repository."""
    if item.type != "repository":
        return []
    try:
        name = RepositoryName.parse(item.name)
    except RegistryError:
        return []
    return [Scope(name.key, ScopeRequest(item.type, item.name, item.actions).rights)]


def _cookie(request: Request) -> str:
    """The session, unless a page of another origin asks: cookies come along with its requests."""
    origin = request.headers.get("origin", "")
    if origin and origin != external_base(request):
        return ""
    return session_cookie(request)


# what handlers ask


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
    """
    found = (await evidence(request)).caller
    if group in found.groups:
        return found
    if not found.is_signed_in:
        raise Challenged("sign in: this needs an API key, or a key known here")
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
        note(request, f"{right.name}".lower(), str(repository), "denied")
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
    return policies.guard(found.rights(policies, repository), repository)


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
    if not found.owner.is_signed_in or (
        is_narrow and right in policies.rights(found.owner, repository)
    ):
        raise Challenged("a token is needed", scope, INSUFFICIENT_SCOPE if is_narrow else "")
    note(request, f"{request.method} {right.name}".lower(), str(repository), "denied")
    raise Denied("requested access to the resource is denied")


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
        note(request, "sign in", "", type(error).__name__)
        raise Challenged(str(error), scope, INVALID_TOKEN) from error


async def reader(request: Request) -> Readable | None:
    """Tells which repositories the caller may read; None if that is every one.

    A token for the whole registry says nothing about single ones: what its owner may read counts.
    """
    if is_off(request):
        return None
    found = await auth_of(request).evidence(request)
    return (await auth_of(request).policies()).reader(found.owner)


async def mountable(request: Request) -> Readable | None:
    """Tells from which repositories a blob may be taken: those that the caller may read.

    A token is asked for the target alone and a push would otherwise send again what is here, so
    here too its owner counts.
    """
    return await reader(request)


def service_name(request: Request) -> str:
    """What tokens are for: the service's own host, if the settings tell, for any client name it."""
    configured: str = request.app.state.services.settings.external_url
    return configured.partition("://")[2] or "registry"


def realm(request: Request) -> str:
    """Where tokens are issued: on the address that the client uses, or it would not go there."""
    return f"{external_base(request)}/v2/token"


def challenge_headers(request: Request, error: Unauthenticated) -> list[str]:
    """The values of `WWW-Authenticate` for a refusal."""
    if not request.url.path.startswith("/v2"):
        return [f'Bearer realm="{service_name(request)}"']
    scope, word = "", ""
    if isinstance(error, Challenged):
        scope, word = error.scope, error.error
    return Challenge(realm(request), service_name(request), scope, word).headers()


def pull_scope(name: str) -> str:
    """What reading a repository needs."""
    return repository_scope(name, "pull")


_OFF = Evidence(EVERYTHING, EVERYTHING)
