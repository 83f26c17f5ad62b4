"""`/v2/token`: credentials and wishes in, a registry token out.

GET is what docker, skopeo and the ollama client use (the last signs it with its key), POST what
containerd and oras may use. What is not granted is left out of the token without an error, as the
clients expect; only a signed request that can have nothing of what it asked for is refused here,
with a sentence for a person: the ollama client would otherwise ask and ask.

Source: spec registry-protocol 1.4, 4.2; RFC 6749 4.3, 5.2 for POST.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from registry.core.access import ScopeRequest, granted_actions
from registry.core.errors import NotFound, RegistryError, RequestInvalid, Unauthenticated
from registry.core.names import RepositoryName
from registry.core.ollama_signature import SignedBy, looks_signed, signed_at, token_text
from registry.services.access.tokens import Access, Subject
from registry.web.auditing import DENIED, note, word_of
from registry.web.auth import CATALOG, auth_of, is_off, realm
from registry.web.credentials import Auth, Evidence, service_name
from registry.web.enrolment import host_of, unknown_key
from registry.web.oci_errors import API_VERSION, refuse_method
from registry.web.reading import read_bounded, services
from registry.web.urls import is_own_host

_MAX_SCOPES = 64
_MAX_FORM = 16 << 10
_MAX_NONCE = 64
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


@dataclass(frozen=True, slots=True)
class Wish:
    """What is granted of what was asked for."""

    granted: tuple[Access, ...]
    whole: int  # how many of the asked scopes are granted in full


async def get(request: Request) -> Response:
    """GET: Basic, Bearer (an API key), a signature of an ollama client, or nobody."""
    query = parse_qs(request.url.query, max_num_fields=256)
    asked = _asked(query.get("scope", []))
    auth = auth_of(request)
    auth.admit_token_request(request)
    if looks_signed(request.headers.get("authorization", "")):
        return await _get_signed(request, query, asked)
    found = await auth.evidence(request)
    wish = await _granted(auth, found, asked)
    return await _answer(request, found.subject, wish)


async def _get_signed(
    request: Request, query: dict[str, list[str]], asked: tuple[ScopeRequest, ...]
) -> Response:
    """The answer to an ollama client; refusals are sentences, since it prints what it gets."""
    auth = auth_of(request)
    try:
        by = await _verified(request, query)
    except Unauthenticated as error:
        note(request, "sign in", "", word_of(error))
        return _sentence(str(error), 401)
    try:
        found = await auth.by_public_key(by.key.blob)
    except Unauthenticated:
        found = await auth.nobody()
        wish = await _granted(auth, found, asked)
        if wish.whole:
            return await _answer(request, found.subject, wish)
        return _sentence(await unknown_key(request, by.key), 403)
    wish = await _granted(auth, found, asked)
    if not asked or wish.whole:
        return await _answer(request, found.subject, wish)
    what = ", ".join(f"{'/'.join(item.actions)} {item.name}" for item in asked)[:300]
    request.scope.setdefault("state", {})["evidence"] = found  # whom the audit names
    note(request, "token", what, DENIED)
    return _sentence(
        f"key {by.key.fingerprint} of {found.owner.name} has no right to {what} on "
        f"{host_of(request)}; whoever manages it can give it",
        403,
    )


async def _verified(request: Request, query: dict[str, list[str]]) -> SignedBy:
    """The key that signed this request, for this service, now, and for the first time.

    Raises:
        Unauthenticated: any of that is not so.
    """
    tokens = services(request).tokens
    by = SignedBy.parse(request.headers.get("authorization", ""))
    nonce, ts = query.get("nonce", []), query.get("ts", [])
    at_s = signed_at(ts[0]) if len(ts) == 1 else None
    if by is None or at_s is None or len(nonce) != 1 or len(nonce[0]) > _MAX_NONCE:
        raise Unauthenticated("the signature of the token request cannot be read")
    if not is_own_host(request):
        # Otherwise another registry could pass on what a client has signed for that one.
        raise Unauthenticated(
            "this server does not know its own name, so it cannot take a signature for it: "
            "an administrator sets REGISTRY_EXTERNAL_URL"
        )
    raw = request.scope["query_string"].decode("latin-1")
    if not tokens.is_signed(by, token_text(f"{realm(request)}?{raw}")):
        raise Unauthenticated(
            f"key {by.key.fingerprint} did not sign a request to {realm(request)}"
        )
    if not tokens.is_fresh(at_s):
        raise Unauthenticated("the clock of this machine, or of the server, is wrong by minutes")
    if not await tokens.use_nonce(by.key.blob, nonce[0]):
        raise Unauthenticated("this signed token request was seen before: try again")
    return by


async def post(request: Request) -> Response:
    """POST: the password form of OAuth 2. There are no refresh tokens: clients then keep the rest.

    Raises:
        TooLarge: the form is larger than any of a client.
    """
    auth = auth_of(request)
    auth.admit_token_request(request)
    form = parse_qs((await read_bounded(request, _MAX_FORM)).decode("latin-1"), max_num_fields=64)
    if form.get("grant_type") != ["password"]:
        return _json({"error": "unsupported_grant_type"}, 400)
    name, password = form.get("username", [""])[-1], form.get("password", [""])[-1]
    asked = _asked(form.get("scope", []))
    try:
        found = await auth.by_password(request, _utf8(name), _utf8(password))
    except RegistryError as error:
        note(request, "sign in", _utf8(name), word_of(error))
        raise
    wish = await _granted(auth, found, asked)
    issued = await services(request).tokens.issue(
        found.subject, wish.granted, service_name(request)
    )
    words = " ".join(f"{a.type}:{a.name}:{','.join(a.actions)}" for a in wish.granted)
    return _json(
        {
            "access_token": issued.token,
            "expires_in": issued.expires_in_s,
            "issued_at": _iso(issued.issued_s),
            "scope": words,
        }
    )


def _utf8(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "replace")


def _asked(values: Sequence[str]) -> tuple[ScopeRequest, ...]:
    """The scopes of a request, each once; what is none is passed over.

    Raises:
        RequestInvalid: there are too many.
    """
    texts = dict.fromkeys(text for value in values for text in value.split())
    if len(texts) > _MAX_SCOPES:
        raise RequestInvalid(f"a token can be asked for up to {_MAX_SCOPES} scopes")
    return tuple(found for text in texts if (found := ScopeRequest.parse(text)))


async def _granted(auth: Auth, found: Evidence, asked: Sequence[ScopeRequest]) -> Wish:
    """What of the scopes somebody may have."""
    policies = await auth.policies()
    granted: list[Access] = []
    whole = 0
    for item in asked:
        actions: list[str] = []
        if item.type == "repository":
            try:
                name = RepositoryName.parse(item.name)
            except RegistryError:
                continue
            actions = granted_actions(item, found.rights(policies, name))
        elif (item.type, item.name) == (CATALOG.type, CATALOG.name):
            actions = ["*"] if "*" in item.actions else []
        if actions:
            granted.append(Access(item.type, item.name, tuple(actions)))
        whole += set(actions) >= set(item.actions) - {"*"} and bool(actions)
    return Wish(tuple(granted), whole)


async def _answer(request: Request, subject: Subject, wish: Wish) -> Response:
    issued = await services(request).tokens.issue(subject, wish.granted, service_name(request))
    return _json(
        {
            "token": issued.token,
            "access_token": issued.token,
            "expires_in": issued.expires_in_s,
            "issued_at": _iso(issued.issued_s),
        }
    )


def _sentence(text: str, status: int) -> Response:
    """A refusal for a person."""
    return Response(text + "\n", status, headers=_NO_STORE, media_type="text/plain")


def _iso(at_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))


def _json(value: object, status: int = 200) -> Response:
    body = orjson.dumps(value)
    return Response(body, status, headers=_NO_STORE, media_type="application/json")


class TokenEndpoint:
    """The ASGI application at the path."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive, send)
        handlers = {"GET": get, "POST": post}
        handler = handlers.get(request.method)
        if is_off(request):
            raise NotFound("page not found")
        answer = await handler(request) if handler else refuse_method(request, handlers)
        answer.headers.update(API_VERSION)
        await answer(scope, receive, send)


routes = [Route("/v2/token", TokenEndpoint())]
