"""`/v2/token` and the requests before and after it, over the whole application."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from registry.core.access import Right, Scope, Visibility
from tests.support.asgi import Answer
from tests.support.secured import (
    BASE,
    HOST,
    OLLAMA,
    PASSWORD,
    Secured,
    Signer,
    basic,
    challenge_of,
    secured,
)

pytestmark = pytest.mark.anyio

VECTOR = (
    "nonce=c2l4dGVlbi1ieXRlLW5vbg&scope=repository%3Ateam%2Fllama%3Apull"
    "&service=models.example.com&ts=1760000000"
)
VECTOR_HEADER = (
    "AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4:"
    "+YYnBQyz9h7L9eXnI9CvEJOYNUrMuBqi/UrLxMzkNOf64lgtABwrOHKQJwiH4EVC2qOq8sKFjVn8zyB5bXbaBg=="
)
MANIFEST = "/v2/team/llama/manifests/8b"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Secured]:
    async with secured(tmp_path / "data") as made:
        await made.user("alice")
        await made.user("bob")
        await made.grant("user:alice", "team/*", Right.ALL & ~Right.MANAGE)
        await made.grant("user:bob", "team/llama", Right.READ)
        yield made


def claims(token: str) -> Any:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


async def add_key(place: Secured, name: str, rights: Right = Right.ALL) -> Signer:
    account = await place.services.accounts.named(name)
    signer = Signer()
    await place.services.accounts.add_public_key(account.id, signer.blob, rights=rights)
    return signer


def assert_readable(answer: Answer) -> str:
    """A refusal that the ollama client shows as it is."""
    assert answer.headers["content-type"].startswith("text/plain")
    text = answer.body.decode()
    assert "unauthorized" not in text.lower()
    assert "access denied" not in text.lower()
    assert text.count("\n") == 1
    return text


async def test_the_vector_of_the_specification(place: Secured) -> None:
    await add_key(place, "alice")
    answer = await place.ask("GET", f"/v2/token?{VECTOR}", authorization=VECTOR_HEADER)
    assert answer.status == 200
    told = json.loads(answer.body)
    assert told["token"] == told["access_token"]
    assert (told["expires_in"], told["issued_at"]) == (3600, "2025-10-09T08:53:20Z")
    made = claims(told["token"])
    assert made["sub"] == "alice"
    assert (made["iss"], made["aud"]) == (HOST, HOST)
    assert made["access"] == [{"type": "repository", "name": "team/llama", "actions": ["pull"]}]
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("query", "header", "moved_s", "host"),
    [
        (VECTOR, VECTOR_HEADER.replace(":+YY", ":+YX"), 0, HOST),
        (VECTOR, VECTOR_HEADER.replace("VTG4:", "VTG5:"), 0, HOST),
        (VECTOR, VECTOR_HEADER[:-4] + "Bh==", 0, HOST),
        (VECTOR, VECTOR_HEADER[:-1], 0, HOST),
        (VECTOR.replace("pull", "push"), VECTOR_HEADER, 0, HOST),
        (VECTOR + "&x=1", VECTOR_HEADER, 0, HOST),
        (VECTOR.replace("%3A", "%3a", 1), VECTOR_HEADER, 0, HOST),
        (VECTOR, VECTOR_HEADER, 301, HOST),
        (VECTOR, VECTOR_HEADER, -301, HOST),
        ("&".join(VECTOR.split("&")[:-1]), VECTOR_HEADER, 0, HOST),
        ("", VECTOR_HEADER, 0, HOST),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_a_signature_that_is_not_of_this_request_now_is_refused(
    place: Secured, query: str, header: str, moved_s: int, host: str
) -> None:
    await add_key(place, "alice")
    place.now += moved_s * 10**9
    answer = await place.ask("GET", f"/v2/token?{query}", authorization=header, host=host)
    assert answer.status == 401
    assert_readable(answer)


async def test_a_nonce_is_good_once_and_clocks_may_differ_by_minutes(place: Secured) -> None:
    await add_key(place, "alice")
    place.now += 299 * 10**9
    statuses = [
        (await place.ask("GET", f"/v2/token?{VECTOR}", authorization=VECTOR_HEADER)).status
        for _ in range(2)
    ]
    assert statuses == [200, 401]


async def test_the_host_header_does_not_change_what_a_signature_must_cover(
    place: Secured,
) -> None:
    await add_key(place, "alice")
    answer = await place.ask(
        "GET", f"/v2/token?{VECTOR}", authorization=VECTOR_HEADER, host="other.internal"
    )
    assert answer.status == 200


async def test_what_was_signed_for_another_registry_cannot_be_passed_on(tmp_path: Path) -> None:
    """Without `external_url`, only the address of the connection itself is ours."""
    async with secured(tmp_path / "data", external_url="") as place:
        await place.user("alice")
        signer = await add_key(place, "alice")
        for host, status in (
            ("evil.internal", 401),
            ("127.0.0.1:9999", 401),
            ("127.0.0.1:11434", 200),
            ("localhost:11434", 200),
        ):
            nonce = "n" + host.replace(".", "").replace(":", "")
            query, header = signer.token_request(
                f"http://{host}/v2/token", {"nonce": nonce}, place.now_s
            )
            answer = await place.ask(
                "GET", f"/v2/token?{query}", authorization=header, host=host, user_agent=OLLAMA
            )
            assert answer.status == status, host
            if status == 401:
                assert "REGISTRY_EXTERNAL_URL" in assert_readable(answer)


async def test_an_unknown_key_gets_a_sentence_with_its_fingerprint_and_a_link(
    place: Secured,
) -> None:
    signer = Signer()
    refused = await place.ask("GET", MANIFEST, user_agent=OLLAMA)
    assert refused.status == 401
    assert_readable(refused)
    answer = await place.follow(signer, refused)
    assert answer.status == 403
    text = assert_readable(answer)
    assert "SHA256:" in text
    assert HOST in text
    code = text.split(f"{BASE}/ui/enrol/")[1].split()[0]
    pending = await place.services.accounts.pending(code)
    assert pending.fingerprint in text
    alice = await place.services.accounts.named("alice")
    await place.services.accounts.confirm_enrolment(code, alice.id)
    assert (await place.follow(signer, refused)).status == 200


async def test_an_unknown_key_may_read_what_is_public_and_not_push_it(place: Secured) -> None:
    await place.policy("team/llama", Visibility.PUBLIC)
    pull = await place.signed_token(Signer(), "repository:team/llama:pull")
    assert pull.status == 200
    assert claims(json.loads(pull.body)["token"])["sub"] == ""
    push = await place.signed_token(Signer(), "repository:team/llama:pull,push")
    assert push.status == 403
    assert "is not registered" in assert_readable(push)


async def test_a_known_key_without_the_right_is_told_so_at_once(place: Secured) -> None:
    signer = await add_key(place, "bob")
    assert (await place.signed_token(signer, "repository:team/llama:pull")).status == 200
    answer = await place.signed_token(signer, "repository:team/llama:pull,push")
    assert answer.status == 403
    assert "bob" in assert_readable(answer)


async def test_a_read_only_key_carries_no_more(place: Secured) -> None:
    signer = await add_key(place, "alice", Right.READ)
    assert (await place.signed_token(signer, "repository:team/llama:pull")).status == 200
    assert (await place.signed_token(signer, "repository:team/llama:pull,push")).status == 403


async def test_a_token_of_a_key_ends_with_the_key(place: Secured) -> None:
    signer = await add_key(place, "alice")
    answer = await place.signed_token(signer, "repository:team/llama:pull")
    bearer = "Bearer " + json.loads(answer.body)["token"]
    assert (await place.ask("GET", MANIFEST, authorization=bearer)).status == 404
    fingerprint = (await place.services.accounts.all_public_keys())[0][1].fingerprint
    await place.services.accounts.remove_public_key(fingerprint)
    answer = await place.ask("GET", MANIFEST, authorization=bearer)
    assert answer.status == 401
    assert challenge_of(answer)["error"] == "invalid_token"
    assert (await place.signed_token(signer, "repository:team/llama:pull")).status == 403


async def test_a_right_that_was_taken_away_is_gone_at_once(place: Secured) -> None:
    bearer = "Bearer " + await place.token("repository:team/llama:pull", authorization=basic("bob"))
    assert (await place.ask("GET", MANIFEST, authorization=bearer)).status == 404
    for grant in await place.services.accounts.grants():
        await place.services.accounts.revoke(grant.id)
    assert (await place.ask("GET", MANIFEST, authorization=bearer)).status == 403


async def test_a_scope_given_twice_counts_once_and_several_are_all_granted(
    place: Secured,
) -> None:
    scopes = ["repository:team/a:pull,push", "repository:team/a:pull,push", "repository:other:pull"]
    both = await place.token(*scopes, "x y:z registry:catalog:*", authorization=basic("alice"))
    assert claims(both)["access"] == [
        {"type": "repository", "name": "team/a", "actions": ["pull", "push"]},
        {"type": "registry", "name": "catalog", "actions": ["*"]},
    ]
    one = await place.token(" ".join(scopes), authorization=basic("alice"))
    assert claims(one)["access"] == claims(both)["access"][:1]


async def test_less_is_granted_without_an_error_to_other_clients(place: Secured) -> None:
    token = await place.token("repository:team/llama:pull,push", authorization=basic("bob"))
    assert claims(token)["access"][0]["actions"] == ["pull"]
    assert claims(await place.token("repository:team/llama:pull"))["access"] == []


async def test_the_form_of_oauth(place: Secured) -> None:
    form = {
        "grant_type": "password",
        "service": HOST,
        "client_id": "containerd",
        "access_type": "offline",
        "username": "alice",
        "password": PASSWORD,
        "scope": "repository:team/a:pull,push repository:nobody/x:pull",
    }
    answer = await place.ask("POST", "/v2/token", urlencode(form).encode())
    assert answer.status == 200
    told = json.loads(answer.body)
    assert set(told) == {"access_token", "expires_in", "issued_at", "scope"}
    assert told["scope"] == "repository:team/a:pull,push"
    wrong = urlencode(form | {"password": "x" * 12}).encode()
    assert (await place.ask("POST", "/v2/token", wrong)).status == 401
    refresh = urlencode({"grant_type": "refresh_token", "refresh_token": "x"}).encode()
    answer = await place.ask("POST", "/v2/token", refresh)
    assert (answer.status, json.loads(answer.body)) == (400, {"error": "unsupported_grant_type"})
    large = urlencode(form | {"scope": "x" * 20_000}).encode()
    assert (await place.ask("POST", "/v2/token", large)).status == 413


async def test_no_refresh_token_is_given_and_other_methods_are_refused(place: Secured) -> None:
    target = "/v2/token?account=alice&client_id=docker&offline_token=true&service=x"
    answer = await place.ask("GET", target, authorization=basic("alice"))
    assert set(json.loads(answer.body)) == {"token", "access_token", "expires_in", "issued_at"}
    assert (await place.ask("PUT", "/v2/token")).status == 405
    assert (await place.ask("GET", "/v2/token?" + "scope=a:b:c&" * 80)).status == 200
    many = "&".join(f"scope=repository:a/{number}:pull" for number in range(65))
    assert (await place.ask("GET", f"/v2/token?{many}")).status == 400


async def test_token_requests_are_limited_by_address(tmp_path: Path) -> None:
    async with secured(tmp_path / "data", credentials={"tokens_per_minute": 3}) as place:
        statuses = [(await place.ask("GET", "/v2/token")).status for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        answer = await place.ask("GET", "/v2/token", user_agent=OLLAMA)
        assert 1 <= int(answer.headers["retry-after"]) <= 61
        place.now += 61 * 10**9
        assert (await place.ask("GET", "/v2/token")).status == 200


async def test_guessing_passwords_is_limited_by_account_and_address(tmp_path: Path) -> None:
    async with secured(tmp_path / "data", credentials={"tries_per_minute": 2}) as place:
        await place.user("alice")
        wrong = [basic("alice", "wrong password")] * 3
        statuses = [(await place.ask("GET", "/v2/", authorization=item)).status for item in wrong]
        assert statuses == [401, 401, 429]
        answer = await place.ask("GET", "/v2/", authorization=basic("alice"))
        assert answer.status == 429
        assert "retry-after" in answer.headers


@pytest.mark.parametrize("narrowed", [True, False])
async def test_a_token_of_an_api_key_carries_no_more_than_the_key(
    place: Secured, narrowed: bool
) -> None:
    alice = await place.services.accounts.named("alice")
    scopes = (Scope("team/a", Right.READ),) if narrowed else None
    key = await place.api_key(alice, scopes=scopes)
    token = await place.token(
        "repository:team/a:pull,push",
        "repository:team/b:pull",
        authorization=basic("alice", key),
    )
    expected = [("team/a", ["pull"])] if narrowed else [
        ("team/a", ["pull", "push"]),
        ("team/b", ["pull"]),
    ]  # fmt: skip
    assert [(item["name"], item["actions"]) for item in claims(token)["access"]] == expected


async def test_without_authentication_there_is_no_token_endpoint(tmp_path: Path) -> None:
    async with secured(tmp_path / "data", auth=False) as place:
        assert (await place.ask("GET", "/v2/token")).status == 404
        assert (await place.ask("GET", "/v2/")).status == 200
