from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from registry.core.access import Group, Right, Scope
from registry.services.access.keys import ApiKeyWish
from registry.services.access.tokens import Subject, TokenInvalid
from registry.web.api_v1 import ENDPOINTS
from registry.web.endpoints import BODY_BYTES, Endpoint, For
from registry.web.openapi import document
from tests.support.accounts import PASSWORD, key_blob
from tests.support.asgi import Caller
from tests.support.site import HOST, Site, site

pytestmark = pytest.mark.anyio

LINE = f"ssh-ed25519 {key_blob(1)} me@laptop"
EXAMPLES: dict[str, Any] = {
    "setup": {"code": "0" * 24, "name": "root", "password": PASSWORD},
    "sign_in": {"name": "alice", "password": PASSWORD},
    "add_user": {"name": "carol", "password": PASSWORD},
    "change_user": {"disabled": True},
    "set_password": {"password": "an entirely new one"},
    "add_key": {"key": LINE},
    "enrol": {"code": "0" * 24, "key": LINE},
    "make_token": {"title": "CI"},
    "set_team": {"members": ["bob"]},
    "add_grant": {"subject": "user:bob", "pattern": "team/*", "rights": ["read"]},
    "set_policy": {"pattern": "team/*", "visibility": "internal"},
    "rotate_urls": {"revoke": True},
    "add_worker": {"name": "gpu", "kind": "ollama", "url": "http://gpu:11434"},
    "change_worker": {"drained": True},
    "place": {"model": "team/llama", "labels": ["gpu"]},
}
PATHS = {
    "{user}": "dave",
    "{team}": "core",
    "{token}": "0123",
    "{grant}": "1",
    "{worker}": "gpu",
}
QUERIES = {
    "remove_key": "?fingerprint=SHA256:" + "A" * 43,
    "delete_policy": "?pattern=team/*",
}


class World:
    """A site with an administrator, a member, and their keys."""

    def __init__(self, place: Site) -> None:
        self.site = place
        self.keys: dict[str, str] = {}

    async def fill(self) -> "World":
        self.alice = await self.site.person("alice", admin=True)
        self.bob = await self.site.person("bob")
        self.keys = {
            "admin": await self.key(self.alice, Group.ALL),
            "member": await self.key(self.bob, Group.ALL),
            "reader of an admin": await self.key(self.alice, Group.READ | Group.INFER),
            "reader": await self.key(self.bob, Group.READ | Group.INFER),
            "nobody": "",
            "stranger": "hf_" + "x" * 40,
        }
        return self

    async def key(self, account: int, groups: Group, *scopes: Scope) -> str:
        wish = ApiKeyWish("k", groups, scopes or None)
        return (await self.site.accounts.create_api_key(account, wish)).text

    async def __call__(
        self, method: str, path: str, body: Any = None, who: str = "admin", **headers: str
    ) -> tuple[int, Any]:
        return await self.site.api(method, path, body, self.keys[who], **headers)


@pytest.fixture
async def ask(tmp_path: Path) -> AsyncIterator[World]:
    async with site(tmp_path) as made:
        yield await World(made).fill()


# who may


def _target(endpoint: Endpoint) -> str:
    path = endpoint.path.removeprefix("/api/v1")
    for part, text in PATHS.items():
        path = path.replace(part, text)
    return path + QUERIES.get(endpoint.handler.__name__, "")


REFUSED = {
    For.EVERYBODY: {},
    For.SIGNED_IN: {"nobody": 401, "stranger": 401},
    For.OWNER: {"nobody": 401, "stranger": 401, "reader": 403, "reader of an admin": 403},
    For.ADMIN: {
        "nobody": 401,
        "stranger": 401,
        "reader": 403,
        "reader of an admin": 403,
        "member": 403,
    },
}
REFUSED[For.KEEPER] = REFUSED[For.ADMIN]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda item: item.handler.__name__)
async def test_every_endpoint_is_for_whom_its_row_says(ask: World, endpoint: Endpoint) -> None:
    await ask.site.person("dave")
    body = EXAMPLES.get(endpoint.handler.__name__)
    for who in ask.keys:
        status, answer = await ask(endpoint.method, _target(endpoint), body, who)
        expected = REFUSED[endpoint.access].get(who)
        if expected is not None:
            assert (who, status, list(answer)) == (who, expected, ["error"])
        elif status in {401, 403}:  # they may call it, and not with these values
            own = endpoint.handler.__name__ in {"set_password", "sign_in"}
            assert (who, own, list(answer)) == (who, True, ["error"])
        else:
            assert status < 500


