"""`ollama signin` and `ollama signout` against this service: whose key is it that signs?

The command line signs these requests if `OLLAMA_AUTH` is set. For a key that nobody added, the
refusal has a link that adds it; without a signature the link leads to where a key can be pasted.
While authentication is off these are as the real server answers them without an account.

Source: spec ollama-api 4; product 3.1.
"""

import base64
import binascii
import uuid

from starlette.requests import Request
from starlette.responses import Response

from registry.core.errors import Denied, NotFound, RequestInvalid, Unauthenticated
from registry.core.ollama_signature import SignedBy
from registry.core.ssh_key import SshKey
from registry.services import Services
from registry.web import auditing, auth
from registry.web.answers import json_response
from registry.web.credentials import KeyUnknown
from registry.web.enrolment import enrolment_url
from registry.web.resources import resource
from registry.web.urls import external_base

_IDS = uuid.UUID("9a2f7c52-6f0b-4d57-8d3c-0f5a6b1e2c47")  # a namespace of our own for user ids
_SIGNED_OUT = {"error": "you are not currently signed in"}


async def me(request: Request) -> Response:
    """POST /api/me: who is signed in, or where to do so."""
    if auth.is_off(request):
        return json_response({"error": "account unavailable"}, 503)
    try:
        found = await auth.evidence(request)
    except KeyUnknown as error:
        return _sign_in(await enrolment_url(request, error.key))
    except Unauthenticated:
        return _sign_in(f"{external_base(request)}/ui/keys")
    if not found.owner.is_signed_in:
        return _sign_in(f"{external_base(request)}/ui/keys")
    name = found.owner.name
    account = str(uuid.uuid5(_IDS, str(found.owner.account)))
    return json_response({"id": account, "email": "", "name": name, "plan": ""})


def _sign_in(url: str) -> Response:
    return json_response({"error": "unauthorized", "signin_url": url}, 401)


async def sign_out(request: Request) -> Response:
    """POST /api/signout: the key that signs this request is detached from its account."""
    by = SignedBy.parse(request.headers.get("authorization", ""))
    if auth.is_off(request) or by is None:
        return json_response(_SIGNED_OUT, 401)
    return await _detach(request, by.key)


async def delete_key(request: Request) -> Response:
    """DELETE /api/user/keys/:key: a key of the caller's is detached; base64 of its line."""
    if auth.is_off(request):
        return json_response(_SIGNED_OUT, 401)
    caller = await auth.caller(request)
    if not caller.is_signed_in:
        return json_response(_SIGNED_OUT, 401)
    if caller.scopes is not None:
        raise Denied("this credential is limited and cannot do this")
    text = str(request.path_params["key"])
    try:
        line = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        key = SshKey.parse(line)
    except (binascii.Error, UnicodeDecodeError, RequestInvalid) as error:
        raise NotFound("there is no such key") from error
    return await _detach(request, key)


async def _detach(request: Request, key: SshKey) -> Response:
    try:
        found = await auth.evidence(request)
    except Unauthenticated:
        return json_response(_SIGNED_OUT, 401)
    if found.owner.account is None or found.access is not None:
        return json_response(_SIGNED_OUT, 401)
    services: Services = request.app.state.services
    await services.accounts.remove_public_key(key.fingerprint, found.owner.account)
    auditing.note(request, "remove key", key.fingerprint)
    return json_response(None)


routes = [
    resource("/api/me", POST=me),
    resource("/api/signout", POST=sign_out),
    resource("/api/user/keys/{key}", DELETE=delete_key),
]
