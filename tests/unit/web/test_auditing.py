"""What the audit says of each write and refusal, and that no secret shows anywhere."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry import logs
from registry.core.access import Group, Right, Scope
from registry.core.digest import Digest
from registry.services.access.keys import ApiKeyWish
from tests.support.asgi import Answer
from tests.support.secured import (
    BASE,
    MANIFEST_TYPE,
    OLLAMA,
    PASSWORD,
    Secured,
    Signer,
    basic,
    model,
    secured,
)

pytestmark = pytest.mark.anyio

V1 = "/api/v1"
ADDRESS = "127.0.0.1"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Secured]:
    async with secured(tmp_path / "data", credentials={"tries_per_minute": 1000}) as made:
        for name in ("alice", "bob"):
            await made.user(name)
        await made.user("root", admin=True)
        await made.grant("user:alice", "team/*", Right.ALL)
        assert (await made.push("team/llama", "1", b"weights", authorization=ROOT)).status == 201
        assert (await made.push("secret/m", "1", b"hidden", authorization=ROOT)).status == 201
        await made.services.audit.entries()
        yield made


ALICE, BOB, ROOT = basic("alice"), basic("bob"), basic("root")
CONFIG = json.dumps({"model_format": "gguf", "layer": str(Digest.of(b"weights"))}).encode()
HELD, HIDDEN = str(Digest.of(b"weights")), str(Digest.of(b"hidden"))
FORM = "application/x-www-form-urlencoded"
NONE = "00000000-0000-4000-8000-000000000000"  # an upload session that was never begun
TEAM = "registry.ollama.ai/team"

Said = list[tuple[str, str, str, str]]
"""Who, action, target, result."""


async def said_after(place: Secured, last: int) -> Said:
    found = [one for one in await place.services.audit.entries(limit=50) if one.id > last]
    assert all(one.address == ADDRESS and one.request_id for one in found)
    return [(one.who, one.action, one.target, one.result) for one in reversed(found)]


async def newest(place: Secured) -> int:
    return (await place.services.audit.entries(limit=1))[0].id


WRITES: list[tuple[str, str, str, str, Said]] = [
    # method, path, Authorization, body, what the audit says
    ("POST", f"/api/blobs/{Digest.of(b'new')}", ALICE, "new",
     [("alice", "upload", str(Digest.of(b"new")), "ok")]),
    ("POST", f"/api/blobs/{Digest.of(b'new')}", ALICE, "old",
     [("alice", "upload", str(Digest.of(b"new")), "DigestMismatch")]),
    ("POST", "/api/create", ALICE, '{"model":"team/new","from":"team/llama:1","system":"x"}',
     [("alice", "create", f"{TEAM}/new:latest", "ok")]),
    ("POST", "/api/copy", ALICE, '{"source":"team/llama:1","destination":"team/two"}',
     [("alice", "copy", f"{TEAM}/llama:1 to {TEAM}/two:latest", "ok")]),
    ("DELETE", "/api/delete", ALICE, '{"model":"team/llama:1"}',
     [("alice", "delete", f"{TEAM}/llama:1", "ok")]),
    ("DELETE", "/api/delete", ALICE, '{"model":"team/none"}',
     [("alice", "delete", f"{TEAM}/none:latest", "ModelUnknown")]),
    ("PUT", "/v2/team/llama/manifests/1", ALICE, "{", [
        ("alice", "put manifest", "team/llama 1", "ManifestInvalid")]),
    ("PUT", "/v2/team/llama/manifests/2", ALICE, "{manifest}", [
        ("alice", "put manifest", "team/llama 2", "ok")]),
    ("DELETE", "/v2/team/llama/manifests/1", ALICE, "", [
        ("alice", "delete manifest", "team/llama 1", "ok")]),
    ("DELETE", f"/v2/team/llama/blobs/{HIDDEN}", ALICE, "", [
        ("alice", "delete blob", f"team/llama {HIDDEN}", "BlobUnknown")]),
    ("POST", "/v2/team/llama/blobs/uploads/", ALICE, "", [
        ("alice", "begin blob", "team/llama", "ok")]),
    ("POST", f"/v2/team/llama/blobs/uploads/?digest={Digest.of(b'x')}", ALICE, "x", [
        ("alice", "begin blob", "team/llama", "ok")]),
    ("PUT", f"/v2/team/llama/blobs/uploads/{NONE}?digest={Digest.of(b'x')}", ALICE, "x", [
        ("alice", "put blob", f"team/llama {NONE}", "UploadUnknown")]),
    ("DELETE", f"/v2/team/llama/blobs/uploads/{NONE}", ALICE, "", [
        ("alice", "cancel blob", f"team/llama {NONE}", "UploadUnknown")]),
    ("POST", f"{V1}/users", ROOT, '{"name":"carol"}', [("root", "user.add", "carol", "ok")]),
    ("POST", f"{V1}/users", ROOT, '{"name":"alice"}', [("root", "user.add", "alice", "Conflict")]),
    ("DELETE", f"{V1}/users/bob", ROOT, "", [("root", "user.delete", "bob", "ok")]),
    ("POST", f"{V1}/grants", ROOT, '{"subject":"user:bob","pattern":"a/*","rights":["read"]}',
     [("root", "grant.add", "user:bob a/*:read", "ok")]),
    ("POST", f"{V1}/tokens", ALICE, '{"title":"ci"}', [("alice", "token.make", "alice", "ok")]),
    ("POST", f"{V1}/sign-in", "", json.dumps({"name": "alice", "password": PASSWORD}),
     [("", "session.begin", "alice", "ok")]),
    ("POST", f"{V1}/sign-in", "", '{"name":"alice","password":"wrong"}',
     [("", "session.begin", "alice", "Unauthenticated")]),
    ("POST", f"{V1}/enrol", "", json.dumps({"code": "none", "key": f"ssh-ed25519 {Signer().blob}"}),
     [("", "key.enrol", ADDRESS, "NotFound")]),
]  # fmt: skip

REFUSALS: list[tuple[str, str, str, str, Said]] = [
    ("GET", "/v2/secret/m/manifests/1", BOB, "", [("bob", "read", "secret/m", "denied")]),
    ("HEAD", f"/v2/secret/m/blobs/{HIDDEN}", BOB, "", [("bob", "read", "secret/m", "denied")]),
    ("GET", "/v2/secret/m/tags/list", BOB, "", [("bob", "read", "secret/m", "denied")]),
    ("GET", "/v2/secret/none/tags/list", BOB, "", [("bob", "read", "secret/none", "denied")]),
    ("GET", f"/v2/team/llama/blobs/{HELD}?exp=9&kid=k&sig=s", "", "",
     [("", "read by URL", f"team/llama {HELD}", "denied")]),
    ("POST", "/api/show", BOB, '{"model":"secret/m:1"}', [("bob", "read", "secret/m", "denied")]),
    ("POST", "/api/show", "", '{"model":"secret/m:1"}', [("", "read", "secret/m", "denied")]),
    ("POST", "/api/generate", BOB, '{"model":"secret/m:1","prompt":"x"}',
     [("bob", "read", "secret/m", "denied")]),
    ("POST", "/api/pull", BOB, '{"model":"secret/m:1"}',
     [("bob", "create_tag", "secret/m", "denied")]),
    ("POST", "/api/create", BOB, '{"model":"team/x","from":"secret/m:1"}',
     [("bob", "read", "secret/m", "denied")]),
    ("POST", "/api/create", BOB, '{"model":"team/x","from":"bob/none"}',
     [("bob", "create_tag", "team/x", "denied")]),
    ("PUT", "/v2/team/llama/manifests/1", BOB, "{}", [
        ("bob", "create_tag", "team/llama", "denied")]),
    ("GET", f"{V1}/audit", BOB, "", [("bob", f"GET {V1}/audit", "", "denied")]),
    ("GET", "/v2/", basic("alice", "wrong"), "", [("", "sign in", "alice", "Unauthenticated")]),
    ("GET", "/api/tags", "Bearer hf_" + "x" * 40, "", [("", "sign in", "", "Unauthenticated")]),
]  # fmt: skip


async def reset(place: Secured) -> int:
    """Have there what an earlier line took away; the newest entry after that."""
    answer = await place.push("team/llama", "1", b"weights", authorization=ROOT)
    assert answer.status == 201
    if not any(account.name == "bob" for account in await place.services.accounts.accounts()):
        await place.user("bob")
    return await newest(place)


async def test_every_write_and_refusal_is_noted(place: Secured) -> None:
    for method, path, authorization, body, said in WRITES + REFUSALS:
        last = await reset(place)
        headers = {"authorization": authorization} if authorization else {}
        headers["content_type"] = MANIFEST_TYPE if "/manifests/" in path else "application/json"
        content = body.encode()
        if body == "{manifest}":
            content = model(CONFIG, b"weights")
        await place.ask(method, path, content, **headers)
        assert (method, path, await said_after(place, last)) == (method, path, said)


async def test_the_handshake_of_the_registry_protocol_is_not_noted(place: Secured) -> None:
    last = await newest(place)
    assert (await place.ask("GET", "/v2/team/llama/manifests/1")).status == 401
    assert (await place.ask("GET", "/v2/")).status == 401
    assert await said_after(place, last) == []


async def test_a_token_of_nobody_that_is_not_enough_is_a_refusal(place: Secured) -> None:
    token = await place.token("repository:team/llama:pull")
    last = await newest(place)
    path = "/v2/team/llama/manifests/1"
    assert (await place.ask("GET", path, authorization=f"Bearer {token}")).status == 401
    assert await said_after(place, last) == [("", "read", "team/llama", "denied")]


async def test_a_credential_for_other_uses_is_a_refusal(place: Secured) -> None:
    alice = await place.services.accounts.named("alice")
    key = await place.api_key(alice, Group.INFER)
    last = await newest(place)
    assert (await place.ask("GET", "/api/tags", authorization=f"Bearer {key}")).status == 403
    assert (await place.ask("GET", f"{V1}/keys", authorization=f"Bearer {key}")).status == 403
    assert await said_after(place, last) == [
        ("alice", "GET /api/tags", "", "denied"),
        ("alice", f"GET {V1}/keys", "", "denied"),
    ]


async def test_requests_for_tokens_that_are_refused_are_noted(place: Secured) -> None:
    signer = Signer()
    last = await newest(place)
    scope = "repository:secret/m:pull"
    assert (await place.signed_token(signer, scope)).status == 403  # nobody's key
    alice = await place.services.accounts.named("alice")
    made = await place.services.accounts.add_public_key(alice.id, signer.blob)
    assert (await place.signed_token(signer, scope)).status == 403
    assert (await place.signed_token(signer, scope, ts="1")).status == 401
    form = f"grant_type=password&username=alice&password=wrong&scope={scope}".encode()
    assert (await place.ask("POST", "/v2/token", form, content_type=FORM)).status == 401
    assert await said_after(place, last) == [
        ("", "key.ask", made.fingerprint, "ok"),
        ("alice", "token", "pull secret/m", "denied"),
        ("", "sign in", "", "Unauthenticated"),
        ("", "sign in", "alice", "Unauthenticated"),
    ]


async def test_a_machine_s_enrolment_names_its_key(place: Secured) -> None:
    bob = await place.services.accounts.named("bob")
    code = await place.services.accounts.make_node_code(bob.id)
    last = await newest(place)
    body = json.dumps({"code": code, "key": f"ssh-ed25519 {Signer().blob} gpu1"}).encode()
    answer = await place.ask("POST", f"{V1}/enrol", body, content_type="application/json")
    made = json.loads(answer.body)
    assert (answer.status, made["title"], made["rights"]) == (201, "gpu1", ["all"])
    assert await said_after(place, last) == [("", "key.enrol", made["fingerprint"], "ok")]
    again = await place.ask("POST", f"{V1}/enrol", body, content_type="application/json")
    assert again.status == 404


async def test_codes_cannot_be_guessed_without_end(tmp_path: Path) -> None:
    async with secured(tmp_path / "other") as other:
        body = json.dumps({"code": "no", "key": f"ssh-ed25519 {Signer().blob}"}).encode()
        statuses = [
            (await other.ask("POST", f"{V1}/enrol", body, content_type="application/json")).status
            for _ in range(12)
        ]
    assert statuses == [404] * 10 + [429] * 2


# secrets


class Planted:
    """Secrets of every kind, and requests that carry them in right and in wrong places."""

    def __init__(self, place: Secured) -> None:
        self.place = place
        self.secrets: dict[str, str] = {}

    async def begin(self) -> None:
        accounts = self.place.services.accounts
        alice = await accounts.named("alice")
        wish = ApiKeyWish("ci", Group.ALL, (Scope("team/*", Right.READ),))
        self.secrets = {
            "password": PASSWORD,
            "wrong password": "planted-wrong-password",
            "API key": (await accounts.create_api_key(alice.id, wish)).text,
            "unknown API key": "hf_" + "Planted" * 6,
            "node code": await accounts.make_node_code(alice.id),
            "link code": await accounts.begin_enrolment(Signer(bytes(32)).blob, "laptop"),
            "session": (await accounts.sign_in("alice", PASSWORD)).session,
            "token": await self.place.token("repository:team/llama:pull", authorization=ALICE),
            "upstream password": "planted-upstream-password",
        }

    async def ask_everything(self) -> list[Answer]:
        text = self.secrets
        key, ask = text["API key"], self.place.ask
        wrong = basic("alice", text["wrong password"])
        cookie = f"__Host-registry_session={text['session']}"
        form = f"grant_type=password&username=alice&password={text['wrong password']}&scope=x"
        enrol = json.dumps({"code": text["node code"], "key": "no key"})
        direct = await ask("GET", f"/v2/team/llama/blobs/{HELD}", authorization=ALICE)
        self.secrets["signature"] = re.findall("sig=([0-9a-f]+)", direct.headers["location"])[0]
        url = direct.headers["location"].removeprefix(BASE)
        upstream = text["upstream password"]
        pull = {"model": f"http://u:{upstream}@x.invalid/team/m", "stream": False}
        pull |= {"username": "u", "password": upstream}
        return [
            await ask("GET", "/v2/", authorization=ALICE),
            await ask("GET", "/v2/", authorization=wrong),
            await ask("GET", "/v2/", authorization=f"Bearer {key}"),
            await ask("GET", "/v2/", authorization=f"Bearer {text['unknown API key']}"),
            await ask("GET", "/v2/", authorization=f"Bearer {text['token']}x"),
            await ask("GET", "/v2/", authorization=f"Strange {key}"),
            await ask("GET", f"/api/tags?key={key}"),
            await ask("GET", f"/v2/{key}/manifests/latest", authorization=ALICE),
            await ask("DELETE", f"{V1}/tokens/{key}x", authorization=ALICE),
            await ask("DELETE", f"/v2/team/llama/manifests/{key}", authorization=ROOT),
            await ask("GET", f"/v2/token?account={key}&scope=repository:{key}:pull"),
            await ask("POST", "/v2/token", form.encode(), content_type=FORM),
            await ask("POST", f"{V1}/enrol", enrol.encode(), content_type="application/json"),
            await ask("GET", f"/ui/enrol/{text['link code']}", cookie=cookie),
            await ask("GET", f"//ui/enrol/{text['link code']}", cookie=cookie),
            await ask("GET", f"/ui/enrol/{text['link code']}"),
            await ask("HEAD", url),
            await ask("GET", url.replace("exp=", "exp=9"), user_agent=OLLAMA),
            await ask("POST", "/api/pull", json.dumps(pull).encode(), authorization=ROOT),
            await ask("POST", f"{V1}/sign-in", json.dumps(
                {"name": text["wrong password"], "password": text["wrong password"], "x": key}
            ).encode(), content_type="application/json"),
            await ask("POST", "/api/show", json.dumps({"model": key}).encode(),
                      authorization=ALICE),
        ]  # fmt: skip


async def test_no_secret_is_logged_noted_or_told(
    place: Secured, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure("debug", json=False)
    planted = Planted(place)
    await planted.begin()
    answers = await planted.ask_everything()
    assert {answer.status for answer in answers} >= {200, 400, 401, 403, 404}
    entries = repr(await place.services.audit.entries(limit=500))
    printed = "".join(capfd.readouterr())
    assert printed.count("request method=") > 20
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    own = {"link code"}  # its page's form carries it on
    for what, secret in planted.secrets.items():
        assert secret not in printed, what
        assert secret not in entries, what
        assert secret.encode() not in kept, what
        said = [answer for answer in answers if answer.status >= 400 or what not in own]
        shown = [answer for answer in said if secret.encode() in answer.body]
        if what not in {"API key", "link code"}:
            assert shown == [], what
