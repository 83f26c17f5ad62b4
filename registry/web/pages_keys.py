"""`/ui/keys`, `/ui/tokens`, `/ui/enrol/:code`: one's own public keys and API keys.

The text of a new API key is in the answer to the form that made it, and nowhere else.
"""

from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from registry.core.access import Group, Right, group_words, parse_groups
from registry.core.accounts import check_title, scope_text
from registry.core.errors import Conflict, NotFound, RequestInvalid
from registry.ports.accounts import ApiKey, PublicKey
from registry.services.access.keys import ApiKeyWish
from registry.web.auditing import note, word_of
from registry.web.forms import Form, read_form
from registry.web.page import Visit, go, sentence, signed_in
from registry.web.resources import resource
from registry.web.statuses import status_of

_DAY_S = 86_400
GROUPS = (
    ("read", "reading models: pull, list, show"),
    ("infer", "asking models: generate, chat, embed"),
    ("write", "changing models: push, create, copy, delete"),
)
ADMIN = ("admin", "managing people, rights and keys")
OWNER = ("admin", "managing my keys")
LIVES = ((30, "30 days"), (90, "90 days"), (365, "one year"), (0, "never"))
DONE = {
    "added": "The key is added. That machine can pull and push now.",
    "revoked": "The key is revoked. Whoever uses it is refused from now on.",
    "refused": "The key was refused and the link is void.",
}
GONE = "This link is no longer good"


@dataclass(frozen=True, slots=True)
class ShownKey:
    """An API key as the page lists it."""

    id: str
    title: str
    hint: str
    groups: list[str]
    scopes: str | None
    expires_at: int | None
    used_at: int | None
    expired: bool


async def keys(visit: Visit) -> Response:
    """GET /ui/keys."""
    done = DONE.get(visit.request.query_params.get("done", ""), "")
    return await _keys_page(visit, done=done)


async def _keys_page(visit: Visit, status: int = 200, **values: Any) -> Response:
    accounts = visit.services.accounts
    now = visit.services.clock()
    shown = {
        "public_keys": [
            _shown_public(key) for key in await accounts.public_keys(visit.account)
        ],
        "api_keys": [_shown(key, now) for key in await accounts.api_keys(visit.account)],
        "groups": (*GROUPS, ADMIN if visit.person and visit.person.is_admin else OWNER),
        "lives": LIVES, "made": None, "pasted": "", "pasted_title": "",
        "wants_token": False, "token_title": "", "chosen": {"read"}, "chosen_life": 90,
    }  # fmt: skip
    return visit.render("keys", status, here="keys", **{**shown, **values})


def _shown_public(key: PublicKey) -> dict[str, Any]:
    return {
        "title": key.title, "fingerprint": key.fingerprint, "created_at": key.created_at,
        "used_at": key.used_at, "read_only": not key.rights & ~Right.READ,
    }  # fmt: skip


def _shown(key: ApiKey, now: int) -> ShownKey:
    scopes = None if key.scopes is None else ", ".join(map(scope_text, key.scopes))
    expired = key.expires_at is not None and key.expires_at <= now
    return ShownKey(
        key.id, key.title, key.hint, group_words(key.groups), scopes,
        key.expires_at, key.used_at, expired,
    )  # fmt: skip


async def add_key(visit: Visit) -> Response:
    """POST /ui/keys: add a pasted public key."""
    form = await read_form(visit.request)
    text, title = form.text("key"), form.text("title")
    try:
        key = await visit.services.accounts.add_public_key(visit.account, text, title)
    except (RequestInvalid, Conflict) as error:
        note(visit.request, "key.add", visit.name, word_of(error))
        # a private key that was pasted by mistake is not sent back
        pasted = "" if "PRIVATE" in text else text[:1000]
        return await _keys_page(
            visit, status_of(error), wrong=sentence(str(error)), pasted=pasted,
            pasted_title=title[:100],
        )  # fmt: skip
    return _done(visit, "key.add", key.fingerprint, "added")