async def test_with_authentication_off_nothing_about_accounts_is_done(tmp_path: Path) -> None:
    async with site(tmp_path, auth=False) as off:
        status, answer = await off.api("GET", "/me")
        assert (status, answer["name"], answer["is_admin"]) == (200, "", True)
        for endpoint in ENDPOINTS:
            if endpoint.access in {For.SIGNED_IN, For.KEEPER}:
                continue
            body = EXAMPLES.get(endpoint.handler.__name__)
            status, answer = await off.api(endpoint.method, _target(endpoint), body)
            assert (status, answer["error"][:22]) == (409, "authentication is off ")
        assert await off.accounts.accounts() == []


# people


async def test_people_are_made_listed_changed_and_deleted(ask: World) -> None:
    status, made = await ask("POST", "/users", {"name": "Carol", "password": PASSWORD})
    assert (status, made["name"], made["is_admin"], made["kind"]) == (201, "Carol", False, "user")
    assert made["created_at"].endswith("Z")
    assert await ask("GET", "/users/carol") == (200, made)
    status, changed = await ask("PATCH", "/users/carol", {"is_admin": True, "disabled": False})
    assert (status, changed["is_admin"]) == (200, True)
    status, robot = await ask("POST", "/users", {"name": "ci", "kind": "robot"})
    assert (status, robot["kind"]) == (201, "robot")
    assert (await ask("PATCH", "/users/ci", {"is_admin": True}))[0] == 409
    assert (await ask("PUT", "/users/ci/password", {"password": PASSWORD}))[0] == 409
    status, first = await ask("GET", "/users?limit=3")
    assert [user["name"] for user in first["users"]] == ["alice", "bob", "Carol"]
    status, rest = await ask("GET", f"/users?limit=3&after={first['next']}")
    assert ([user["name"] for user in rest["users"]], rest["next"]) == (["ci"], None)
    assert await ask("DELETE", "/users/carol") == (204, None)
    assert (await ask("GET", "/users/carol"))[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/users", {"name": "BOB"}, 409),
        ("POST", "/users", {"name": "library"}, 400),
        ("POST", "/users", {"name": "a b"}, 400),
        ("POST", "/users", {"name": "x", "id": 1}, 400),
        ("POST", "/users", {"name": "x", "password": "short"}, 400),
        ("POST", "/users", {"name": "x", "kind": "robot", "is_admin": True}, 400),
        ("PATCH", "/users/alice", {"is_admin": False}, 409),
        ("PATCH", "/users/alice", {"name": "root"}, 400),
        ("DELETE", "/users/alice", None, 409),
        ("GET", "/users/none", None, 404),
        ("GET", "/users/a%2fb", None, 404),
        ("GET", "/users/%00", None, 404),
        ("GET", "/users?limit=0", None, 400),
        ("GET", "/users?limit=1001", None, 400),
        ("GET", "/users?limit=1&limit=2", None, 400),
        ("GET", "/users?filter=1", None, 400),
        ("PUT", "/teams/core", {"members": ["none"]}, 404),
        ("GET", "/teams/none", None, 404),
        ("DELETE", "/teams/none", None, 404),
        ("POST", "/grants", {"subject": "all", "pattern": "*", "rights": ["read"]}, 400),
        ("POST", "/grants", {"subject": "user:none", "pattern": "*", "rights": ["read"]}, 404),
        ("POST", "/grants", {"subject": "everybody", "pattern": "*", "rights": ["write"]}, 400),
        ("POST", "/grants", {"subject": "users", "pattern": "../x y", "rights": ["read"]}, 400),
        ("DELETE", "/grants/99", None, 404),
        ("DELETE", "/grants/99999999999999999999", None, 404),
        ("DELETE", "/policies?pattern=none", None, 404),
        ("PUT", "/policies", {"pattern": "x", "visibility": "secret"}, 400),
        ("GET", "/audit?after=x", None, 400),
    ],
)
async def test_what_cannot_be_is_refused_in_one_sentence(
    ask: World, method: str, path: str, body: Any, status: int
) -> None:
    got, answer = await ask(method, path, body)
    assert (got, list(answer)) == (status, ["error"])
    assert "\n" not in answer["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"x"', b'{"name":1}', b'{"name":"\xff"}',
        b'{"name":"\\ud800"}', b'{"name":"a\\u0000"}', b"[" * 50_000, b'{"x":' * 5_000,
        b'{"name":"x","is_admin":"true"}', b'{"name":"x","name":["y"]}',
    ],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
