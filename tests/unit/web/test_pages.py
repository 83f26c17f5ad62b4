import re
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.access import Group, Right, Scope
from registry.services.access.keys import ApiKeyWish
from registry.web.forms import FORM_BYTES, own_path
from registry.web.pages import WRONG
from tests.support.accounts import PASSWORD, cheap_passwords, key_blob
from tests.support.asgi import Caller
from tests.support.site import HOST, Browser, Site, site

pytestmark = pytest.mark.anyio

LINE = f"ssh-ed25519 {key_blob(1)} me@laptop"
XSS = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'><svg/onload=alert(1)>",
    "</textarea><script>x</script>",
    "javascript:alert(1)",
    "{{ 7*7 }}{% raw %}",
    "&lt;b&gt;",
    "\"autofocus onfocus=alert(1) x=\"",
]  # fmt: skip


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as made:
        yield made


# the first page


async def test_clients_find_the_liveness_text_and_browsers_the_page(here: Site) -> None:
    ask = Caller(here.app, {"host": HOST})
    for accept in ("*/*", "application/json", ""):
        answer = await ask("GET", "/", accept=accept)
        assert (answer.status, answer.body) == (200, b"Ollama is running")
    assert (await ask("HEAD", "/", accept="text/html")).status == 200
    answer = await ask("GET", "/", accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert (answer.status, answer.headers["location"]) == (303, "/ui/")


async def test_without_authentication_one_page_tells_how_to_begin(tmp_path: Path) -> None:
    async with site(tmp_path, auth=False) as off:
        browser = off.browser()
        assert (await browser.get("/ui/")).status == 200
        assert f"OLLAMA_HOST=http://{HOST} ollama pull" in browser.text
        assert "REGISTRY_AUTH=true registry serve" in browser.text
        for path in ("/ui/sign-in", "/ui/setup", "/ui/keys", "/ui/account", "/ui/enrol/X"):
            answer = await browser.get(path)
            assert (path, answer.status, answer.headers["location"]) == (path, 303, "/ui/")
        answer = await browser.post("/ui/sign-in", {"name": "a", "password": "b"})
        assert answer.status == 403


@pytest.mark.parametrize(
    "path", ["/ui/", "/ui/sign-in", "/ui/setup", "/ui/keys", "/ui/none", "/ui/static/style.css"]
)
async def test_every_answer_bears_the_headers(here: Site, path: str) -> None:
    answer = await here.browser().get(path)
    if answer.status == 404:
        return
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'")
    assert "script" not in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["x-frame-options"] == "DENY"
    kept = "max-age=31536000" if "static" in path else "no-store"
    assert answer.headers["cache-control"] == kept


async def test_static_files_are_two_and_no_path(here: Site) -> None:
    browser = here.browser()
    assert (await browser.get("/ui/static/icon.svg")).headers["content-type"] == "image/svg+xml"
    for name in ("none", "..%2fpages.py", "%2e%2e", "style.css%00"):
        assert (await browser.get(f"/ui/static/{name}")).status == 404


# set-up


async def test_the_code_makes_the_first_administrator_once(here: Site) -> None:
    code = await here.accounts.ensure_setup_code()
    assert code is not None
    browser = here.browser()
    assert (await browser.get("/ui/")).headers["location"] == "/ui/setup"
    await browser.get("/ui/setup")
    fields = {"code": "0" * 24, "name": "root", "password": PASSWORD}
    answer = await browser.post("/ui/setup", fields)
    assert answer.status == 404
    assert PASSWORD.encode() not in answer.body
    answer = await browser.post("/ui/setup", {**fields, "code": code, "password": "short"})
    assert answer.status == 400
    assert "at least 10 characters" in browser.text
    answer = await browser.post("/ui/setup", {**fields, "code": code})
    assert (answer.status, answer.headers["location"]) == (303, "/ui/keys")
    assert (await browser.get("/ui/keys")).status == 200
    assert (await here.accounts.named("root")).is_admin
    other = here.browser()
    assert (await other.get("/ui/setup")).headers["location"] == "/ui/"
    await other.get("/ui/sign-in")
    answer = await other.post("/ui/setup", {**fields, "code": code, "name": "second"})
    assert answer.status == 404


# sessions


async def test_a_sign_in_leads_back_to_the_page_that_was_asked_for(here: Site) -> None:
    await here.person()
    browser = here.browser()
    answer = await browser.get("/ui/account")
    assert answer.headers["location"] == "/ui/sign-in?next=%2Fui%2Faccount"
    await browser.get(answer.headers["location"])
    fields = {"name": "Alice", "password": PASSWORD, "next": browser.page.hidden["next"]}
    answer = await browser.post("/ui/sign-in", fields)
    assert (answer.status, answer.headers["location"]) == (303, "/ui/account")
    assert (await browser.get("/ui/account")).status == 200
    assert "alice" in browser.text


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/", "//evil.example", "/\\evil.example", "/ui/../api/tags",
        "/ui//evil.example", "javascript:alert(1)", "/ui/keys\r\nSet-Cookie: a=b", "/ui/enrol/",
        "/ui/enrol/a/../../x", "/ui/keys?x", "%2f%2fevil.example", "/ui/sign-out", "",
    ],
)  # fmt: skip
async def test_no_redirect_leads_elsewhere(here: Site, wanted: str) -> None:
    assert own_path(wanted) == "/ui/"
    await here.person()
    browser = here.browser()
    await browser.get("/ui/sign-in")
    fields = {"name": "alice", "password": PASSWORD, "next": wanted}
    answer = await browser.post("/ui/sign-in", fields)
    assert (answer.status, answer.headers["location"]) == (303, "/ui/")


