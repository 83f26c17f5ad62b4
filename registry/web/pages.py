"""`/ui/`: sign in and out, the first administrator, one's own account.

Pages speak to people: an error of a form is shown above the form, what was typed stays in it
(passwords excepted). Whether a name exists is never told.
"""

from starlette.responses import Response

from registry.core.errors import RegistryError, RequestInvalid, Unauthenticated, Unavailable
from registry.web import pages_keys
from registry.web.auditing import note, word_of
from registry.web.forms import (
    SESSION,
    VISIT,
    cookie,
    drop_cookie,
    own_path,
    read_form,
    set_cookie,
)
from registry.web.page import Visit, anybody, go, sentence, signed_in, static
from registry.web.proxies import client_address
from registry.web.resources import resource
from registry.web.statuses import headers_of, status_of

EXAMPLE = "qwen3:0.6b"
WRONG = "The user name or the password is wrong."
DIFFERENT = "The new password was typed in two different ways."
OLD_WRONG = "The password until now is wrong."
CHANGED = "The password is changed."


async def _needs_setup(visit: Visit) -> bool:
    return not await visit.services.accounts.has_admin()


async def start(visit: Visit) -> Response:
    """GET /ui/: where to go from here."""
    if not visit.services.settings.auth:
        http = visit.request.url.scheme == "http"
        return visit.render("welcome", example=EXAMPLE, insecure=" --insecure" if http else "")
    if visit.person is not None:
        return go("/ui/keys")
    return go("/ui/setup" if await _needs_setup(visit) else "/ui/sign-in")


async def ask_sign_in(visit: Visit) -> Response:
    """GET /ui/sign-in."""
    wanted = own_path(visit.request.query_params.get("next", ""))
    if visit.person is not None:
        return go(wanted)
    if not visit.services.settings.auth:
        return go("/ui/")
    return await _sign_in_page(visit, wanted)


async def _sign_in_page(
    visit: Visit, wanted: str, name: str = "", wrong: str = "", status: int = 200
) -> Response:
    needs_setup = await _needs_setup(visit)
    return visit.render(
        "sign_in", status, next=wanted, name=name, wrong=wrong, needs_setup=needs_setup
    )


async def sign_in(visit: Visit) -> Response:
    """POST /ui/sign-in: always a new session; one that the browser had ends."""
    form = await read_form(visit.request)
    name, wanted = form.text("name"), own_path(form.text("next"))
    address = client_address(visit.request)
    try:
        made = await visit.services.accounts.sign_in(name, form.secret("password"), address)
    except Unauthenticated as error:
        note(visit.request, "session.begin", name, word_of(error))
        return await _sign_in_page(visit, wanted, name, WRONG, 403)
    except Unavailable as error:  # too often, or too many at once
        note(visit.request, "session.begin", name, word_of(error))
        refused = await _sign_in_page(visit, wanted, name, sentence(str(error)), status_of(error))
        refused.headers.update(headers_of(error))
        return refused
    note(visit.request, "session.begin", name)
    return await _enter(visit, made.session, wanted)


async def _enter(visit: Visit, session: str, wanted: str) -> Response:
    """Go on in a new session."""
    old = cookie(visit.request, SESSION)
    if old:
        await visit.services.accounts.sign_out(old)
    response = go(wanted)
    life_s = visit.services.settings.credentials.session_s
    set_cookie(visit.request, SESSION, session, life_s, response)
    drop_cookie(visit.request, VISIT, response)
    return response


async def sign_out(visit: Visit) -> Response:
    """POST /ui/sign-out: the session ends here, not only in the browser."""
    await read_form(visit.request)
    await visit.services.accounts.sign_out(visit.session)
    note(visit.request, "session.end", visit.name)
    response = go("/ui/sign-in")
    drop_cookie(visit.request, SESSION, response)
    return response


async def ask_setup(visit: Visit) -> Response:
    """GET /ui/setup: nothing once there is an administrator."""
    if not visit.services.settings.auth or not await _needs_setup(visit):
        return go("/ui/")
    return visit.render("setup", code="", name="")


async def setup(visit: Visit) -> Response:
    """POST /ui/setup: the first administrator, who is signed in at once."""
    form = await read_form(visit.request)
    accounts = visit.services.accounts
    code, name, password = form.text("code"), form.text("name"), form.secret("password")
    address = client_address(visit.request)
    try:
        await accounts.complete_setup(code, name, password)
        made = await accounts.sign_in(name, password, address)
    except RegistryError as error:
        note(visit.request, "account.setup", name, word_of(error))
        return visit.render(
            "setup", status_of(error), code=code, name=name, wrong=sentence(str(error))
        )
    note(visit.request, "account.setup", name)
    return await _enter(visit, made.session, "/ui/keys")


async def account(visit: Visit) -> Response:
    """GET /ui/account."""
    return await _account_page(visit)


async def _account_page(visit: Visit, wrong: str = "", status: int = 200) -> Response:
    teams = [
        team.name for team in await visit.services.accounts.teams() if visit.name in team.members
    ]
    changed = "done" in visit.request.query_params and not wrong
    return visit.render(
        "account", status, here="account", teams=teams, wrong=wrong, done=CHANGED if changed else ""
    )


async def change_password(visit: Visit) -> Response:
    """POST /ui/account: ends all sessions of the account and begins a new one."""
    form = await read_form(visit.request)
    address, new = client_address(visit.request), form.secret("new")
    accounts, name = visit.services.accounts, visit.name
    try:
        if new != form.secret("again"):
            raise RequestInvalid(DIFFERENT)
        await accounts.sign_in(name, form.secret("old"), address)  # no API key will do
        await accounts.set_password(visit.account, new)
        made = await accounts.sign_in(name, new, address)
    except Unauthenticated as error:
        note(visit.request, "password.set", name, word_of(error))
        return await _account_page(visit, OLD_WRONG, 403)
    except RegistryError as error:
        note(visit.request, "password.set", name, word_of(error))
        return await _account_page(visit, sentence(str(error)), status_of(error))
    note(visit.request, "password.set", name)
    return await _enter(visit, made.session, "/ui/account?done")


routes = [
    resource("/ui", GET=anybody(start)),
    resource("/ui/", GET=anybody(start)),
    resource("/ui/sign-in", GET=anybody(ask_sign_in), POST=anybody(sign_in)),
    resource("/ui/sign-out", POST=signed_in(sign_out)),
    resource("/ui/setup", GET=anybody(ask_setup), POST=anybody(setup)),
    resource("/ui/account", GET=signed_in(account), POST=signed_in(change_password)),
    resource("/ui/static/{name}", GET=static),
    *pages_keys.routes,
]
