"""What callers of `/api/v1/link` get who are no workers, or not these."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from registry.core.digest import Digest
from registry.core.names import ModelName
from registry.ports.workers import LoadSpec, Weights
from tests.support.linked import Place, ScriptedNode, taking_workers

pytestmark = pytest.mark.anyio

DATA = b"weights" * 1000


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with taking_workers(tmp_path) as place:
        yield place


async def ask(
    place: Place, method: str, path: str, credential: str = "", body: bytes = b"", **headers: str
) -> httpx2.Response:
    sent = {"x-worker-session": "s1", **headers}
    if credential:
        sent["authorization"] = f"Bearer {credential}"
    async with httpx2.AsyncClient(base_url=place.url, timeout=10) as client:
        return await client.request(
            method, f"/api/v1/link{path}", content=body or None, headers=sent
        )


@pytest.mark.parametrize("credential", ["", "hf_" + "x" * 40, "rgw_gpu." + "x" * 43])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", "/report"),
        ("POST", "/calls/1"),
        ("GET", f"/blobs/{Digest.of(DATA)}"),
    ],
)
async def test_nothing_without_a_workers_credential(
    place: Place, method: str, path: str, credential: str
) -> None:
    answer = await ask(place, method, path, credential)
    assert answer.status_code == 401
    assert "error" in answer.json()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "must be a JSON object"),
        (b"[]", 400, "must be a JSON object"),
        (b"{", 400, "must be a JSON object"),
        (b'{"token":5,"name":"a"}', 400, "token and name are needed"),
        (b'{"token":"none","name":"a"}', 404, "unknown, used or expired"),
        (b"x" * (65 << 10), 413, "larger than"),
    ],
)
async def test_enrolments_that_cannot_be(place: Place, body: bytes, status: int, said: str) -> None:
    answer = await ask(place, "POST", "/enrolment", body=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]


async def test_enrolment_gives_a_credential_once(place: Place) -> None:
    token = await place.keys.make_token(60)
    body = json.dumps({"token": token, "name": "gpu"}).encode()
    made = (await ask(place, "POST", "/enrolment", body=body)).json()
    assert await place.keys.name_of(made["credential"]) == made["name"] == "gpu"
    assert (await ask(place, "POST", "/enrolment", body=body)).status_code == 409


async def test_reports_and_answers_need_a_line(place: Place) -> None:
    credential = await place.enrol()
    for path in ("/report", "/calls/1"):
        answer = await ask(place, "POST", path, credential, b"{}")
        assert (answer.status_code, "open one first" in answer.text) == (409, True)


async def test_answers_nobody_waits_for_and_reports_that_are_none(place: Place) -> None:
    credential = await place.enrol()
    place.link(ScriptedNode(), credential)
    await place.worker()
    assert (await ask(place, "POST", "/calls/none", credential, b"{}\n")).status_code == 404
    for body in (b"", b"{}", b'{"facts":{"engine":1}}', b"\xff"):
        assert (await ask(place, "POST", "/report", credential, body)).status_code == 400
    other = await ask(place, "POST", "/report", credential, b"{}", **{"x-worker-session": "s2"})
    assert other.status_code == 409


async def test_a_blob_is_read_only_by_who_was_told_to_run_it(place: Place) -> None:
    credential, stranger = await place.enrol("gpu"), await place.enrol("other")
    digest = Digest.parse(await place.lib.put(DATA))
    place.link(ScriptedNode(), credential)
    worker = await place.worker()
    path = f"/blobs/{digest}"
    assert (await ask(place, "GET", path, credential)).status_code == 404
    name = ModelName.parse("m")
    await worker.acquire(LoadSpec(name, digest, Weights(digest, len(DATA))))
    whole = await ask(place, "GET", path, credential)
    assert (whole.status_code, whole.content) == (200, DATA)
    part = await ask(place, "GET", path, credential, range="bytes=7-13")
    assert (part.status_code, part.content) == (206, DATA[7:14])
    assert part.headers["content-range"] == f"bytes 7-13/{len(DATA)}"
    assert (await ask(place, "GET", path, stranger)).status_code == 404
    assert (await ask(place, "GET", "/blobs/sha256:x", credential)).status_code == 400


async def test_a_blob_that_is_gone_is_not_found(place: Place) -> None:
    credential = await place.enrol()
    place.link(ScriptedNode(), credential)
    digest = Digest.of(b"deleted meanwhile")
    worker = await place.worker()
    await worker.acquire(LoadSpec(ModelName.parse("m"), digest, Weights(digest, 1)))
    assert (await ask(place, "GET", f"/blobs/{digest}", credential)).status_code == 404