async def test_a_sign_in_makes_a_new_session_and_ends_the_old_one(here: Site) -> None:
    browser = await here.signed_in()
    first = dict(browser.cookies)
    await browser.get("/ui/account")
    fields = {"name": "alice", "password": PASSWORD}
    assert (await browser.post("/ui/sign-in", fields)).status == 303
    assert browser.cookies["registry_session"] != first["registry_session"]
    assert "registry_visit" not in browser.cookies
    stale = Browser(here, first)
    assert (await stale.get("/ui/keys")).status == 303
    assert (await browser.get("/ui/keys")).status == 200


async def test_a_session_that_was_planted_is_not_taken_over(here: Site) -> None:
    await here.person()
    planted = "A" * 43
    browser = Browser(here, {"registry_session": planted})
    await browser.sign_in()
    assert browser.cookies["registry_session"] != planted
    assert (await Browser(here, {"registry_session": planted}).get("/ui/keys")).status == 303


async def test_sign_out_ends_the_session_on_the_server(here: Site) -> None:
    browser = await here.signed_in()
    kept = dict(browser.cookies)
    await browser.get("/ui/keys")
    answer = await browser.post("/ui/sign-out", {})
    assert (answer.status, answer.headers["location"]) == (303, "/ui/sign-in")
    assert "registry_session" not in browser.cookies
    assert (await Browser(here, kept).get("/ui/keys")).status == 303


async def test_a_session_ends_by_itself(here: Site) -> None:
    browser = await here.signed_in()
    here.clock.pass_s(here.services.settings.credentials.session_s + 1)
    assert (await browser.get("/ui/keys")).status == 303


async def test_a_disabled_person_is_out_at_once(here: Site) -> None:
    browser = await here.signed_in()
    account = await here.accounts.named("alice")
    await here.accounts.set_disabled(account.id)
    assert (await browser.get("/ui/keys")).status == 303


async def test_cookies_by_https_are_bound_to_the_host(tmp_path: Path) -> None:
    async with site(tmp_path, external_url="https://models.example.com", host="0.0.0.0") as far:
        await far.person()
        browser = far.browser()
        await browser.get("/ui/sign-in")
        fields = {"name": "alice", "password": PASSWORD}
        answer = await browser.post("/ui/sign-in", fields, origin="https://models.example.com")
        made = next(value for name, value in answer.pairs if name == "set-cookie")
        name, *rest = [part.strip().lower() for part in made.split(";")]
        assert name.startswith("__host-registry_session=")
        assert {"httponly", "secure", "samesite=lax", "path=/"} <= set(rest)
        assert not any(part.startswith("domain") for part in rest)
        assert (await browser.get("/ui/keys")).status == 200
        plain = {"registry_session": browser.cookies["__Host-registry_session"]}
        assert (await Browser(far, plain).get("/ui/keys")).status == 303


