"""Tokens by themselves: what is issued is verified, and nothing else."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry.ports.catalog import Catalog
from registry.services.access.tokens import MAX_TOKEN, Access, Subject, TokenInvalid, Tokens
from registry.settings import Credentials
from tests.support.backends import BACKENDS

pytestmark = pytest.mark.anyio

HOST = "models.example.com"
NS = 10**9
MONTH_S = 30 * 86_400
ALICE = Subject("alice", "user:1")
PULL = (Access("repository", "team/llama", ("pull",)),)


class Place:
    """A catalog, and replicas with one clock."""

    def __init__(self, folder: Path) -> None:
        self.catalog: Catalog = BACKENDS.catalog(folder)
        self.now = 1_760_000_000 * NS

    def replica(self, behind_s: int = 0, **lives: int) -> Tokens:
        return Tokens(self.catalog, Credentials(**lives), lambda: self.now - behind_s * NS)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    yield made
    await made.catalog.close()


async def test_every_replica_takes_the_tokens_of_the_others(place: Place) -> None:
    one, two = place.replica(), place.replica()
    issued = await one.issue(ALICE, PULL, HOST)
    claims = await two.verify(issued.token, HOST)
    assert (claims.subject, claims.access) == (ALICE, PULL)
    assert claims.expires_s - issued.issued_s == issued.expires_in_s == 3600
    assert len(issued.token) < 4096
    assert jwt.get_unverified_header(issued.token)["alg"] == "EdDSA"
    assert (await one.verify((await two.issue(ALICE, PULL, HOST)).token, HOST)).id != claims.id


async def test_who_asks_for_the_same_within_seconds_gets_the_same_token(place: Place) -> None:
    tokens = place.replica()
    push = (Access("repository", "team/llama", ("pull", "push")),)
    first = await tokens.issue(ALICE, PULL, HOST)
    place.now += 10 * NS
    again = await tokens.issue(ALICE, PULL, HOST)
    assert (again.token, again.issued_s, again.expires_in_s) == (first.token, first.issued_s, 3590)
    others = [
        await tokens.issue(Subject("bob", "user:2"), PULL, HOST),
        await tokens.issue(Subject("alice", "api:x"), PULL, HOST),
        await tokens.issue(ALICE, push, HOST),
        await tokens.issue(ALICE, PULL, "elsewhere"),
    ]
    place.now += 5 * NS
    others.append(await tokens.issue(ALICE, PULL, HOST))
    await tokens.rotate()
    others.append(await tokens.issue(ALICE, PULL, HOST))
    assert len({first.token, *(other.token for other in others)}) == 7
    brief = place.replica(token_s=5)
    assert (await brief.issue(ALICE, PULL, HOST)).token != (
        await brief.issue(ALICE, PULL, HOST)
    ).token


async def test_what_is_kept_of_issued_tokens_is_bounded(place: Place) -> None:
    tokens = place.replica()
    for number in range(1100):
        await tokens.issue(Subject(f"n{number}", ""), (), HOST)
    assert len(tokens._issued) <= 1024


async def test_clocks_of_replicas_may_differ_and_time_ends_a_token(place: Place) -> None:
    token = (await place.replica().issue(ALICE, PULL, HOST)).token
    assert await place.replica(behind_s=299).verify(token, HOST)
    with pytest.raises(TokenInvalid):
        await place.replica(behind_s=301).verify(token, HOST)
    place.now += 3599 * NS
    assert await place.replica().verify(token, HOST)
    place.now += NS
    with pytest.raises(TokenInvalid, match="expired"):
        await place.replica().verify(token, HOST)


async def test_keys_change_with_time_and_the_last_one_is_still_known(place: Place) -> None:
    place.now = (place.now // NS // MONTH_S + 1) * MONTH_S * NS - 10 * NS
    tokens = place.replica()
    token = (await tokens.issue(ALICE, PULL, HOST)).token
    place.now += 20 * NS
    assert await tokens.verify(token, HOST)
    later = (await tokens.issue(ALICE, PULL, HOST)).token
    kids = [jwt.get_unverified_header(item)["kid"] for item in (token, later)]
    assert kids[0] != kids[1]
    assert await place.replica().verify(token, HOST)


async def test_a_rotation_voids_every_older_token_on_all_replicas(place: Place) -> None:
    one, two = place.replica(), place.replica()
    token = (await one.issue(ALICE, PULL, HOST)).token
    assert await two.verify(token, HOST)
    await one.rotate()
    with pytest.raises(TokenInvalid, match="not in use"):
        await one.verify(token, HOST)
    place.now += 6 * NS
    with pytest.raises(TokenInvalid):
        await two.verify(token, HOST)
    assert await two.verify((await one.issue(ALICE, PULL, HOST)).token, HOST)
    assert await one.rotate() != await one.rotate()


def part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


async def test_forged_tokens_are_refused(place: Place) -> None:
    tokens = place.replica()
    good = (await tokens.issue(ALICE, PULL, HOST)).token
    header, claims = jwt.get_unverified_header(good), jwt.decode(
        good, options={"verify_signature": False}
    )  # fmt: skip
    head, body, signature = good.split(".")
    mine = Ed25519PrivateKey.generate()
    public = mine.public_key().public_bytes_raw()
    forged = [
        "",
        "a.b.c",
        "..",
        f"{head}.{body}.",
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{head}.{part(claims | {'sub': 'root'})}.{signature}",
        f"{part({'alg': 'none', 'typ': 'JWT'})}.{body}.",
        f"{part(header | {'alg': 'none'})}.{body}.",
        jwt.encode(claims, public + b"\0" * 32, "HS256", headers={"kid": header["kid"]}),
        jwt.encode(claims, mine, "EdDSA", headers={"kid": header["kid"]}),
        jwt.encode(claims, mine, "EdDSA", headers={"kid": "../../etc/passwd"}),
        jwt.encode(claims, mine, "EdDSA", headers={"jwk": {"kty": "OKP"}}),
        "x" * (MAX_TOKEN + 1),
    ]
    for token in forged:
        with pytest.raises(TokenInvalid):
            await tokens.verify(token, HOST)
    with pytest.raises(TokenInvalid):
        await tokens.verify(good, "other.example.com")
    assert await tokens.verify(good, HOST)


async def test_a_nonce_is_used_once_by_a_key(place: Place) -> None:
    tokens = place.replica()
    got = [await tokens.use_nonce(key, "n") for key in ("a", "a", "b")]
    assert got == [True, False, True]
    assert tokens.is_fresh(place.now // NS + 300)
    assert not tokens.is_fresh(place.now // NS - 301)