def _done(visit: Visit, action: str, target: str, word: str) -> Response:
    """Note a write that succeeded, and show the keys as they are now."""
    note(visit.request, action, target)
    return go(f"/ui/keys?done={word}")


async def revoke_key(visit: Visit) -> Response:
    """POST /ui/keys/revoke: one of one's own; that of another is not there."""
    form = await read_form(visit.request)
    key = await visit.services.accounts.remove_public_key(form.text("fingerprint"), visit.account)
    return _done(visit, "key.remove", key.fingerprint, "revoked")


async def make_token(visit: Visit) -> Response:
    """POST /ui/tokens: the answer shows the new key, once."""
    form = await read_form(visit.request)
    title = form.text("title")
    try:
        wish = ApiKeyWish(title, _groups(form), None, _life_s(form))
        made = await visit.services.accounts.create_api_key(visit.account, wish)
    except (RequestInvalid, Conflict) as error:
        note(visit.request, "token.make", visit.name, word_of(error))
        return await _keys_page(
            visit, status_of(error), wrong=sentence(str(error)), wants_token=True,
            token_title=title[:100], chosen=set(form.texts("group")),
        )  # fmt: skip
    note(visit.request, "token.make", made.key.id)
    return await _keys_page(visit, made=made)


def _groups(form: Form) -> Group:
    groups = parse_groups(",".join(form.texts("group")))
    if not groups:
        raise RequestInvalid("choose at least one thing that the key may be used for")
    return groups


def _life_s(form: Form) -> int | None:
    days = {str(days): days for days, _ in LIVES}.get(form.text("days"))
    if days is None:
        raise RequestInvalid("choose when the key expires")
    return days * _DAY_S or None


async def revoke_token(visit: Visit) -> Response:
    """POST /ui/tokens/revoke: one of one's own."""
    form = await read_form(visit.request)
    key = await visit.services.accounts.revoke_api_key(form.text("id"), visit.account)
    return _done(visit, "token.revoke", key.id, "revoked")


async def ask_enrol(visit: Visit) -> Response:
    """GET /ui/enrol/:code: what a client that was refused sent somebody here for."""
    code = visit.request.path_params["code"]
    try:
        asked = await visit.services.accounts.pending(code)
    except NotFound:
        return _gone(visit)
    life = visit.services.settings.credentials.code_s * 10**9
    return visit.render("enrol", asked=asked, asked_at=asked.expires_at - life, code=code)


def _gone(visit: Visit) -> Response:
    return visit.render(
        "message", 404, heading=GONE,
        text="It has expired, or was used already. Type the command on that machine once more: "
        "a new link comes.",
        way="/ui/keys", way_text="To my keys",
    )  # fmt: skip


async def enrol(visit: Visit) -> Response:
    """POST /ui/enrol/:code: add the key, or make the link void."""
    form = await read_form(visit.request)
    code, accounts = visit.request.path_params["code"], visit.services.accounts
    try:
        if form.text("answer") != "confirm":
            asked = await accounts.pending(code)
            await accounts.refuse_enrolment(code)
            return _done(visit, "key.refuse", asked.fingerprint, "refused")
        title = check_title(form.text("title"))
        key = await accounts.confirm_enrolment(code, visit.account)
        if title and title != key.title:
            await accounts.add_public_key(visit.account, key.blob, title, key.rights)
    except NotFound:
        return _gone(visit)
    return _done(visit, "key.add", key.fingerprint, "added")


routes = [
    resource("/ui/keys", GET=signed_in(keys), POST=signed_in(add_key)),
    resource("/ui/keys/revoke", POST=signed_in(revoke_key)),
    resource("/ui/tokens", POST=signed_in(make_token)),
    resource("/ui/tokens/revoke", POST=signed_in(revoke_token)),
    resource("/ui/enrol/{code}", GET=signed_in(ask_enrol), POST=signed_in(enrol)),
]