async def test_a_hostile_body_costs_one_error(ask: World, body: bytes) -> None:
    status, answer = await ask("POST", "/users", body)
    assert (status, list(answer)) == (400, ["error"])
    assert len(answer["error"]) < 900


async def test_bodies_are_bounded_and_must_say_that_they_are_json(ask: World) -> None:
    big = orjson.dumps({"name": "x" * BODY_BYTES})
    assert (await ask("POST", "/users", big))[0] == 413
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        status, answer = await ask("POST", "/users", {"name": "x"}, content_type=kind)
        assert (status, "must be JSON" in answer["error"]) == (400, True)


async def test_errors_do_not_repeat_secrets(ask: World) -> None:
    planted = "hunter2"
    for path, body in (
        ("/users", {"name": "x", "password": planted}),
        ("/users", {"name": "x", "password": [planted]}),
        ("/tokens", {"title": {"x": planted}}),
        ("/keys", {"key": f"-----BEGIN OPENSSH PRIVATE KEY----- {planted}"}),
    ):
        status, answer = await ask("POST", path, body)
        assert (status, planted in str(answer)) == (400, False)


# passwords and sessions


async def test_a_member_changes_the_own_password_with_the_old_one(ask: World) -> None:
    new = "an entirely new one"
    change = {"password": new, "old_password": "wrong"}
    assert (await ask("PUT", "/users/bob/password", change, "member"))[0] == 401
    made = await ask.key(ask.bob, Group.ALL)
    change = {"password": new, "old_password": made}
    assert (await ask("PUT", "/users/bob/password", change, "member"))[0] == 401
    for name in ("alice", "none"):
        status, answer = await ask("PUT", f"/users/{name}/password", change, "member")
        assert (status, "administrator" in answer["error"]) == (403, True)
    change = {"password": new, "old_password": PASSWORD}
    assert await ask("PUT", "/users/BOB/password", change, "member") == (204, None)
    await ask.site.accounts.by_password("bob", new)
    assert await ask("PUT", "/users/bob/password", {"password": PASSWORD}) == (204, None)
    await ask.site.accounts.by_password("bob", PASSWORD)


async def test_a_session_comes_as_a_cookie_and_goes(ask: World) -> None:
    caller = Caller(ask.site.app, {"host": HOST, "content-type": "application/json"})
    wrong = orjson.dumps({"name": "bob", "password": "wrong"})
    answer = await caller("POST", "/api/v1/sign-in", wrong)
    assert (answer.status, "set-cookie" in answer.headers) == (401, False)
    body = orjson.dumps({"name": "bob", "password": PASSWORD})
    answer = await caller("POST", "/api/v1/sign-in", body)
    assert answer.status == 200
    made = answer.headers["set-cookie"]
    assert "HttpOnly" in made
    assert "SameSite=lax" in made
    cookie = made.partition(";")[0]
    answer = await caller("GET", "/api/v1/me", cookie=cookie)
    assert orjson.loads(answer.body)["name"] == "bob"
    answer = await caller("GET", "/api/v1/me", cookie=cookie, origin="http://localhost:1")
    assert answer.status == 401
    assert (await caller("POST", "/api/v1/sign-out", cookie=cookie)).status == 204
    assert (await caller("GET", "/api/v1/me", cookie=cookie)).status == 401


