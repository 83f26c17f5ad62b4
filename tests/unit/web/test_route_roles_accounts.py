"""Every route of the pages, of `/api/v1` and of the health checks, in the table of roles.

The other half of `test_route_roles.py`: here are accounts, keys and rights, one's own and those of
somebody else. On the pages a role is a session, as a browser has it; a role that is a key or a
token sends it there too, where it must count for nothing.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from registry.core.access import Group, Right, Visibility
from registry.ports.accounts import Account
from registry.services.access.callers import csrf_of
from registry.services.access.keys import ApiKeyWish
from registry.web import oci, token
from registry.web.resources import Resource
from tests.support.asgi import Answer
from tests.support.secured import BASE, PASSWORD, Secured, Signer, basic, secured
from tests.unit.web.test_route_roles import LINES as ROLE_LINES
from tests.unit.web.test_route_roles import ROLES

pytestmark = pytest.mark.anyio

PEOPLE = ("stranger", "reader", "writer", "owner")
V1 = "/api/v1"
NO_JOB = "0" * 16


@dataclass(frozen=True)
class Line:
    """A request, and the statuses by role in the order of `ROLES`; `in`: led to sign in.

    In path and body a word in braces is made for the role before it asks: see `Place.made`.
    """

    method: str
    path: str
    expected: str
    body: str = ""
    route: str = ""

    @property
    def shape(self) -> str:
        return f"{self.method} {self.route or self.path}"


OPEN = "200 " * 10
# Administrators alone; a key of hers that is narrower would be refused as the owner's are.
ADMIN = "401 401 403 403 403 403 403 403 403 {}"
# Whoever has a whole credential; the two keys and the token are for other uses.
OWNER = "401 401 {0} {0} {0} {0} 403 403 403 {1}"
# The pages: who is not signed in is sent to do so.
PAGE = "in in {0} {0} {0} {0} in in in {0}"
LINES = [
    Line("GET", "/healthz", OPEN),
    Line("HEAD", "/healthz", OPEN),
    Line("GET", "/readyz", OPEN),
    Line("HEAD", "/readyz", OPEN),
    Line("GET", f"{V1}/openapi.json", OPEN),
    # oneself
    Line("GET", f"{V1}/me", "401 401 200 200 200 200 403 200 403 200"),
    Line("POST", f"{V1}/setup", "404 " * 10,
         '{"code":"ABCDEFGH","name":"boss","password":"an entirely new password"}'),
    Line("POST", f"{V1}/sign-in", OPEN, '{"name":"other","password":"{password}"}'),
    Line("POST", f"{V1}/sign-in", "401 " * 10, '{"name":"other","password":"wrong"}'),
    Line("POST", f"{V1}/sign-out", "401 401 204 204 204 204 403 204 403 204"),
    # accounts
    Line("GET", f"{V1}/users", ADMIN.format(200)),
    Line("POST", f"{V1}/users", ADMIN.format(201), '{"name":"{new name}","is_admin":true}'),
    Line("GET", f"{V1}/users/{{me}}", ADMIN.format(200), route=f"{V1}/users/{{user}}"),
    Line("GET", f"{V1}/users/other", ADMIN.format(200), route=f"{V1}/users/{{user}}"),
    Line("GET", f"{V1}/users/none", ADMIN.format(404), route=f"{V1}/users/{{user}}"),
    Line("PATCH", f"{V1}/users/{{me}}", ADMIN.format(200), '{"is_admin":true}',
         f"{V1}/users/{{user}}"),
    Line("PATCH", f"{V1}/users/other", ADMIN.format(200), '{"disabled":false}',
         f"{V1}/users/{{user}}"),
    Line("DELETE", f"{V1}/users/other", ADMIN.format(204), route=f"{V1}/users/{{user}}"),
    Line("DELETE", f"{V1}/users/none", ADMIN.format(404), route=f"{V1}/users/{{user}}"),
    Line("PUT", f"{V1}/users/{{me}}/password", OWNER.format(204, 204),
         '{"password":"{password}","old_password":"{password}"}',
         f"{V1}/users/{{user}}/password"),
    Line("PUT", f"{V1}/users/{{me}}/password", OWNER.format(401, 401),
         '{"password":"{password}","old_password":"wrong"}',
         f"{V1}/users/{{user}}/password"),
    Line("PUT", f"{V1}/users/other/password", OWNER.format(403, 204),
         '{"password":"{password}","old_password":"{password}"}',
         f"{V1}/users/{{user}}/password"),
    Line("PUT", f"{V1}/users/none/password", OWNER.format(403, 404),
         '{"password":"{password}","old_password":"{password}"}',
         f"{V1}/users/{{user}}/password"),
    # public keys
    Line("GET", f"{V1}/keys", OWNER.format(200, 200)),
    Line("GET", f"{V1}/keys?user=other", OWNER.format(403, 200), route=f"{V1}/keys"),
    Line("GET", f"{V1}/keys?user=none", OWNER.format(403, 404), route=f"{V1}/keys"),
    Line("POST", f"{V1}/keys", OWNER.format(201, 201), '{"key":"{new key}"}'),
    Line("POST", f"{V1}/keys", OWNER.format(403, 201), '{"key":"{new key}","user":"other"}'),
    Line("POST", f"{V1}/enrol", "201 " * 10, '{"code":"{node code}","key":"{new key}"}'),
    Line("POST", f"{V1}/enrol", "404 " * 10, '{"code":"ABCDEFGH","key":"{new key}"}'),
    Line("DELETE", f"{V1}/keys?fingerprint={{own key}}", OWNER.format(204, 204),
         route=f"{V1}/keys"),
    Line("DELETE", f"{V1}/keys?fingerprint={{other key}}", OWNER.format(404, 404),
         route=f"{V1}/keys"),
    Line("DELETE", f"{V1}/keys?fingerprint={{other key}}&user=other", OWNER.format(403, 204),
         route=f"{V1}/keys"),
    # API keys
    Line("GET", f"{V1}/tokens", OWNER.format(200, 200)),
    Line("GET", f"{V1}/tokens?user=other", OWNER.format(403, 200), route=f"{V1}/tokens"),
    Line("POST", f"{V1}/tokens", OWNER.format(201, 201), '{"title":"mine"}'),
    Line("POST", f"{V1}/tokens", OWNER.format(403, 201), '{"title":"its","user":"other"}'),
    Line("DELETE", f"{V1}/tokens/{{own token}}", OWNER.format(204, 204),
         route=f"{V1}/tokens/{{token}}"),
    Line("DELETE", f"{V1}/tokens/{{other token}}", OWNER.format(404, 204),
         route=f"{V1}/tokens/{{token}}"),
    # teams, grants, policies, what is signed, the audit
    Line("GET", f"{V1}/teams", ADMIN.format(200)),
    Line("GET", f"{V1}/teams/core", ADMIN.format(200), route=f"{V1}/teams/{{team}}"),
    Line("PUT", f"{V1}/teams/core", ADMIN.format(200), '{"members":["{me}"]}',
         f"{V1}/teams/{{team}}"),
    Line("DELETE", f"{V1}/teams/core", ADMIN.format(204), route=f"{V1}/teams/{{team}}"),
    Line("GET", f"{V1}/grants", ADMIN.format(200)),
    Line("POST", f"{V1}/grants", ADMIN.format(201),
         '{"subject":"user:{me}","pattern":"*","rights":["all"]}'),
    Line("DELETE", f"{V1}/grants/{{grant}}", ADMIN.format(204), route=f"{V1}/grants/{{grant}}"),
    Line("GET", f"{V1}/policies", ADMIN.format(200)),
    Line("PUT", f"{V1}/policies", ADMIN.format(200),
         '{"pattern":"secret/*","visibility":"public"}'),
    Line("DELETE", f"{V1}/policies?pattern=core/*", ADMIN.format(204), route=f"{V1}/policies"),
    Line("POST", f"{V1}/signing/tokens", ADMIN.format(204)),
    Line("POST", f"{V1}/signing/urls", ADMIN.format(204), "{}"),
    Line("GET", f"{V1}/audit", ADMIN.format(200)),
    # workers, placements, usage; metrics want an administrator, of any credential that may read
    Line("GET", f"{V1}/workers", ADMIN.format(200)),
    Line("POST", f"{V1}/workers", ADMIN.format(201),
         '{"name":"{new name}","kind":"ollama","url":"http://127.0.0.1:1"}'),
    Line("PATCH", f"{V1}/workers/none", ADMIN.format(404), '{"drained":true}',
         f"{V1}/workers/{{worker}}"),
    Line("DELETE", f"{V1}/workers/none", ADMIN.format(404), route=f"{V1}/workers/{{worker}}"),
    Line("GET", f"{V1}/placements", ADMIN.format(200)),
    Line("PUT", f"{V1}/placements", ADMIN.format(404), '{"model":"none","pinned":true}'),
    Line("GET", f"{V1}/usage", ADMIN.format(200)),
    # jobs: one's own, with a credential that may read; to cancel, one that may write
    Line("GET", f"{V1}/jobs", "401 401 200 200 200 200 403 200 403 200"),
    Line("GET", f"{V1}/jobs/{NO_JOB}", "401 401 404 404 404 404 403 404 403 404",
         route=f"{V1}/jobs/{{job}}"),
    Line("DELETE", f"{V1}/jobs/{NO_JOB}", "401 401 404 404 404 404 403 403 403 404",
         route=f"{V1}/jobs/{{job}}"),
    # upkeep; history: of what one may read, with a credential that may
    Line("GET", f"{V1}/storage", ADMIN.format(200)),
    Line("GET", f"{V1}/gc", ADMIN.format(200)),
    Line("POST", f"{V1}/gc", ADMIN.format(200), "{}"),
    Line("POST", f"{V1}/scrub", ADMIN.format(200), "{}"),
    Line("GET", f"{V1}/quotas", ADMIN.format(200)),
    Line("PUT", f"{V1}/quotas", ADMIN.format(200), '{"namespace":"none","bytes":1}'),
    Line("DELETE", f"{V1}/quotas?namespace=no-quota", ADMIN.format(404), route=f"{V1}/quotas"),
    Line("GET", f"{V1}/retention", ADMIN.format(200)),
    Line("PUT", f"{V1}/retention", ADMIN.format(200), '{"pattern":"none/*","keep_last":1}'),
    Line("POST", f"{V1}/retention", ADMIN.format(200), '{"dry_run":true}'),
    Line("DELETE", f"{V1}/retention?pattern=no/rule", ADMIN.format(404),
         route=f"{V1}/retention"),
    Line("GET", f"{V1}/history?model=none", "401 401 404 404 404 404 403 404 403 404",
         route=f"{V1}/history"),
    Line("POST", f"{V1}/history", "401 401 404 404 404 404 403 403 403 404",
         '{"model":"none"}'),
    Line("GET", "/metrics", "401 401 403 403 403 403 403 403 403 200"),
    # the pages
    Line("GET", "/ui", PAGE.format(303)),
    Line("GET", "/ui/", PAGE.format(303)),
    Line("GET", "/ui/static/style.css", OPEN, route="/ui/static/{name}"),
    Line("GET", "/ui/static/none", "404 " * 10, route="/ui/static/{name}"),
    Line("GET", "/ui/sign-in", "200 200 303 303 303 303 200 200 200 303"),
    Line("POST", "/ui/sign-in", "303 " * 10, "name=other&password={password}"),
    Line("POST", "/ui/sign-in", "403 " * 10, "name=other&password=wrong"),
    Line("GET", "/ui/setup", "303 " * 10),
    Line("POST", "/ui/setup", "404 " * 10, "code=ABCDEFGH&name=boss&password={password}"),
    Line("POST", "/ui/sign-out", PAGE.format("in")),
    Line("GET", "/ui/account", PAGE.format(200)),
    Line("POST", "/ui/account", PAGE.format(303),
         "old={password}&new={password}&again={password}"),
    Line("POST", "/ui/account", PAGE.format(403), "old=wrong&new={password}&again={password}"),
    Line("GET", "/ui/keys", PAGE.format(200)),
    Line("POST", "/ui/keys", PAGE.format(303), "key={new key}"),
    Line("POST", "/ui/keys/revoke", PAGE.format(303), "fingerprint={own key}"),
    Line("POST", "/ui/keys/revoke", PAGE.format(404), "fingerprint={other key}"),
    Line("POST", "/ui/tokens", PAGE.format(200), "title=mine&group=read&days=90"),
    Line("POST", "/ui/tokens/revoke", PAGE.format(303), "id={own token}"),
    Line("POST", "/ui/tokens/revoke", PAGE.format(404), "id={other token}"),
    Line("GET", "/ui/enrol/{code}", PAGE.format(200), route="/ui/enrol/{code}"),
    Line("POST", "/ui/enrol/{code}", PAGE.format(303), "answer=confirm",
         route="/ui/enrol/{code}"),
    Line("POST", "/ui/enrol/{code}", PAGE.format(303), "answer=refuse",
         route="/ui/enrol/{code}"),
    # links of workers: their own credentials and no others
    Line("POST", "/api/v1/link/enrolment", "404 " * 10, '{"token":"none","name":"w"}'),
    Line("GET", "/api/v1/link", "401 " * 10),
    Line("POST", "/api/v1/link/report", "401 " * 10, "{}"),
    Line("POST", "/api/v1/link/calls/1", "401 " * 10, "{}", route="/api/v1/link/calls/{call}"),
    Line("GET", f"/api/v1/link/blobs/sha256:{'0' * 64}", "401 " * 10,
         route="/api/v1/link/blobs/{digest}"),
    Line("GET", "/api/v1/link/replicas", "401 " * 10),
    Line("GET", f"/api/v1/link/permits/sha256:{'0' * 64}", "401 " * 10,
         route="/api/v1/link/permits/{digest}"),
]  # fmt: skip


class Place:
    """The application, and what a line wants to be there before it is tried."""

    def __init__(self, secured: Secured) -> None:
        self.secured = secured
        self.accounts = secured.services.accounts
        self._number = 0
        self._keys: dict[str, str] = {}

    async def account(self, role: str) -> Account:
        """Whose credentials a role has; the owner's where it has none or a key of hers."""
        name = {"admin": "root"}.get(role, role)
        return await self.accounts.named(name if name in {*PEOPLE, "root"} else "owner")

    async def begin(self) -> None:
        for name in PEOPLE:
            await self.secured.user(name)
        await self.secured.user("root", admin=True)
        owner = await self.accounts.named("owner")
        for role, group in (("infer key", Group.INFER), ("read key", Group.READ)):
            self._keys[role] = "Bearer " + await self.secured.api_key(owner, group)

    async def reset(self) -> None:
        """What earlier lines may have taken away or given."""
        if not any(account.name == "other" for account in await self.accounts.accounts()):
            await self.secured.user("other")
        await self.accounts.set_team("core", ["other"])
        await self.secured.policy("core/*", Visibility.INTERNAL)

    async def headers(self, role: str, path: str) -> dict[str, str]:
        headers = {}
        if role == "token":  # made for each: keys that sign are replaced meanwhile
            header = basic("owner")
            scope = "repository:team/llama:pull"
            headers["authorization"] = "Bearer " + await self.secured.token(
                scope, authorization=header
            )
        elif role in self._keys:
            headers["authorization"] = self._keys[role]
        elif path.startswith("/ui"):
            headers |= await self._browser(role)
        elif role == "wrong":
            headers["authorization"] = "Bearer nonsense"
        elif role != "nobody":
            headers["authorization"] = basic((await self.account(role)).name)
        return headers

    async def _browser(self, role: str) -> dict[str, str]:
        if role == "nobody":
            return {}
        if role == "wrong":
            return {"cookie": f"__Host-registry_session={'x' * 43}"}
        name = (await self.account(role)).name
        made = await self.accounts.sign_in(name, PASSWORD)
        return {"cookie": f"__Host-registry_session={made.session}"}

    async def made(self, word: str, role: str) -> str:
        """What stands for a word in braces; a new one each time."""
        self._number += 1
        account = await self.account(role)
        other = await self.accounts.named("other")
        blob = Signer(self._number.to_bytes(32, "big")).blob
        match word:
            case "password":
                return PASSWORD
            case "me":
                return account.name
            case "new name":
                return f"new{self._number}"
            case "new key":
                return f"ssh-ed25519 {blob}"
            case "own key" | "other key":
                whose = account if word == "own key" else other
                return (await self.accounts.add_public_key(whose.id, blob)).fingerprint
            case "own token" | "other token":
                whose = account if word == "own token" else other
                return (await self.accounts.create_api_key(whose.id, ApiKeyWish())).key.id
            case "grant":
                return str(await self.secured.grant("user:other", "core/*", Right.READ))
            case "node code":
                return await self.accounts.make_node_code(other.id)
            case "code":
                return await self.accounts.begin_enrolment(blob, "laptop")
        raise AssertionError(word)

    async def _filled(self, text: str, role: str, *, quoted: bool) -> str:
        for word in ("password", "me", "new name", "new key", "own key", "other key",
                     "own token", "other token", "grant", "code", "node code"):  # fmt: skip
            if "{" + word + "}" in text:
                made = await self.made(word, role)
                text = text.replace("{" + word + "}", urlencode({"": made})[1:] if quoted else made)
        return text

    async def try_line(self, line: Line, role: str) -> Answer:
        await self.reset()
        is_page = line.path.startswith("/ui")
        path = await self._filled(line.path, role, quoted=True)
        body = await self._filled(line.body, role, quoted=is_page)
        headers = await self.headers(role, path)
        if is_page and line.method == "POST":
            visit = headers.get("cookie", "__Host-registry_visit=" + "v" * 32)
            headers |= {"cookie": visit, "origin": BASE}
            headers["content_type"] = "application/x-www-form-urlencoded"
            body += f"&token={csrf_of(visit.partition('=')[2])}"
        elif body:
            headers["content_type"] = "application/json"
        return await self.secured.ask(line.method, path, body.encode(), **headers)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    limits = {"tries_per_minute": 10_000, "tokens_per_minute": 10_000}
    async with secured(tmp_path / "data", credentials=limits) as made:
        place = Place(made)
        await place.begin()
        yield place