# forms of other sites


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({}, {"token": ""}),
        ({}, {"token": "wrong"}),
        ({}, {"token": "\u00e9"}),
        ({"origin": "https://evil.example"}, {}),
        ({"origin": "null"}, {}),
        ({"origin": "http://localhost:3000"}, {}),
        ({"sec_fetch_site": "cross-site"}, {}),
        ({"sec_fetch_site": "same-site"}, {}),
    ],
)
async def test_forms_of_other_pages_are_refused(
    here: Site, headers: dict[str, str], fields: dict[str, str]
) -> None:
    browser = await here.signed_in()
    await browser.get("/ui/keys")
    forms = {
        "/ui/keys": {"key": LINE},
        "/ui/tokens": {"title": "x", "group": "read", "days": "30"},
        "/ui/account": {"old": PASSWORD, "new": "another password", "again": "another password"},
        "/ui/sign-out": {},
        "/ui/sign-in": {"name": "alice", "password": PASSWORD},
    }
    for path, given in forms.items():
        answer = await browser.post(
            path, {**given, **({"token": browser.page.hidden["token"]} | fields)}, **headers
        )
        assert (path, answer.status) == (path, 403)
        assert "set-cookie" not in answer.headers
        await browser.get("/ui/keys")
    account = await here.accounts.named("alice")
    assert await here.accounts.public_keys(account.id) == []
    assert await here.accounts.api_keys(account.id) == []


async def test_the_token_of_another_session_is_refused(here: Site) -> None:
    alice, mallory = await here.signed_in(), await here.signed_in("mallory")
    await mallory.get("/ui/keys")
    await alice.get("/ui/keys")
    token = mallory.page.hidden["token"]
    assert (await alice.post("/ui/keys", {"key": LINE, "token": token})).status == 403


async def test_a_form_without_any_cookie_is_refused(here: Site) -> None:
    await here.person()
    browser = here.browser()
    await browser.get("/ui/sign-in")
    browser.cookies.clear()
    answer = await browser.post("/ui/sign-in", {"name": "alice", "password": PASSWORD})
    assert answer.status == 403


async def test_what_is_no_form_of_ours_costs_one_error(here: Site) -> None:
    browser = await here.signed_in()
    await browser.get("/ui/keys")
    big = await browser.post("/ui/keys", {"key": "x" * FORM_BYTES})
    many = await browser.post("/ui/keys", {str(number): "" for number in range(50)})
    kind = await browser.post("/ui/keys", {"key": LINE}, content_type="application/json")
    assert (big.status, many.status, kind.status) == (413, 400, 400)
    assert all(answer.headers["content-type"].startswith("text/html") for answer in (big, many))


# who has an account


async def test_a_wrong_name_and_a_wrong_password_look_alike(here: Site) -> None:
    await here.person()
    browser = here.browser()
    seen = set()
    for name in ("alice", "nobody", "x" * 79, "not a name", "", "library"):
        answer = await browser.sign_in(name, "a wrong password")
        assert WRONG in browser.text
        seen.add((answer.status, re.sub(r'value="[^"]*"|autofocus| ', "", answer.body.decode())))
        here.clock.pass_s(61)
    assert len(seen) == 1


async def test_a_wrong_name_and_a_wrong_password_take_as_long(here: Site) -> None:
    slow = cheap_passwords(time_cost=400)  # a hash outweighs everything else
    here.accounts._passwords = slow
    await here.person()
    browser = here.browser()
    await browser.get("/ui/sign-in")
    took: dict[str, list[float]] = {"alice": [], "nobody": []}
    for _ in range(7):
        for name, times in took.items():
            here.clock.pass_s(61)
            began = time.perf_counter()
            await browser.post("/ui/sign-in", {"name": name, "password": "a wrong password"})
            times.append(time.perf_counter() - began)
    known, unknown = (statistics.median(times) for times in took.values())
    assert 0.5 < known / unknown < 2


