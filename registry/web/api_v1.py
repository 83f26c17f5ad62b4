"""`/api/v1`: who one is, accounts, public keys and API keys. Rights and audit: `api_v1_rights.py`.

Secrets come in bodies only; the text of an API key goes out once, in the answer that makes it.
"""

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from registry.core.access import (
    Group,
    Right,
    Scope,
    check_pattern,
    group_words,
    parse_groups,
    parse_rights,
    right_words,
)
from registry.core.accounts import is_api_key
from registry.core.errors import Conflict, Forbidden, NotFound, Unauthenticated
from registry.ports import accounts as kept
from registry.services.access.accounts import Accounts
from registry.services.access.keys import ApiKeyWish
from registry.web import api_v1_fleet, api_v1_jobs, api_v1_rights, api_v1_signing, api_v1_upkeep
from registry.web import api_v1_schemas as schemas
from registry.web.auth import auth_of
from registry.web.endpoints import Call, Endpoint, For, routes_of
from registry.web.forms import SESSION, cookie, drop_cookie, set_cookie
from registry.web.proxies import client_address

_NS = 1_000_000_000
WRONG_PASSWORD = "unknown user or wrong password"  # noqa: S105 - a message


def accounts_of(call: Call) -> Accounts:
    """The service."""
    found: Accounts = call.request.app.state.services.accounts
    return found