@pytest.mark.timeout(300)
async def test_the_table_is_true(place: Place) -> None:
    wrong = []
    print("\n" + " " * 62 + " ".join(f"{role[:8]:>8}" for role in ROLES))
    for line in LINES:
        expected = line.expected.split()
        assert len(expected) == len(ROLES), line
        got = []
        for role, status in zip(ROLES, expected, strict=True):
            answer = await place.try_line(line, role)
            led = answer.status == 303 and answer.headers["location"].startswith("/ui/sign-in")
            got.append("in" if led else str(answer.status))
            if got[-1] != status:
                wrong.append(f"{line.shape} {line.body[:60]} as {role}: {got[-1]}, not {status}")
        shown = f"{line.method:6} {line.path[:30]:30} {line.body[:23]:23}"
        print(shown + " " + " ".join(f"{status:>8}" for status in got))
    assert wrong == []


def application_of(app: Any) -> Starlette:
    """The Starlette application inside its middleware."""
    while not isinstance(app, Starlette):
        app = app._app
    return app


async def test_every_route_of_the_application_has_a_line_in_one_of_the_tables(
    place: Place,
) -> None:
    known = {line.shape for line in LINES} | {line.shape for line in ROLE_LINES}
    found = set()
    for route in application_of(place.secured.app).routes:
        assert isinstance(route, Route)
        if route in (*token.routes, *oci.routes):
            continue  # told apart by what their paths name, in the other file
        assert isinstance(route.app, Resource), f"{route.path} is in no table"
        found |= {f"{method} {route.path}" for method in route.app.methods}
    assert found - known == set()
    assert len(found) > 80


async def test_a_form_without_the_browser_s_own_token_changes_nothing(place: Place) -> None:
    await place.reset()
    headers = await place.headers("admin", "/ui/keys")
    headers |= {"origin": BASE, "content_type": "application/x-www-form-urlencoded"}
    for line in LINES:
        if line.method == "POST" and line.path.startswith("/ui"):
            body = line.body + "&token=" + csrf_of("somebody else's")
            path = line.path.replace("{code}", "ABCDEFGH")
            answer = await place.secured.ask("POST", path, body.encode(), **headers)
            assert (path, answer.status) == (path, 403)


async def test_who_is_refused_is_told_nothing_of_others(place: Place) -> None:
    """An account, key or team of somebody else looks as one that was never there."""
    await place.reset()
    for here, absent in (
        ("/users/other", "/users/none"),
        ("/teams/core", "/teams/none"),
        ("/keys?user=other", "/keys?user=none"),
        ("/tokens?user=other", "/tokens?user=none"),
    ):
        answers = [
            await place.secured.ask("GET", V1 + path, authorization=basic("stranger"))
            for path in (here, absent)
        ]
        assert answers[0].status == answers[1].status == 403
        assert json.loads(answers[0].body) == json.loads(answers[1].body)
