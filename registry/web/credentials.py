"""Credentials -> evidence: what a request's headers prove about who asks.

Bearer tokens of ours, API keys (Bearer, or in place of a password), Basic, the signature of an
ollama command line, the cookie of the page; or none. What is not true is an error, even where
nothing would be needed: whoever sends credentials wants to know.

Source: spec registry-protocol 1.4, 4.2, 8.4; product 3.1.
"""

import base64
import binascii
import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from urllib.parse import parse_qs

from starlette.requests import Request

from registry.core.access import Caller, Group, Policy, Right, Scope, ScopeRequest
from registry.core.accounts import is_api_key
from registry.core.errors import RegistryError, TooOften, Unauthenticated
from registry.core.names import RepositoryName
from registry.core.ollama_signature import SignedBy, api_text, looks_signed, signed_at
from registry.core.ssh_key import SshKey
from registry.services import Services
from registry.services.access.attempts import Attempts, network
from registry.services.access.callers import credential_of
from registry.services.access.rights import Policies
from registry.services.access.tokens import Access, Claims, Subject, TokenInvalid
from registry.web.auditing import note, word_of
from registry.web.forms import session_cookie
from registry.web.proxies import client_address
from registry.web.urls import external_base

CATALOG = Access("registry", "catalog", ("*",))
MAX_HEADER = 16 << 10