async def test_set_up_needs_the_code_and_happens_once(tmp_path: Path) -> None:
    async with site(tmp_path) as fresh:
        code = await fresh.accounts.ensure_setup_code()
        body = {"code": "0" * 24, "name": "root", "password": PASSWORD}
        assert (await fresh.api("POST", "/setup", body))[0] == 404
        status, made = await fresh.api("POST", "/setup", {**body, "code": code})
        assert (status, made["is_admin"]) == (201, True)
        again = {**body, "code": code, "name": "second"}
        assert (await fresh.api("POST", "/setup", again))[0] == 404


# keys and tokens


async def test_keys_are_ones_own_or_for_administrators_anybodys(ask: World) -> None:
    status, key = await ask("POST", "/keys", {"key": LINE, "rights": ["read"]}, "member")
    assert (status, key["title"], key["rights"]) == (201, "me@laptop", ["read"])
    assert await ask("GET", "/keys", who="member") == (200, {"keys": [key]})
    assert await ask("GET", "/keys?user=bob") == (200, {"keys": [key]})
    assert (await ask("GET", "/keys")) == (200, {"keys": []})
    for user in ("alice", "none"):
        assert (await ask("GET", f"/keys?user={user}", who="member"))[0] == 403
    one = key["fingerprint"].replace("+", "%2B")
    assert (await ask("DELETE", f"/keys?fingerprint={one}"))[0] == 404
    assert await ask("DELETE", f"/keys?fingerprint={one}&user=bob") == (204, None)
    assert await ask("GET", "/keys", who="member") == (200, {"keys": []})


async def test_the_text_of_a_token_is_in_one_answer_only(ask: World) -> None:
    wish = {
        "title": "CI",
        "groups": ["read", "write"],
        "scopes": [{"pattern": "team/*", "rights": ["read", "create"]}],
        "expires_in_s": 60,
    }
    status, made = await ask("POST", "/tokens", wish, "member")
    assert status == 201
    caller = await ask.site.accounts.by_api_key(made["token"])
    assert caller.groups == Group.READ | Group.WRITE
    assert caller.scopes == (Scope("team/*", Right.READ | Right.CREATE_TAG),)
    status, listed = await ask("GET", "/tokens", who="member")
    shown = next(token for token in listed["tokens"] if token["id"] == made["id"])
    assert shown == {name: value for name, value in made.items() if name != "token"}
    assert made["token"] not in str(listed)
    assert (await ask("DELETE", f"/tokens/{made['id']}", who="member"))[0] == 204
    assert (await ask("DELETE", f"/tokens/{made['id']}", who="member"))[0] == 404


@pytest.mark.parametrize(
    ("life", "status"),
    [("60", 201), ("60.0", 201), ("null", 201), ("0", 400), ("60.5", 400), ('"60"', 400)]
    + [("true", 400), ("1e400", 400), ("1e18", 400), ("NaN", 400)],
)
async def test_the_life_of_a_token_is_a_whole_number_of_seconds(
    ask: World, life: str, status: int
) -> None:
    body = b'{"title":"t","expires_in_s":%s}' % life.encode()
    assert (await ask("POST", "/tokens", body))[0] == status


async def test_the_token_of_another_is_not_there(ask: World) -> None:
    (first, *_) = await ask.site.accounts.api_keys(ask.alice)
    status, answer = await ask("DELETE", f"/tokens/{first.id}", who="member")
    absent = await ask("DELETE", "/tokens/0123", who="member")
    assert (status, absent[0]) == (404, 404)
    assert answer["error"].replace(first.id, "0123") == absent[1]["error"]


@pytest.mark.parametrize("groups", [Group.ADMIN, Group.ADMIN | Group.READ | Group.INFER])
async def test_a_limited_credential_makes_no_other(ask: World, groups: Group) -> None:
    ask.keys["narrow"] = await ask.key(ask.bob, groups)
    ask.keys["scoped"] = await ask.key(ask.bob, Group.ALL, Scope("bob/*", Right.ALL))
    for who in ("narrow", "scoped"):
        for path, body in (("/tokens", {"title": "t"}), ("/keys", {"key": LINE})):
            status, answer = await ask("POST", path, body, who)
            assert (status, "limited" in answer["error"]) == (403, True)
        assert (await ask("GET", "/tokens", who=who))[0] == 200


