"""Credentials and what they are good for, over the whole application."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from registry.core.access import Group, Right, Scope, Visibility
from registry.core.digest import Digest
from registry.services.access.tokens import Tokens
from tests.support.asgi import Answer
from tests.support.secured import (
    BASE,
    HOST,
    MANIFEST_TYPE,
    OLLAMA,
    PASSWORD,
    Secured,
    Signer,
    basic,
    challenge_of,
    model,
    secured,
)

pytestmark = pytest.mark.anyio

TEAM = "/v2/team/llama"
UPLOADS = f"{TEAM}/blobs/uploads/"
SECRET = b"secret weights"
NS = 10**9


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Secured]:
    async with secured(tmp_path / "data", credentials={"tries_per_minute": 1000}) as made:
        for name in ("alice", "bob"):
            await made.user(name)
        await made.user("root", admin=True)
        await made.grant("user:alice", "team/*", Right.READ | Right.WRITE | Right.DELETE)
        await made.grant("user:bob", "team/*", Right.READ | Right.CREATE_TAG)
        yield made


async def account_key(place: Secured, name: str, **wish: Any) -> str:
    account = await place.services.accounts.named(name)
    return "Bearer " + await place.api_key(account, **wish)


async def bearer(place: Secured, name: str, *scopes: str) -> str:
    return "Bearer " + await place.token(*scopes, authorization=basic(name))


def codes(answer: Answer) -> list[str]:
    return [error["code"] for error in json.loads(answer.body)["errors"]]


# credentials


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("", 401),
        (basic("alice"), 200),
        (basic("ALICE"), 200),
        (basic("alice", "wrong password"), 401),
        (basic("nobody"), 401),
        (basic(""), 401),
        (basic("alice", ""), 401),
        ("Basic", 401),
        ("Basic !!!", 401),
        ("Basic " + "A" * 20_000, 401),
        ("Basic YWxpY2U=", 401),
        ("Basic //8=", 401),
        ("Bearer x", 401),
        ("Bearer a.b.c", 401),
        ("Bearer hf_" + "a" * 40, 401),
        ("Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.", 401),
        ("Digest x", 401),
        ("AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/x:y", 401),
        ("\x00", 401),
    ],
    ids=lambda value: str(value)[:25],
)
async def test_credentials_are_true_or_refused(place: Secured, header: str, status: int) -> None:
    headers = {"authorization": header} if header else {}
    answer = await place.ask("GET", "/v2/", **headers)
    assert answer.status == status
    if status == 401:
        assert challenge_of(answer)["realm"] == f"{BASE}/v2/token"
        assert "scope" not in challenge_of(answer)
        challenges = [text for name, text in answer.pairs if name == "www-authenticate"]
        assert challenges[1:] == [f'Basic realm="{BASE}/v2/token"']
        assert codes(answer) == ["UNAUTHORIZED"]
        if header:
            assert header.split(" ")[-1][:30] not in answer.body.decode()


async def test_an_api_key_works_as_bearer_and_in_place_of_any_password(place: Secured) -> None:
    key = await account_key(place, "alice")
    text = key.removeprefix("Bearer ")
    for header in (key, basic("alice", text), basic("token", text)):
        assert (await place.ask("GET", f"{TEAM}/tags/list", authorization=header)).status == 404


async def test_an_api_key_expires_and_is_revoked(place: Secured) -> None:
    key = await account_key(place, "alice", lifetime_s=60)
    assert (await place.ask("GET", "/v2/", authorization=key)).status == 200
    place.now += 61 * NS
    assert (await place.ask("GET", "/v2/", authorization=key)).status == 401
    other = await account_key(place, "alice")
    await place.services.accounts.revoke_api_key(other.removeprefix("Bearer "))
    assert (await place.ask("GET", "/v2/", authorization=other)).status == 401


async def test_a_token_expires_and_is_for_this_service_alone(
    place: Secured, tmp_path: Path
) -> None:
    token = await bearer(place, "alice", "repository:team/llama:pull")
    await place.push("team/llama", "1", b"x", authorization=basic("alice"))
    path = f"{TEAM}/manifests/1"
    assert (await place.ask("GET", path, authorization=token)).status == 200
    async with secured(tmp_path / "other") as other:
        answer = await other.ask("GET", path, authorization=token)
        assert (answer.status, challenge_of(answer)["error"]) == (401, "invalid_token")
    place.now += 3601 * NS
    answer = await place.ask("GET", f"{path}?later", authorization=token)
    assert answer.status == 401
    assert challenge_of(answer)["error"] == "invalid_token"
    assert challenge_of(answer)["scope"] == "repository:team/llama:pull"
    assert answer.headers["www-authenticate"].count("error=") <= 1


async def test_keys_of_tokens_change_every_month_and_can_be_rotated(place: Secured) -> None:
    token = await bearer(place, "alice")
    place.now += 3000 * NS
    assert (await place.ask("GET", "/v2/", authorization=token)).status == 200
    await place.services.tokens.rotate()
    place.now += NS
    fresh = await bearer(place, "alice")
    statuses = [
        (await place.ask("GET", "/v2/", authorization=header)).status for header in (fresh, token)
    ]
    assert statuses == [200, 401]
    with pytest.raises(Exception, match="not in use"):
        await place.services.tokens.verify(token.removeprefix("Bearer "), HOST)


async def test_a_rotation_by_another_process_is_noticed_within_seconds(place: Secured) -> None:
    token = await bearer(place, "alice")
    assert (await place.ask("GET", "/v2/", authorization=token)).status == 200
    other = Tokens(place.services.catalog, place.services.settings.credentials, place.clock)
    await other.rotate()
    place.now += 5 * NS
    assert (await place.ask("GET", "/v2/", authorization=token)).status == 401


async def test_what_a_header_proved_is_asked_again_after_a_second_or_a_change(
    place: Secured,
) -> None:
    key = await account_key(place, "alice", lifetime_s=60)
    place.now += 58 * NS
    assert (await place.ask("GET", "/v2/", authorization=key)).status == 200
    place.now += 2 * NS
    assert (await place.ask("GET", "/v2/", authorization=key)).status == 401
    alice = await place.services.accounts.named("alice")
    assert (await place.ask("GET", "/v2/", authorization=basic("alice"))).status == 200
    await place.services.accounts.set_password(alice.id, PASSWORD + " new")
    assert (await place.ask("GET", "/v2/", authorization=basic("alice"))).status == 401


async def test_a_disabled_account_has_no_credentials(place: Secured) -> None:
    key, token = await account_key(place, "alice"), await bearer(place, "alice")
    alice = await place.services.accounts.named("alice")
    await place.services.accounts.set_disabled(alice.id)
    for header in (key, token, basic("alice")):
        assert (await place.ask("GET", "/v2/", authorization=header)).status == 401


async def test_the_page_s_cookie_counts_for_pages_of_ours_alone(place: Secured) -> None:
    session = (await place.services.accounts.sign_in("alice", PASSWORD)).session
    cookie = f"__Host-registry_session={session}"
    await place.push("team/llama", "1", b"x", authorization=basic("alice"))
    for origin, status in (("", 200), (BASE, 200), ("http://localhost:3000", 404)):
        headers = {"cookie": cookie} | ({"origin": origin} if origin else {})
        answer = await place.ask("POST", "/api/show", b'{"model":"team/llama:1"}', **headers)
        assert answer.status == status, origin
    answer = await place.ask("GET", "/v2/", cookie="__Host-registry_session=" + "x" * 43)
    assert answer.status == 401


async def test_the_scheme_word_is_of_any_case(place: Secured) -> None:
    token = (await bearer(place, "alice")).replace("Bearer", "bEARER")
    assert (await place.ask("GET", "/v2/", authorization=token)).status == 200


# the ollama command line's signatures


async def test_a_signed_request_to_the_api_is_good_once_if_it_changes_something(
    place: Secured,
) -> None:
    signer = Signer()
    alice = await place.services.accounts.named("alice")
    await place.services.accounts.add_public_key(alice.id, signer.blob)
    await place.push("team/llama", "1", b"x", authorization=basic("alice"))
    for method, path, body, expected in (
        ("GET", "/api/tags", b"", [200, 200]),
        ("POST", "/api/show", b'{"model":"team/llama:1"}', [200, 200]),
        ("POST", "/api/copy", b'{"source":"team/llama:1","destination":"team/b"}', [200, 401]),
    ):
        target, header = signer.api(method, path, place.now_s)
        got = [(await place.ask(method, target, body, authorization=header)).status for _ in "ab"]
        assert got == expected, path
    target, header = signer.api("GET", "/api/tags", place.now_s)
    for other in (target.replace("tags", "ps"), target + "0", target.split("?")[0]):
        assert (await place.ask("GET", other, authorization=header)).status == 401
    assert (await place.ask("HEAD", target, authorization=header)).status == 401
    place.now += 301 * NS
    assert (await place.ask("GET", target, authorization=header)).status == 401


async def test_who_am_i(place: Secured) -> None:
    signer = Signer()
    target, header = signer.api("POST", "/api/me", place.now_s)
    answer = await place.ask("POST", target, authorization=header)
    assert answer.status == 401
    told = json.loads(answer.body)
    assert told["error"] == "unauthorized"
    code = told["signin_url"].removeprefix(f"{BASE}/ui/enrol/")
    alice = await place.services.accounts.named("alice")
    await place.services.accounts.confirm_enrolment(code, alice.id)
    answer = await place.ask("POST", target, authorization=header)
    assert (answer.status, json.loads(answer.body)["name"]) == (200, "alice")
    target, header = signer.api("POST", "/api/signout", place.now_s)
    assert (await place.ask("POST", target, authorization=header)).status == 200
    target, header = signer.api("POST", "/api/me", place.now_s)
    assert (await place.ask("POST", target, authorization=header)).status == 401
    answer = await place.ask("POST", "/api/me")
    assert json.loads(answer.body)["signin_url"] == f"{BASE}/ui/keys"


# rights


async def test_a_token_too_narrow_is_told_what_to_ask_for(place: Secured) -> None:
    token = await bearer(place, "alice", "repository:team/llama:pull")
    answer = await place.ask("POST", UPLOADS, authorization=token)
    assert answer.status == 401
    told = challenge_of(answer)
    assert (told["error"], told["scope"]) == (
        "insufficient_scope",
        "repository:team/llama:pull,push",
    )
    other = await place.ask("GET", "/v2/team/other/tags/list", authorization=token)
    assert (other.status, challenge_of(other)["scope"]) == (401, "repository:team/other:pull")


async def test_the_client_of_oras_asks_for_a_wider_token_after_403(place: Secured) -> None:
    token = await bearer(place, "alice", "repository:team/llama:pull")
    for agent, status in (("skopeo/1.18", 401), ("python-requests/2.32", 403)):
        answer = await place.ask("POST", UPLOADS, authorization=token, user_agent=agent)
        assert answer.status == status
        assert challenge_of(answer)["error"] == "insufficient_scope"
        assert challenge_of(answer)["scope"] == "repository:team/llama:pull,push"
        assert (await place.ask("POST", UPLOADS, user_agent=agent)).status == 401


async def test_a_challenge_names_the_repository_as_the_client_spells_it(place: Secured) -> None:
    answer = await place.ask("GET", "/v2/Team/Llama-3.Q4/manifests/8b", user_agent=OLLAMA)
    assert challenge_of(answer) == {
        "realm": f"{BASE}/v2/token",
        "service": HOST,
        "scope": "repository:Team/Llama-3.Q4:pull",
    }


async def test_absent_and_forbidden_look_alike(place: Secured) -> None:
    await place.push("secret/model", "1", SECRET, authorization=basic("root"))
    digest = Digest.of(SECRET)
    for path in ("manifests/1", "tags/list", f"blobs/{digest}", f"referrers/{digest}"):
        got = []
        for name in ("secret/model", "secret/none"):
            for headers in ({}, {"authorization": basic("alice")}):
                answer = await place.ask("GET", f"/v2/{name}/{path}", **headers)
                text = answer.body.replace(name.encode(), b"NAME")
                got.append((answer.status, text, sorted(answer.headers)))
        assert got[:2] == got[2:], path
    shown = [
        await place.ask("POST", "/api/show", json.dumps({"model": name}).encode(),
                        authorization=basic("alice"))
        for name in ("secret/model:1", "secret/none:1")
    ]  # fmt: skip
    assert {answer.status for answer in shown} == {404}
    assert shown[0].body.replace(b"model:1", b"none:1") == shown[1].body


async def test_making_a_tag_and_moving_one_are_two_rights(place: Secured) -> None:
    assert (await place.push("team/llama", "1", b"a", authorization=basic("bob"))).status == 201
    assert (await place.push("team/llama", "1", b"a", authorization=basic("bob"))).status == 201
    answer = await place.push("team/llama", "1", b"b", authorization=basic("bob"))
    assert (answer.status, codes(answer)) == (403, ["DENIED"])
    assert (await place.push("team/llama", "2", b"b", authorization=basic("bob"))).status == 201
    assert (await place.push("team/llama", "1", b"b", authorization=basic("alice"))).status == 201
    ask = json.dumps({"source": "team/llama:2", "destination": "team/llama:1"}).encode()
    assert (await place.ask("POST", "/api/copy", ask, authorization=basic("bob"))).status == 200
    await place.push("team/llama", "1", b"c", authorization=basic("alice"))
    assert (await place.ask("POST", "/api/copy", ask, authorization=basic("bob"))).status == 403
    make = json.dumps({"model": "team/llama:1", "from": "team/llama:2", "stream": False}).encode()
    answer = await place.ask("POST", "/api/create", make, authorization=basic("bob"))
    assert answer.status == 403


async def test_an_immutable_tag_is_made_once(place: Secured) -> None:
    await place.policy("team/*", Visibility.PRIVATE, ["v*"])
    alice = basic("alice")
    for layer, status in ((b"a", 201), (b"a", 201), (b"b", 403)):
        answer = await place.push("team/llama", "v1", layer, authorization=alice)
        assert answer.status == status
    assert "immutable" in answer.body.decode()
    body = answer_body = model(b"{}", b"b")
    await place.upload("team/llama", b"{}", authorization=alice)
    path = f"{TEAM}/manifests/{Digest.of(body)}?tag=v1&tag=latest"
    answer = await place.ask("PUT", path, answer_body, authorization=alice,
                             content_type=MANIFEST_TYPE)  # fmt: skip
    assert answer.status == 403
    assert (await place.ask("GET", f"{TEAM}/manifests/latest", authorization=alice)).status == 404
    tags = await place.ask("GET", f"{TEAM}/manifests/v1", authorization=alice)
    for reference in ("v1", tags.headers["docker-content-digest"]):
        answer = await place.ask("DELETE", f"{TEAM}/manifests/{reference}", authorization=alice)
        assert answer.status == 403
    answer = await place.ask("DELETE", f"{TEAM}/manifests/v1", authorization=basic("root"))
    assert answer.status == 202


async def test_an_upload_goes_on_with_a_later_token_of_the_same_account(place: Secured) -> None:
    scope = "repository:team/llama:pull,push"
    first = await bearer(place, "alice", scope)
    begun = await place.ask("POST", UPLOADS, authorization=first)
    path = begun.headers["location"].removeprefix(BASE)
    answer = await place.ask("PATCH", path, b"one", authorization=first)
    assert answer.status == 202
    place.now += 3601 * NS
    assert (await place.ask("PATCH", path, b"two", authorization=first)).status == 401
    second = await bearer(place, "alice", scope)
    assert (await place.ask("PATCH", path, b"two", authorization=second)).status == 202
    for who in ("bob", "root"):
        for method in ("GET", "PATCH", "DELETE"):
            answer = await place.ask(method, path, b"", authorization=basic(who))
            assert (answer.status, codes(answer)) == (404, ["BLOB_UPLOAD_UNKNOWN"])
    finish = f"{path}?digest={Digest.of(b'onetwo')}"
    assert (await place.ask("PUT", finish, authorization=basic("bob"))).status == 404
    assert (await place.ask("PUT", finish, authorization=second)).status == 201


async def test_a_blob_is_mounted_only_from_where_it_may_be_read(place: Secured) -> None:
    await place.push("secret/model", "1", SECRET, authorization=basic("root"))
    await place.push("team/base", "1", b"base", authorization=basic("alice"))
    for data, source, status in (
        (SECRET, "&from=secret/model", 202),
        (SECRET, "&from=no/where", 202),
        (SECRET, "&from=..", 202),
        (SECRET, "", 202),
        (b"base", "&from=team/base", 201),
        (b"base", "", 201),
    ):
        token = await bearer(place, "alice", "repository:team/llama:pull,push")
        path = f"{UPLOADS}?mount={Digest.of(data)}{source}"
        assert (await place.ask("POST", path, authorization=token)).status == status, source
    path = f"{TEAM}/blobs/{Digest.of(SECRET)}"
    assert (await place.ask("HEAD", path, authorization=basic("alice"))).status == 404


async def test_a_digest_alone_is_not_a_way_to_a_blob(place: Secured) -> None:
    """Not by manifest, nor by create: only who reads it, or sends all of it, has it."""
    place.now = time.time_ns()  # proofs are compared with the database's clock
    await place.push("secret/model", "1", SECRET, authorization=basic("root"))
    alice, digest = basic("alice"), Digest.of(SECRET)
    await place.upload("team/llama", b"{}", authorization=alice)
    answer = await place.ask(
        "PUT", f"{TEAM}/manifests/1", model(b"{}", SECRET), authorization=alice,
        content_type=MANIFEST_TYPE,
    )  # fmt: skip
    assert (answer.status, codes(answer)) == (400, ["MANIFEST_BLOB_UNKNOWN"])
    ask = {"model": "team/x", "files": {"a.gguf": str(digest)}, "stream": False}
    absent = ask | {"files": {"a.gguf": str(Digest.of(b"no such"))}}
    got = [
        await place.ask("POST", "/api/create", json.dumps(item).encode(), authorization=alice)
        for item in (ask, absent)
    ]
    assert got[0].status == got[1].status == 500
    assert got[0].body.replace(digest.hex.encode(), b"") == got[1].body.replace(
        Digest.of(b"no such").hex.encode(), b""
    )
    blob = f"/api/blobs/{digest}"
    assert (await place.ask("HEAD", blob, authorization=alice)).status == 404
    assert (await place.ask("POST", blob, b"", authorization=alice)).status == 400
    assert (await place.ask("POST", blob, SECRET, authorization=alice)).status == 201
    assert (await place.ask("HEAD", blob, authorization=alice)).status == 200
    assert (await place.ask("HEAD", blob, authorization=basic("bob"))).status == 404
    answer = await place.ask("POST", "/api/create", json.dumps(ask).encode(), authorization=alice)
    assert b"no such file" not in answer.body


async def test_a_blob_that_was_deleted_here_is_not_read_through_another_s_model(
    place: Secured,
) -> None:
    await place.push("team/llama", "1", b"x" * 10, authorization=basic("alice"))
    await place.user("carol")
    path = f"{TEAM}/blobs/{Digest.of(b'x' * 10)}"
    answer = await place.ask("GET", path, authorization=basic("alice"))
    assert answer.headers["cache-control"].startswith("private")
    assert (await place.ask("GET", path, authorization=basic("carol"))).status == 403
    direct = answer.headers["location"].removeprefix(BASE)
    assert (await place.ask("GET", direct)).body == b"x" * 10
    other = direct.replace("/team/llama/", "/secret/model/")
    assert (await place.ask("GET", other)).status == 403


async def test_lists_hold_what_the_caller_may_read(place: Secured) -> None:
    for name in ("team/a", "alice/own", "bob/own", "secret/model"):
        await place.push(name, "1", name.encode(), authorization=basic("root"))
    await place.policy("secret/model", Visibility.PUBLIC)
    expected = {
        "": ["secret/model"],
        "alice": ["alice/own", "secret/model", "team/a"],
        "bob": ["bob/own", "secret/model", "team/a"],
        "root": ["alice/own", "bob/own", "secret/model", "team/a"],
    }
    for _ in range(2):  # the second time from memory
        for who, names in expected.items():
            headers = {"authorization": basic(who)} if who else {}
            answer = await place.ask("GET", "/api/tags", **headers)
            models = [item["name"].removesuffix(":1") for item in json.loads(answer.body)["models"]]
            assert sorted(models) == names
            answer = await place.ask("GET", "/v1/models", **headers)
            assert sorted(m["id"] for m in json.loads(answer.body)["data"]) == [
                f"{name}:1" for name in names
            ]
            if who:
                answer = await place.ask("GET", "/v2/_catalog?n=2", **headers)
                assert json.loads(answer.body)["repositories"] == names[:2]
                assert ("link" in answer.headers) is (len(names) > 2)
    for grant in await place.services.accounts.grants():
        await place.services.accounts.revoke(grant.id)
    answer = await place.ask("GET", "/api/tags", authorization=basic("alice"))
    assert len(json.loads(answer.body)["models"]) == 2


async def test_answers_kept_ready_are_for_their_caller_while_his_rights_last(
    place: Secured,
) -> None:
    await place.push("team/llama", "1", b"x", authorization=basic("alice"))
    path = f"{TEAM}/manifests/1"
    key = await account_key(place, "alice", lifetime_s=60)
    for _ in range(3):
        assert (await place.ask("GET", path, authorization=key)).status == 200
        assert (await place.ask("GET", path)).status == 401
        assert (await place.ask("GET", path, authorization=basic("root"))).status == 200
        wrong = key[:-1] + ("x" if key[-1] != "x" else "y")
        assert (await place.ask("GET", path, authorization=wrong)).status == 401
    for grant in await place.services.accounts.grants():
        await place.services.accounts.revoke(grant.id)
    assert (await place.ask("GET", path, authorization=key)).status == 403
    await place.policy("team/llama", Visibility.PUBLIC)
    assert (await place.ask("GET", path)).status == 200
    assert (await place.ask("GET", path)).status == 200
    await place.policy("team/llama", Visibility.PRIVATE)
    assert (await place.ask("GET", path)).status == 401


async def test_a_key_for_one_kind_of_use_is_no_key_for_another(place: Secured) -> None:
    infer = await account_key(place, "alice", groups=Group.INFER)
    answer = await place.ask("GET", "/api/tags", authorization=infer)
    assert answer.status == 403
    scopes = (Scope("team/llama", Right.READ),)
    narrow = await account_key(place, "alice", scopes=scopes)
    await place.push("team/llama", "1", b"x", authorization=basic("alice"))
    assert (await place.ask("GET", f"{TEAM}/tags/list", authorization=narrow)).status == 200
    assert (await place.ask("POST", UPLOADS, authorization=narrow)).status == 403


# the audit


async def test_writes_and_refusals_are_noted_without_secrets(place: Secured) -> None:
    alice, bob = basic("alice"), basic("bob")
    await place.push("team/llama", "1", b"x", authorization=alice)
    await place.ask("GET", "/v2/secret/model/tags/list", authorization=bob)
    await place.push("team/llama", "1", b"y", authorization=bob)
    await place.ask("POST", "/api/show", b'{"model":"secret/model"}', authorization=bob)
    ask = b'{"source":"team/llama:1","destination":"team/two"}'
    await place.ask("POST", "/api/copy", ask, authorization=alice)
    await place.ask("DELETE", "/api/delete", b'{"model":"team/two"}', authorization=alice)
    await place.ask("GET", "/v2/", authorization=basic("alice", "a planted secret"))
    entries = await place.services.audit.entries(0, 100)
    told = [(entry.who, entry.action, entry.target, entry.result) for entry in reversed(entries)]
    assert [item for item in told if item[1] != "begin blob"] == [
        ("alice", "put manifest", "team/llama 1", "ok"),
        ("bob", "read", "secret/model", "denied"),
        ("bob", "put manifest", "team/llama 1", "denied"),
        ("bob", "read", "secret/model", "denied"),
        ("alice", "copy", "registry.ollama.ai/team/llama:1 to registry.ollama.ai/team/two:latest",
         "ok"),
        ("alice", "delete", "registry.ollama.ai/team/two:latest", "ok"),
        ("", "sign in", "alice", "Unauthenticated"),
    ]  # fmt: skip
    assert all(entry.address == "127.0.0.1" and entry.request_id for entry in entries)
    assert {entry.via for entry in entries} == {"password", ""}
    assert "planted" not in repr(entries)


async def test_requests_of_the_api_are_limited_by_account_or_address(tmp_path: Path) -> None:
    limits = {"requests_per_minute": 3, "tries_per_minute": 1000}
    async with secured(tmp_path / "few", credentials=limits) as few:
        for name in ("alice", "bob"):
            await few.user(name)
        for headers in ({"authorization": basic("alice")}, {}):
            answers = [await few.ask("GET", "/api/tags", **headers) for _ in range(4)]
            assert [answer.status for answer in answers] == [200, 200, 200, 429]
            assert 0 < int(answers[3].headers["retry-after"]) <= 61
        alice, bob = basic("alice"), basic("bob")
        assert (await few.ask("GET", "/api/tags", authorization=bob)).status == 200
        for path in ("/v2/", "/api/version"):  # not counted
            assert (await few.ask("GET", path, authorization=alice)).status == 200
        blob = f"/api/blobs/{Digest.of(b'x')}"
        assert (await few.ask("POST", blob, b"x", authorization=alice)).status == 201
        few.now += 61 * NS
        assert (await few.ask("GET", "/api/tags", authorization=alice)).status == 200


async def test_refusals_end(place: Secured) -> None:
    """A client that asks for a token after each 401, as its engines do, is soon told no."""
    signer = Signer()
    bob = await place.services.accounts.named("bob")
    await place.services.accounts.add_public_key(bob.id, signer.blob)
    requests = 0
    for _ in range(100):  # the tensors of a model
        refused = await place.ask("HEAD", "/v2/secret/m/blobs/" + str(Digest.of(b"")))
        requests += 1
        if refused.status != 401:
            break
        answer = await place.follow(signer, refused)
        requests += 1
        if answer.status == 403:
            break
    assert requests == 2