async def test_guessing_is_slowed_down_with_a_page_that_says_so(here: Site) -> None:
    await here.person()
    browser = here.browser()
    limit = here.services.settings.credentials.tries_per_minute
    for _ in range(limit):
        assert (await browser.sign_in("alice", "a wrong password")).status == 403
    answer = await browser.sign_in("alice")
    assert answer.status == 429
    assert int(answer.headers["retry-after"]) > 0
    assert "Too many failed sign-ins" in browser.text
    here.clock.pass_s(61)
    assert (await browser.sign_in("alice")).status == 303


# keys


async def test_a_key_is_pasted_shown_and_revoked(here: Site) -> None:
    browser = await here.signed_in()
    await browser.get("/ui/keys")
    assert f"OLLAMA_HOST=http://{HOST} OLLAMA_AUTH=1 ollama signin" in browser.text
    answer = await browser.post("/ui/keys", {"key": f" {LINE}\r\n", "title": "Laptop"})
    assert answer.headers["location"] == "/ui/keys?done=added"
    await browser.get("/ui/keys?done=added")
    account = await here.accounts.named("alice")
    (key,) = await here.accounts.public_keys(account.id)
    assert key.fingerprint in browser.text
    assert "Laptop" in browser.text
    assert "The key is added" in browser.text
    answer = await browser.post("/ui/keys/revoke", {"fingerprint": key.fingerprint})
    assert answer.headers["location"] == "/ui/keys?done=revoked"
    assert await here.accounts.public_keys(account.id) == []


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", "A public key is one line"),
        ("ssh-rsa AAAA", "Only keys of type ssh-ed25519"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n", "That is a private key"),
    ],
)
async def test_what_is_no_key_is_explained_above_the_form(here: Site, key: str, says: str) -> None:
    browser = await here.signed_in()
    await browser.get("/ui/keys")
    answer = await browser.post("/ui/keys", {"key": key, "title": "kept"})
    assert answer.status == 400
    assert says in browser.text
    assert b'value="kept"' in answer.body
    assert b"c2VjcmV0" not in answer.body


async def test_an_api_key_is_shown_once(here: Site) -> None:
    browser = await here.signed_in()
    await browser.get("/ui/keys")
    fields = {"title": "CI", "group": ["read", "infer"], "days": "30"}
    answer = await browser.post("/ui/tokens", fields)
    (text,) = re.findall(r"hf_[A-Za-z0-9]{34,}", answer.body.decode())
    caller = await here.accounts.by_api_key(text)
    assert caller.groups == Group.READ | Group.INFER
    answer = await browser.get("/ui/keys")
    assert text.encode() not in answer.body
    account = await here.accounts.named("alice")
    (key,) = await here.accounts.api_keys(account.id)
    assert key.expires_at is not None
    assert key.expires_at > here.clock() + 29 * 86_400 * 10**9
    await browser.post("/ui/tokens/revoke", {"id": key.id})
    assert await here.accounts.api_keys(account.id) == []


@pytest.mark.parametrize(
    "wrong", [{"group": []}, {"group": "root"}, {"days": "7"}, {"days": "-1"}, {"title": "a\nb"}]
)
async def test_an_api_key_that_cannot_be_is_explained(here: Site, wrong: dict[str, str]) -> None:
    browser = await here.signed_in()
    await browser.get("/ui/keys")
    fields = {"title": "CI", "group": "read", "days": "0", **wrong}
    answer = await browser.post("/ui/tokens", fields)
    assert answer.status == 400
    assert 'role="alert"' in answer.body.decode()
    account = await here.accounts.named("alice")
    assert await here.accounts.api_keys(account.id) == []