# rights


async def test_teams_grants_and_policies_are_written_down(ask: World) -> None:
    status, team = await ask("PUT", "/teams/Core", {"members": ["BOB", "alice"]})
    assert (status, team) == (200, {"name": "Core", "members": ["alice", "bob"]})
    assert await ask("GET", "/teams/core") == (200, team)
    assert await ask("GET", "/teams") == (200, {"teams": [team]})
    assert (await ask("GET", "/me", who="member"))[1]["teams"] == ["Core"]
    wish = {"subject": "team:core", "pattern": "Team/*", "rights": ["read", "create", "move"]}
    status, grant = await ask("POST", "/grants", wish)
    assert (status, grant["pattern"], grant["rights"]) == (201, "team/*", ["read", "write"])
    assert (await ask("POST", "/grants", wish))[1]["id"] == grant["id"]
    assert await ask("GET", "/grants") == (200, {"grants": [grant]})
    assert await ask("DELETE", f"/grants/{grant['id']}") == (204, None)
    policy = {"pattern": "team/*", "visibility": "internal", "immutable": ["v*"]}
    assert await ask("PUT", "/policies", policy) == (200, policy)
    assert await ask("GET", "/policies") == (200, {"policies": [policy]})
    assert await ask("DELETE", "/policies?pattern=team/*") == (204, None)
    assert await ask("DELETE", "/teams/core") == (204, None)


async def test_the_audit_tells_who_did_what_page_by_page(ask: World) -> None:
    await ask("PUT", "/teams/core", {"members": []})
    await ask("POST", "/users", {"name": "bob"})
    await ask("GET", "/users", who="member")
    await ask("PUT", "/teams/core", {"members": []}, "member")
    status, page = await ask("GET", "/audit?limit=2")
    told = [(item["action"], item["result"], item["who"]) for item in page["entries"]]
    assert told == [
        ("PUT /api/v1/teams/{team}", "denied", "bob"),
        ("GET /api/v1/users", "denied", "bob"),
    ]
    status, rest = await ask("GET", f"/audit?after={page['next']}")
    told = [(item["action"], item["target"], item["result"]) for item in rest["entries"]]
    assert told[:2] == [("user.add", "bob", "Conflict"), ("team.set", "core", "ok")]
    assert (status, rest["next"]) == (200, None)


# the document


async def test_the_document_is_for_everybody_and_has_every_row(ask: World) -> None:
    status, served = await ask("GET", "/openapi.json", who="nobody")
    assert (status, served["openapi"]) == (200, "3.1.0")
    rows = {(item.path, item.method.lower()) for item in ENDPOINTS}
    assert {(path, verb) for path, verbs in served["paths"].items() for verb in verbs} == rows
    names = [verb["operationId"] for verbs in served["paths"].values() for verb in verbs.values()]
    assert len(names) == len(set(names)) == len(ENDPOINTS)
    assert served == orjson.loads(orjson.dumps(document(ENDPOINTS)))
    for verbs in served["paths"].values():
        for verb in verbs.values():
            assert verb["summary"]
            assert ("security" in verb) == ("For: everybody" not in verb["description"])


# what is signed


async def test_keys_that_sign_are_begun_anew(ask: World) -> None:
    services = ask.site.services
    tokens, urls = services.tokens, services.blobs.signing_keys
    token = (await tokens.issue(Subject(), (), "here")).token
    first, *_ = await urls.ring()
    assert await ask("POST", "/signing/tokens") == (204, None)
    with pytest.raises(TokenInvalid):
        await tokens.verify(token, "here")
    assert await ask("POST", "/signing/urls", {}) == (204, None)
    assert first.id in {key.id for key in await urls.ring()}
    assert await ask("POST", "/signing/urls", {"revoke": True}) == (204, None)
    assert first.id not in {key.id for key in await urls.ring()}
    entries = (await ask("GET", "/audit"))[1]["entries"]
    assert [(item["who"], item["action"], item["target"]) for item in entries] == [
        ("alice", "urls.rotate", "revoke"),
        ("alice", "urls.rotate", ""),
        ("alice", "tokens.rotate", ""),
    ]
