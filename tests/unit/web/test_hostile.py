"""What broke other registries, tried on the whole application: each costs one clear error."""

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.access import Right
from registry.core.digest import Digest
from registry.web.oci import _MAX_REPOSITORIES
from tests.support.secured import MANIFEST_TYPE, Secured, basic, model, secured

pytestmark = pytest.mark.anyio

ALICE = {"authorization": basic("alice")}
TEAM = "/v2/team/llama"
WEIGHTS = b"weights" * 100
HELD = str(Digest.of(WEIGHTS))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Secured]:
    async with secured(tmp_path / "data") as made:
        await made.user("alice")
        await made.grant("user:alice", "*", Right.ALL)
        assert (await made.push("team/llama", "1", WEIGHTS, **ALICE)).status == 201
        yield made


SPELLINGS = [
    "../../../etc/passwd", "sha256:../../../../etc/passwd", "sha256:" + "0" * 63 + "/",
    "sha256:" + "..%2f" * 12, "sha256:" + "%2e%2e%2f" * 8, "sha256-" + "/" * 64,
    "sha256:" + "%D9%A1" * 64, "sha256:" + "%EF%BC%90" * 64, "sha256:" + "g" * 64,
    "sha256:" + "0" * 64 + "%00", "sha256:" + "0" * 64 + "%0a", "sha256:" + "0" * 10_000,
    "sha512:" + "0" * 64, "md5:" + "0" * 32, "sha256", "sha256:", ":", "%5c..%5c..",
]  # fmt: skip


@pytest.mark.parametrize("text", SPELLINGS, ids=range(len(SPELLINGS)))
async def test_no_spelling_of_a_digest_leaves_the_folder(
    place: Secured, tmp_path: Path, text: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("a secret")
    before = {file for file in tmp_path.rglob("*") if file.is_file()}
    for method, path in (
        ("GET", f"{TEAM}/blobs/{text}"),
        ("HEAD", f"/api/blobs/{text}"),
        ("POST", f"/api/blobs/{text}"),
        ("POST", f"{TEAM}/blobs/uploads/?digest={text}"),
        ("POST", f"{TEAM}/blobs/uploads/?mount={text}&from={text}"),
        ("GET", f"{TEAM}/manifests/{text}"),
        ("PUT", f"{TEAM}/manifests/{text}"),
        ("GET", f"{TEAM}/referrers/{text}"),
    ):
        answer = await place.ask(method, path, b"x" if method in {"POST", "PUT"} else b"", **ALICE)
        assert 300 <= answer.status < 500, (method, path)  # slashes lead to a path without them
        for secret in (b"a secret", str(tmp_path).encode(), b"root:"):
            assert secret not in answer.body
    stores = {file for file in tmp_path.rglob("*") if file.is_file()} - before
    assert {file for file in stores if "registry.db" not in file.name} == set()


async def test_no_delete_reaches_a_file(place: Secured, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("still here")
    for text in SPELLINGS:
        for path in (f"{TEAM}/blobs/{text}", f"{TEAM}/manifests/{text}"):
            assert (await place.ask("DELETE", path, **ALICE)).status >= 300
    for name in ("../outside", "..%2foutside", "/etc/passwd", "team/../outside"):
        body = json.dumps({"model": name}).encode()
        assert (await place.ask("DELETE", "/api/delete", body, **ALICE)).status >= 400
    assert outside.exists()
    assert (await place.ask("GET", f"{TEAM}/blobs/{HELD}", **ALICE)).body == WEIGHTS


async def test_a_compressed_body_is_taken_as_it_is(place: Secured) -> None:
    bomb = gzip.compress(json.dumps({"model": "team/llama:1", "x": " " * 10_000_000}).encode())
    headers = {**ALICE, "content_encoding": "gzip"}
    answer = await place.ask("POST", "/api/show", bomb, **headers)
    assert answer.status == 400
    data = gzip.compress(b"x" * 1000)
    target = f"{TEAM}/blobs/uploads/?digest={Digest.of(data)}"
    assert (await place.ask("POST", target, data, **headers)).status == 201
    got = await place.ask("GET", f"{TEAM}/blobs/{Digest.of(data)}", accept_encoding="gzip", **ALICE)
    assert (got.body, "content-encoding" in got.headers) == (data, False)


async def test_a_digest_that_comes_twice_must_have_one_size(place: Secured) -> None:
    data = b"{}"  # a config and a layer in one
    assert (await place.upload("team/llama", data, **ALICE)).status == 201
    value = json.loads(model(data, data))
    twice = json.dumps(value).encode()
    headers = {**ALICE, "content_type": MANIFEST_TYPE}
    assert (await place.ask("PUT", f"{TEAM}/manifests/twice", twice, **headers)).status == 201
    value["layers"].append({**value["layers"][0], "size": 1})
    answer = await place.ask("PUT", f"{TEAM}/manifests/lies", json.dumps(value).encode(), **headers)
    assert answer.status == 400
    assert (await place.ask("GET", f"{TEAM}/manifests/lies", **ALICE)).status == 404


async def test_the_size_of_a_page_is_clamped(place: Secured) -> None:
    for number in range(3):
        assert (await place.push(f"team/m{number}", "1", b"x", **ALICE)).status == 201
    answer = await place.ask("GET", "/v2/_catalog?n=999999999", **ALICE)
    assert len(json.loads(answer.body)["repositories"]) == 4
    assert _MAX_REPOSITORIES <= 1000
    for text in ("9" * 30, "-1", "1e9", "0x10", "%D9%A1", ""):
        answer = await place.ask("GET", f"/v2/_catalog?n={text}", **ALICE)
        assert answer.status == 400, text


async def test_many_ranges_are_answered_with_the_whole(place: Secured) -> None:
    ranges = "bytes=" + ",".join(f"{n}-{n}" for n in range(700))
    answer = await place.ask("GET", f"{TEAM}/blobs/{HELD}", range=ranges, **ALICE)
    assert (answer.status, answer.body) == (200, WEIGHTS)