async def test_keys_of_others_are_not_there(here: Site) -> None:
    bob = await here.person("bob")
    key = await here.accounts.add_public_key(bob, LINE)
    token = await here.accounts.create_api_key(bob, ApiKeyWish("t"))
    browser = await here.signed_in(admin=True)
    await browser.get("/ui/keys")
    assert key.fingerprint not in browser.text
    token_page = browser.page.hidden["token"]
    for path, fields in (
        ("/ui/keys/revoke", {"fingerprint": key.fingerprint}),
        ("/ui/tokens/revoke", {"id": token.key.id}),
        ("/ui/keys/revoke", {"fingerprint": "SHA256:none"}),
        ("/ui/tokens/revoke", {"id": "\u00e9"}),
    ):
        answer = await browser.post(path, {**fields, "token": token_page})
        assert answer.status == 404
    assert len(await here.accounts.public_keys(bob)) == len(await here.accounts.api_keys(bob)) == 1


def scripts(browser: Browser) -> list[str]:
    """What on the last page could run or load something."""
    tags = [tag for tag, _ in browser.page.tags if tag in {"script", "svg", "iframe", "object"}]
    names = [name for _, given in browser.page.tags for name in given if name.startswith("on")]
    images = [given["src"] or "" for tag, given in browser.page.tags if tag == "img"]
    return tags + names + [src for src in images if not src.startswith("/ui/static/")]


@pytest.mark.parametrize("evil", XSS)
async def test_no_text_becomes_markup(here: Site, evil: str) -> None:
    browser = await here.signed_in()
    account = (await here.accounts.named("alice")).id
    await here.accounts.add_public_key(account, LINE, evil)
    wish = ApiKeyWish(evil, Group.READ, (Scope("team/*", Right.READ),), 60)
    await here.accounts.create_api_key(account, wish)
    code = await here.accounts.begin_enrolment(key_blob(3), evil)
    await browser.get("/ui/keys")
    assert " ".join(evil.split()) in browser.text
    assert scripts(browser) == []
    await browser.get(f"/ui/enrol/{code}")
    assert " ".join(evil.split()) in browser.text
    assert scripts(browser) == []
    token = browser.page.hidden["token"]
    for path, fields in (
        ("/ui/keys", {"key": evil, "title": evil}),
        ("/ui/tokens", {"title": evil, "group": evil, "days": evil}),
        ("/ui/account", {"old": evil, "new": evil, "again": ""}),
        (f"/ui/enrol/{code}", {"answer": "confirm", "title": evil * 20}),
    ):
        answer = await browser.post(path, {**fields, "token": token})
        assert (path, answer.status >= 400, scripts(browser)) == (path, True, [])
    stranger = here.browser()
    await stranger.sign_in(evil, evil)
    assert (stranger.page.hidden["next"], scripts(stranger)) == ("/ui/", [])


# the link of a key


async def test_a_link_shows_fingerprint_and_host_and_adds_the_key(here: Site) -> None:
    browser = await here.signed_in()
    code = await here.accounts.begin_enrolment(key_blob(2), "192.0.2.17")
    await browser.get(f"/ui/enrol/{code}")
    pending = await here.accounts.pending(code)
    for text in (pending.fingerprint, "192.0.2.17", "Confirm only a key of your own machine"):
        assert text in browser.text
    fields = {"answer": "confirm", "title": "Lab machine"}
    answer = await browser.post(f"/ui/enrol/{code}", fields)
    assert answer.headers["location"] == "/ui/keys?done=added"
    account = await here.accounts.named("alice")
    (key,) = await here.accounts.public_keys(account.id)
    assert (key.blob, key.title) == (key_blob(2), "Lab machine")
    assert (await browser.get(f"/ui/enrol/{code}")).status == 404
    assert "no longer good" in browser.text