def moment(ns: int) -> datetime:
    """A time as the API writes it."""
    return datetime.fromtimestamp(ns // _NS, UTC)


def _moment(ns: int | None) -> datetime | None:
    return None if ns is None else moment(ns)


async def me(call: Call) -> schemas.Me:
    """Who the caller is, and what the credential may be used for."""
    caller = call.caller
    teams = await accounts_of(call).teams() if caller.name else []
    return schemas.Me.model_validate(
        {
            "name": caller.name,
            "is_admin": caller.is_admin,
            "groups": group_words(caller.groups),
            "via": caller.via,
            "teams": [team.name for team in teams if caller.name in team.members],
        }
    )


async def setup(call: Call) -> schemas.User:
    """Make the first administrator, with the one-time code that the service printed."""
    ask = call.asked(schemas.SetupAsk)
    call.note("account.setup", ask.name)
    made = await accounts_of(call).complete_setup(
        ask.code, ask.name, ask.password.get_secret_value()
    )
    return _user(made)


async def sign_in(call: Call) -> schemas.Me:
    """Begin a session, which comes as a cookie. Programs use an API key instead."""
    ask = call.asked(schemas.SignInAsk)
    call.note("session.begin", ask.name)
    made = await accounts_of(call).sign_in(
        ask.name, ask.password.get_secret_value(), client_address(call.request)
    )
    life_s = call.request.app.state.services.settings.credentials.session_s
    call.then(partial(set_cookie, call.request, SESSION, made.session, life_s))
    return await me(replace(call, caller=made.caller))


async def sign_out(call: Call) -> None:
    """End the session of the cookie."""
    call.note("session.end", call.caller.name)
    await accounts_of(call).sign_out(cookie(call.request, SESSION))
    call.then(partial(drop_cookie, call.request, SESSION))


# people


async def users(call: Call) -> schemas.Users:
    """Accounts of every kind, by name."""
    page = call.wanted(schemas.Page)
    found = await accounts_of(call).accounts((page.after or "").lower(), page.limit)
    following = found[-1].name if len(found) == page.limit else None
    return schemas.Users(users=[_user(account) for account in found], next=following)


async def add_user(call: Call) -> schemas.User:
    """Make an account. Robots and nodes have no password: give them keys."""
    ask = call.asked(schemas.NewUser).root
    call.note("user.add", ask.name)
    if isinstance(ask, schemas.NewMachine):
        return _user(await accounts_of(call).create_machine(ask.name, ask.kind))
    password = ask.password.get_secret_value() if ask.password else None
    return _user(await accounts_of(call).create_user(ask.name, password, admin=ask.is_admin))


async def user(call: Call) -> schemas.User:
    """One account."""
    return _user(await accounts_of(call).named(call.path["user"]))


async def change_user(call: Call) -> schemas.User:
    """Disable an account or enable it again; make a person administrator, or no longer."""
    ask, accounts = call.asked(schemas.UserChange), accounts_of(call)
    call.note("user.change", call.path["user"])
    account = await accounts.named(call.path["user"])
    if ask.is_admin is not None and ask.is_admin != account.is_admin:
        _check_person(account)
        account = await accounts.set_admin(account.id, ask.is_admin)
    if ask.disabled is not None and ask.disabled != account.disabled:
        account = await accounts.set_disabled(account.id, ask.disabled)
    return _user(account)


async def delete_user(call: Call) -> None:
    """Delete an account with its keys, sessions and rights. What it pushed stays."""
    call.note("user.delete", call.path["user"])
    account = await accounts_of(call).named(call.path["user"])
    await accounts_of(call).delete_account(account.id)


async def set_password(call: Call) -> None:
    """Set a password. Administrators set anybody's; whoever sets their own gives the old one.

    All sessions of the account end.
    """
    ask, accounts = call.asked(schemas.PasswordChange), accounts_of(call)
    call.note("password.set", call.path["user"])
    account_id = await _owner(call, call.path["user"])
    if account_id == call.account_id:
        old = ask.old_password.get_secret_value() if ask.old_password else ""
        if is_api_key(old):  # it would do elsewhere
            raise Unauthenticated(WRONG_PASSWORD)
        await accounts.by_password(call.caller.name, old, client_address(call.request))
    _check_person(await accounts.account(account_id))
    await accounts.set_password(account_id, ask.password.get_secret_value())


def _check_person(account: kept.Account) -> None:
    """Raises Conflict if it is a machine's: that has no password and administers nothing."""
    if account.kind != "user":
        raise Conflict(f"{account.name} is a {account.kind} and no person")


def _user(account: kept.Account) -> schemas.User:
    return schemas.User.model_validate(
        {
            "name": account.name,
            "kind": account.kind,
            "is_admin": account.is_admin,
            "disabled": account.disabled,
            "created_at": moment(account.created_at),
        }
    )


async def _owner(call: Call, name: str | None) -> int:
    """Whose things are meant: the caller's own, or for administrators those of `name`.

    Raises:
        Forbidden: another's, whether there is such an account or not.
    """
    if name is None or name.lower() == call.caller.name.lower():
        return call.account_id
    if not call.caller.is_admin:
        raise Forbidden("only an administrator can do this for somebody else")
    return (await accounts_of(call).named(name)).id


def _check_whole(call: Call) -> None:
    """Credentials that are for some uses only must not make others that are for more.

    Raises:
        Forbidden: the caller's is such a one.
    """
    if call.caller.groups != Group.ALL or call.caller.scopes is not None:
        raise Forbidden("a credential that is limited to some uses cannot make others")


# public keys


async def keys(call: Call) -> schemas.PublicKeys:
    """Public keys: one's own, or for administrators those of `user`."""
    owner = await _owner(call, call.wanted(schemas.OfUser).user)
    found = await accounts_of(call).public_keys(owner)
    return schemas.PublicKeys(keys=[_key(key) for key in found])


async def add_key(call: Call) -> schemas.PublicKey:
    """Add a public key of an Ollama client. One that is there already gets the new title."""
    ask = call.asked(schemas.NewPublicKey)
    call.note("key.add", ask.user or call.caller.name)
    _check_whole(call)
    owner = await _owner(call, ask.user)
    rights = parse_rights(",".join(ask.rights))
    return _key(await accounts_of(call).add_public_key(owner, ask.key, ask.title, rights))


async def remove_key(call: Call) -> None:
    """Revoke a public key, at once and for good."""
    ask = call.wanted(schemas.OneKey)
    call.note("key.remove", ask.fingerprint)
    owner = await _owner(call, ask.user)
    await accounts_of(call).remove_public_key(ask.fingerprint, owner)


async def enrol(call: Call) -> schemas.PublicKey:
    """Attach a machine's own public key to the account for which its one-time code was made."""
    ask = call.asked(schemas.Enrolment)
    call.note("key.enrol", client_address(call.request))
    try:
        made = await accounts_of(call).enrol_node(ask.code, ask.key)
    except NotFound:
        auth_of(call.request).count_guess(call.request)
        raise
    call.writes[:] = [("key.enrol", made.fingerprint)]
    return _key(made)


def _key(key: kept.PublicKey) -> schemas.PublicKey:
    return schemas.PublicKey.model_validate(
        {
            "fingerprint": key.fingerprint,
            "title": key.title,
            "rights": right_words(key.rights),
            "created_at": moment(key.created_at),
            "used_at": _moment(key.used_at),
        }
    )


# API keys


async def tokens(call: Call) -> schemas.Tokens:
    """API keys, without their texts: one's own, or for administrators those of `user`."""
    owner = await _owner(call, call.wanted(schemas.OfUser).user)
    found = await accounts_of(call).api_keys(owner)
    return schemas.Tokens(tokens=[schemas.Token.model_validate(_token(key)) for key in found])


async def make_token(call: Call) -> schemas.MadeToken:
    """Make an API key. This answer is the only one that has its text."""
    ask = call.asked(schemas.NewToken)
    call.note("token.make", ask.user or call.caller.name)
    _check_whole(call)
    owner = await _owner(call, ask.user)
    scopes = None if ask.scopes is None else tuple(_scope(item) for item in ask.scopes)
    wish = ApiKeyWish(ask.title, parse_groups(",".join(ask.groups)), scopes, ask.expires_in_s)
    made = await accounts_of(call).create_api_key(owner, wish)
    return schemas.MadeToken.model_validate({**_token(made.key), "token": made.text})


async def revoke_token(call: Call) -> None:
    """Revoke an API key, at once and for good."""
    call.note("token.revoke", call.path["token"])
    owner = None if call.caller.is_admin else call.account_id
    await accounts_of(call).revoke_api_key(call.path["token"], owner)


def _scope(item: schemas.ScopeText) -> Scope:
    rights: Right = parse_rights(",".join(item.rights))
    return Scope(check_pattern(item.pattern), rights)


def _token(key: kept.ApiKey) -> dict[str, object]:
    scopes = None
    if key.scopes is not None:
        scopes = [
            {"pattern": scope.pattern, "rights": right_words(scope.rights)} for scope in key.scopes
        ]
    return {
        "id": key.id,
        "title": key.title,
        "hint": key.hint,
        "groups": group_words(key.groups),
        "scopes": scopes,
        "created_at": moment(key.created_at),
        "expires_at": _moment(key.expires_at),
        "used_at": _moment(key.used_at),
    }


_V1 = "/api/v1"
ENDPOINTS = (
    Endpoint("GET", f"{_V1}/me", me, For.SIGNED_IN, schemas.Me),
    Endpoint(
        "POST", f"{_V1}/setup", setup, For.EVERYBODY, schemas.User,
        body=schemas.SetupAsk, status=201, errors=(404, 409),
    ),
    Endpoint(
        "POST", f"{_V1}/sign-in", sign_in, For.EVERYBODY, schemas.Me,
        body=schemas.SignInAsk, errors=(401, 409, 429),
    ),
    Endpoint("POST", f"{_V1}/sign-out", sign_out, For.SIGNED_IN),
    Endpoint("GET", f"{_V1}/users", users, For.ADMIN, schemas.Users, query=schemas.Page),
    Endpoint(
        "POST", f"{_V1}/users", add_user, For.ADMIN, schemas.User,
        body=schemas.NewUser, status=201,
    ),
    Endpoint("GET", f"{_V1}/users/{{user}}", user, For.ADMIN, schemas.User),
    Endpoint(
        "PATCH", f"{_V1}/users/{{user}}", change_user, For.ADMIN, schemas.User,
        body=schemas.UserChange,
    ),
    Endpoint("DELETE", f"{_V1}/users/{{user}}", delete_user, For.ADMIN),
    Endpoint(
        "PUT", f"{_V1}/users/{{user}}/password", set_password, For.OWNER,
        body=schemas.PasswordChange,
    ),
    Endpoint(
        "GET", f"{_V1}/keys", keys, For.OWNER, schemas.PublicKeys,
        query=schemas.OfUser, errors=(404,),
    ),
    Endpoint(
        "POST", f"{_V1}/keys", add_key, For.OWNER, schemas.PublicKey,
        body=schemas.NewPublicKey, status=201, errors=(404,),
    ),
    Endpoint(
        "POST", f"{_V1}/enrol", enrol, For.EVERYBODY, schemas.PublicKey,
        body=schemas.Enrolment, status=201, errors=(404, 409, 429),
    ),
    Endpoint("DELETE", f"{_V1}/keys", remove_key, For.OWNER, query=schemas.OneKey, errors=(404,)),
    Endpoint(
        "GET", f"{_V1}/tokens", tokens, For.OWNER, schemas.Tokens,
        query=schemas.OfUser, errors=(404,),
    ),
    Endpoint(
        "POST", f"{_V1}/tokens", make_token, For.OWNER, schemas.MadeToken,
        body=schemas.NewToken, status=201, errors=(404,),
    ),
    Endpoint("DELETE", f"{_V1}/tokens/{{token}}", revoke_token, For.OWNER),
    *api_v1_rights.ENDPOINTS,
    *api_v1_signing.ENDPOINTS,
    *api_v1_fleet.ENDPOINTS,
    *api_v1_upkeep.ENDPOINTS,
    *api_v1_jobs.ENDPOINTS,
)  # fmt: skip
routes = routes_of(ENDPOINTS)