_KEPT = 4096
_NS = 10**9
_PROVEN_NS = _NS
"""How long what a header proved stands without a look at when its credential ends."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_REPEATABLE = frozenset({"/api/me", "/api/show", "/api/generate", "/api/chat", "/api/embed"})
"""What signed requests may be seen twice within a second: they change nothing."""


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


class KeyUnknown(Unauthenticated):
    """A key that signed the request and that nobody added."""

    def __init__(self, key: SshKey) -> None:
        super().__init__(f"key {key.fingerprint} is not registered here")
        self.key = key


@dataclass(slots=True)
class _Seen:
    """A token whose signature was verified, and what it proved when it was last looked up."""

    claims: Claims
    ring_id: str
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class _Proven:
    """What a header proved; good until `until` if no account changes before."""

    evidence: Evidence
    until: int


class Auth:
    """Turns credentials into evidence. One per application."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()
        self._proven: dict[bytes, _Proven] = {}
        self._changes: int | None = None
        self._policies = Policies()
        self._policies_of: tuple[Policy, ...] | None = None
        self._nobody = Evidence(Caller(), Caller(), is_given=False)
        limits = services.settings.credentials
        self._tries = Attempts(limits.tries_per_minute, services.clock)
        self._token_requests = Attempts(limits.tokens_per_minute, services.clock)
        self._requests = Attempts(limits.requests_per_minute, services.clock)

    async def policies(self) -> Policies:
        """The policies, no older than the evidence; the same object while no account changes."""
        if self._changes is None:
            await self._refresh()
        return self._policies

    async def _refresh(self) -> None:
        """Forget what was true before the last change of accounts; costs no query if none was."""
        accounts = self._services.accounts
        changes = await accounts.changes()
        if changes == self._changes:
            return
        found = await accounts.policies()
        reader = replace(await accounts.anonymous(), groups=Group.READ)
        if self._changes is not None and changes <= self._changes:
            return  # another request was quicker, and saw as much or more
        if found is not self._policies_of:
            self._policies, self._policies_of = Policies.of(found), found
        self._nobody = Evidence(reader, reader, is_given=False)
        self._proven.clear()
        self._changes = changes

    async def evidence(self, request: Request) -> Evidence:
        """What the request's credentials prove; the first answer, or error, holds for all of it.

        Raises:
            Unauthenticated: they are not true.
            TooOften: too many like it were not true.
        """
        state = request.scope.setdefault("state", {})
        found: Evidence | None = state.get("evidence")
        if found is not None:
            return found
        if "no_evidence" in state:
            raise state["no_evidence"]
        try:
            found = state["evidence"] = await self._evidence(request)
        except RegistryError as error:
            state["no_evidence"] = error
            if not isinstance(error, TokenInvalid):  # those run out all the time
                note(request, "sign in", state.get("tried", ""), word_of(error))
            raise
        return found

    async def _evidence(self, request: Request) -> Evidence:
        header = request.headers.get("authorization", "")
        await self._refresh()
        if not header:
            return await self._unnamed(_cookie(request))
        if looks_signed(header):
            return await self._signed(request, header)
        now = self._services.clock()
        key = hashlib.sha256(header.encode()).digest()  # the header is a secret, and may be long
        known = self._proven.get(key)
        if known is not None and now < known.until:
            return known.evidence
        changes = self._changes
        found = await self._by_header(request, header)
        if changes == self._changes:
            if len(self._proven) >= _KEPT:
                self._proven.clear()
            self._proven[key] = _Proven(found, now + _PROVEN_NS)
        return found

    async def _by_header(self, request: Request, header: str) -> Evidence:
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
        return self._nobody

    async def nobody(self) -> Evidence:
        """Somebody without credentials, who reads what is public."""
        await self._refresh()
        return self._nobody

    async def by_public_key(self, blob: str) -> Evidence:
        """Whose key it is; the signature was verified before.

        Raises:
            Unauthenticated: nobody's.
        """
        await self._refresh()
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
        await self._refresh()
        if is_api_key(password):
            return await self._api_key(request, password)
        address = client_address(request)
        request.scope.setdefault("state", {})["tried"] = name
        caller = await self._services.accounts.by_password(name, password, address)
        return _whole(caller)

    async def _api_key(self, request: Request, text: str) -> Evidence:
        try:
            return _whole(await self._services.accounts.by_api_key(text))
        except Unauthenticated:
            # counted only now: one client with an old key must not lock out its neighbours' keys
            self.count_guess(request)
            raise

    def count_guess(self, request: Request) -> None:
        """Count a secret that was not true: a key, a one-time code.

        Raises:
            TooOften: the address has had its guesses; it is not told any more whether one is true.
        """
        self._tries.begin(network(client_address(request)))

    async def _token(self, request: Request, text: str) -> Evidence:
        """A token of ours: what its credential and account may do now, as far as it goes."""
        key = hashlib.sha256(text.encode()).digest()
        seen = self._seen.get(key)
        ring_id = await self._services.tokens.ring_id()
        expires_s = seen.claims.expires_s if seen is not None and seen.ring_id == ring_id else 0
        if seen is None or expires_s <= self._services.clock() // _NS:
            claims = await self._services.tokens.verify(text, service_name(request))
            seen = self._seen[key] = _Seen(claims, ring_id)
            while len(self._seen) > _KEPT:
                self._seen.popitem(last=False)
        credential = seen.claims.subject.credential
        accounts = self._services.accounts
        owner = await (accounts.by_credential(credential) if credential else accounts.anonymous())
        if seen.evidence is None or seen.evidence.owner is not owner:
            scopes = [scope for item in seen.claims.access for scope in _scopes(item)]
            carried = replace(owner, scopes=tuple(scopes), groups=Group.NONE)
            seen.evidence = Evidence(carried, owner, seen.claims.access)
        return seen.evidence

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
        try:
            found = await self.by_public_key(by.key.blob)
        except Unauthenticated as error:
            raise KeyUnknown(by.key) from error
        if (
            request.method not in _SAFE
            and path not in _REPEATABLE
            and not await tokens.use_nonce(by.key.blob, f"{request.method} {path} {ts[0]}")
        ):
            raise Unauthenticated("this signed request was seen before: repeat it in a second")
        return found

    def admit_request(self, request: Request, caller: Caller) -> None:
        """Count a request of the API; transfers of blobs are not counted.

        Raises:
            TooOften: the account, or the address of nobody known, has made too many.
        """
        if not self._services.settings.credentials.requests_per_minute:
            return
        if request.url.path.startswith("/api/blobs/"):
            return
        address = network(client_address(request))
        try:
            self._requests.begin(f"account {caller.account}" if caller.is_signed_in else address)
        except TooOften as error:
            raise TooOften("too many requests; try again later", error.retry_after_s) from error

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


def service_name(request: Request) -> str:
    """What tokens are for: the service's own host, if the settings tell, for any client name it."""
    configured: str = request.app.state.services.settings.external_url
    return configured.partition("://")[2] or "registry"