async def test_a_refused_link_is_void(here: Site) -> None:
    browser = await here.signed_in()
    code = await here.accounts.begin_enrolment(key_blob(2), "192.0.2.17")
    await browser.get(f"/ui/enrol/{code}")
    answer = await browser.post(f"/ui/enrol/{code}", {"answer": "refuse"})
    assert answer.headers["location"] == "/ui/keys?done=refused"
    answer = await browser.post(f"/ui/enrol/{code}", {"answer": "confirm"})
    assert answer.status == 404
    account = await here.accounts.named("alice")
    assert await here.accounts.public_keys(account.id) == []
    assert await here.accounts.begin_enrolment(key_blob(2), "192.0.2.17") != code


async def test_a_link_asks_for_a_sign_in_first_and_expires(here: Site) -> None:
    code = await here.accounts.begin_enrolment(key_blob(2), "192.0.2.17")
    answer = await here.browser().get(f"/ui/enrol/{code}")
    assert answer.headers["location"] == f"/ui/sign-in?next=%2Fui%2Fenrol%2F{code}"
    browser = await here.signed_in()
    here.clock.pass_s(here.services.settings.credentials.code_s + 1)
    assert (await browser.get(f"/ui/enrol/{code}")).status == 404
    assert (await browser.get("/ui/enrol/nothing")).status == 404


# one's own account


async def test_a_changed_password_ends_every_other_session(here: Site) -> None:
    browser = await here.signed_in()
    other = here.browser()
    await other.sign_in()
    await browser.get("/ui/account")
    new = "an entirely new one"
    fields = {"old": PASSWORD, "new": new, "again": new}
    answer = await browser.post("/ui/account", fields)
    assert (answer.status, answer.headers["location"]) == (303, "/ui/account?done")
    await browser.get("/ui/account?done")
    assert "The password is changed." in browser.text
    assert (await other.get("/ui/keys")).status == 303
    assert (await here.browser().sign_in("alice", PASSWORD)).status == 403
    assert (await here.browser().sign_in("alice", new)).status == 303


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"old": "not the old one"}, 403, "The password until now is wrong."),
        ({"again": "something else"}, 400, "typed in two different ways"),
        ({"new": "short", "again": "short"}, 400, "at least 10 characters"),
    ],
)
async def test_a_password_is_not_changed_by_mistake(
    here: Site, fields: dict[str, str], status: int, says: str
) -> None:
    browser = await here.signed_in()
    await browser.get("/ui/account")
    new = "an entirely new one"
    answer = await browser.post(
        "/ui/account", {"old": PASSWORD, "new": new, "again": new, **fields}
    )
    assert answer.status == status
    assert says in browser.text
    assert (await here.browser().sign_in()).status == 303


async def test_an_api_key_is_no_password_of_the_page(here: Site) -> None:
    account = await here.person()
    made = await here.accounts.create_api_key(account, ApiKeyWish("t", Group.ALL))
    assert (await here.browser().sign_in("alice", made.text)).status == 403
    browser = here.browser()
    await browser.sign_in()
    await browser.get("/ui/account")
    new = "an entirely new one"
    answer = await browser.post("/ui/account", {"old": made.text, "new": new, "again": new})
    assert answer.status == 403


# the audit


async def test_what_is_done_on_the_page_is_noted_without_secrets(here: Site) -> None:
    await here.person()
    browser = here.browser()
    await browser.sign_in("alice", "a wrong password")
    await browser.sign_in()
    await browser.get("/ui/keys")
    await browser.post("/ui/keys", {"key": LINE})
    await browser.post("/ui/tokens", {"title": "CI", "group": "read", "days": "30"})
    await browser.post("/ui/keys", {"key": LINE, "token": "wrong"})
    entries = await here.services.audit.entries()
    told = [(entry.action, entry.result, entry.who) for entry in reversed(entries)]
    assert told == [
        ("session.begin", "Unauthenticated", ""),
        ("session.begin", "ok", ""),
        ("key.add", "ok", "alice"),
        ("token.make", "ok", "alice"),
        ("POST /ui/keys", "denied", "alice"),
    ]
    assert {entry.address for entry in entries} == {"127.0.0.1"}
    written = repr(entries)
    assert PASSWORD not in written
    assert "wrong password" not in written
    assert "hf_" not in written
