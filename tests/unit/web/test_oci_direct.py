"""Who is sent to the object store, and what such a client is told: the rows of the protocol.

Source: spec registry-protocol 1.3 "Probe rules", 2.1, 2.3, 2.5, 2.6, 6.2 rule 13.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from registry.core.digest import Digest
from registry.services.uploading.direct import SMALLEST_PART, DirectUploads
from registry.services.uploading.uploads import UploadLimits
from registry.web.redirects import PROXIED_BYTES
from tests.support.asgi import Answer, Caller
from tests.support.direct_store import MemoryStore
from tests.support.world import NAME
from tests.unit.web.test_oci import BASE, OLLAMA, UPLOADS, Service, codes, path_of

pytestmark = pytest.mark.anyio

TRANSFER = "ollama-transfer/1.0"
DOCKER = "docker/28.0"
STORE = "https://store.example.net"
NEAR = "http://models.example.com:9000"
BELOW = "https://s3.models.example.com"
BIG = b"\7" * (PROXIED_BYTES + 1)
BIG_DIGEST = Digest.of(BIG)
SMALL = b"\7" * PROXIED_BYTES
PART = SMALLEST_PART
DATA = b"a" * PART + b"b" * PART + b"c" * 5
DIGEST = Digest.of(DATA)
TENSOR = b"tensor" * 100


class Stored(Service):
    """The API with an object store that clients may reach."""

    store: MemoryStore

    def direct(self, store: MemoryStore | None = None, **settings: Any) -> Caller:
        self.store = store or MemoryStore()
        app = self.build(**settings)
        direct = DirectUploads(self.world.blobs, self.store, UploadLimits(), url_s=3600)
        app.state.services.direct = direct
        self.ask = Caller(app)
        return self.ask

    async def patch(self, session: str, start: int, length: int, **headers: str) -> Answer:
        """The request for a part, whose body is not read."""
        given: dict[str, Any] = {
            "user_agent": OLLAMA,
            "x_redirect_uploads": "1",
            "content_length": str(length),
            "content_range": f"{start}-{start + length - 1}",
        }
        return await self.ask("PATCH", session, **given | headers)

    async def send(self, session: str) -> None:
        for start in range(0, len(DATA), PART):
            data = DATA[start : start + PART]
            answer = await self.patch(session, start, len(data))
            assert self.store.send(answer.headers["location"], data)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Stored]:
    service = Stored(tmp_path)
    service.direct()
    yield service
    await service.world.stop()


# pulls


@pytest.mark.parametrize(
    ("address", "agent", "status"),
    [
        (STORE, OLLAMA, 307),
        (STORE, TRANSFER, 307),
        (STORE, DOCKER, 307),
        (NEAR, OLLAMA, 200),  # it would follow that, and then miss the address
        (NEAR, TRANSFER, 307),  # it tells hosts by their ports
        (NEAR, DOCKER, 200),  # it would take its credentials along
        (BELOW, OLLAMA, 307),
        (BELOW, DOCKER, 200),  # the same, in Go
    ],
)
async def test_a_whole_blob_has_its_address_in_the_store(
    service: Stored, address: str, agent: str, status: int
) -> None:
    ask = service.direct(MemoryStore(address=address))
    await service.push(BIG)
    blob = await service.world.blobs.stat(NAME, BIG_DIGEST)
    answer = await ask("GET", f"/v2/team/Llama/blobs/{BIG_DIGEST}", user_agent=agent)
    assert answer.status == status
    assert answer.headers["location"] == f"{address}/{blob.storage_key}?expires=86400"
    assert answer.headers["docker-content-digest"] == str(BIG_DIGEST)
    assert answer.body == (BIG if status == 200 else b"")
    caching = {200: "private, max-age=31536000, immutable", 307: "no-store"}
    assert answer.headers["cache-control"] == caching[status]


@pytest.mark.parametrize(
    ("method", "data", "headers", "status"),
    [
        ("HEAD", BIG, {}, 200),
        ("GET", SMALL, {}, 200),
        ("GET", BIG, {"range": "bytes=0-9"}, 206),
        ("GET", BIG, {"if_none_match": f'"{BIG_DIGEST}"'}, 304),
        ("GET", BIG, {"if_none_match": '"other"'}, 307),
        ("GET", SMALL, {"user_agent": TRANSFER}, 307),  # it would read it twice
        ("GET", SMALL[: 256 << 10], {"user_agent": TRANSFER}, 200),
    ],
)
async def test_heads_ranges_and_small_blobs_are_answered_here(
    service: Stored, method: str, data: bytes, headers: dict[str, Any], status: int
) -> None:
    digest = await service.push(data)
    answer = await service.ask(method, f"/v2/team/Llama/blobs/{digest}", **headers)
    assert answer.status == status


@pytest.mark.parametrize(
    ("store", "settings", "is_sent"),
    [
        ({}, {"redirect": {"pull": "never"}}, False),
        ({"is_public": False}, {}, False),
        ({"is_public": False}, {"redirect": {"pull": "always"}}, True),
        ({"address": "http://s3.net"}, {"external_url": "https://models.example.com"}, False),
        ({"address": "http://s3.net"}, {}, True),
        (
            {"address": "http://s3.net"},
            {"external_url": "https://models.example.com", "redirect": {"pull": "always"}},
            True,
        ),
        ({}, {"redirect": {"proxied": ("127.0.0.0/8",)}}, False),
        ({}, {"redirect": {"proxied": ("10.0.0.0/8", "::1")}}, True),
        ({}, {"redirect": {"pull": "always", "proxied": ("0.0.0.0/0",)}}, False),
    ],
)
async def test_the_settings_say_who_is_sent_to_the_store(
    service: Stored, store: dict[str, Any], settings: dict[str, Any], is_sent: bool
) -> None:
    ask = service.direct(MemoryStore(**store), **settings)
    await service.push(BIG)
    answer = await ask("GET", f"/v2/team/Llama/blobs/{BIG_DIGEST}", user_agent=OLLAMA)
    assert (answer.status == 307) == is_sent
    assert answer.headers["location"].startswith(service.store.address) == is_sent


async def test_a_direct_url_of_ours_stays_ours(service: Stored) -> None:
    ask = service.direct(redirect={"pull": "never"})
    await service.push(BIG)
    answer = await ask("GET", f"/v2/team/Llama/blobs/{BIG_DIGEST}")
    url = path_of(answer)
    ask = service.direct()
    again = await ask("GET", url)
    assert (again.status, path_of(again), again.body) == (200, url, BIG)


# pushes of parts


async def test_parts_are_sent_to_the_store_and_become_a_blob(service: Stored) -> None:
    session = await service.begin()
    answer = await service.patch(session, 0, PART)
    assert answer.status == 307
    assert answer.headers["location"].startswith(STORE)
    assert answer.headers["docker-upload-location"] == BASE + session
    assert answer.headers["cache-control"] == "no-store"
    await service.send(session)
    state = await service.ask("GET", session)
    assert (state.status, state.headers["range"]) == (204, f"0-{len(DATA) - 1}")
    commit = f"{session}?digest={DIGEST}&etag={'0' * 32}-3"
    for _ in range(2):
        answer = await service.ask("PUT", commit)
        assert (answer.status, answer.headers["docker-content-digest"]) == (201, str(DIGEST))
    head = await service.ask("HEAD", f"/v2/team/Llama/blobs/{DIGEST}")
    assert head.headers["content-length"] == str(len(DATA))


async def test_a_missing_part_is_400_and_the_session_goes_on(service: Stored) -> None:
    session = await service.begin()
    await service.patch(session, 0, PART)
    refused = await service.ask("PUT", f"{session}?digest={DIGEST}")
    assert (refused.status, codes(refused)) == (400, ["SIZE_INVALID"])
    await service.send(session)
    assert (await service.ask("PUT", f"{session}?digest={DIGEST}")).status == 201


async def test_the_number_of_parts_that_the_client_tells_is_heeded(service: Stored) -> None:
    session = await service.begin()
    await service.send(session)
    commit = f"{session}?digest={DIGEST}&etag="
    assert (await service.ask("PUT", f"{commit}{'0' * 32}-4")).status == 400
    assert (await service.ask("PUT", f"{commit}what")).status == 201


async def test_a_wrong_digest_is_400_and_nothing_is_kept(service: Stored) -> None:
    session = await service.begin()
    await service.send(session)
    for _ in range(2):
        refused = await service.ask("PUT", f"{session}?digest={BIG_DIGEST}")
        assert (refused.status, codes(refused)) == (400, ["DIGEST_INVALID"])
    assert service.store.objects == {}


@pytest.mark.parametrize(
    ("start", "length", "headers", "status"),
    [
        (1, PART, {}, 400),
        (PART, PART + 1, {}, 400),
        (PART, 0, {}, 400),
        (PART, PART, {"content_length": "7"}, 400),
        (PART, PART, {"content_range": "what"}, 400),
        (PART, 5, {}, 307),
        (PART, 5, {"x_redirect_uploads": "3"}, 404),
    ],
)
async def test_parts_lie_where_the_first_one_says(
    service: Stored, start: int, length: int, headers: dict[str, Any], status: int
) -> None:
    session = await service.begin()
    await service.patch(session, 0, PART)
    if not length:
        answer = await service.ask("PATCH", session, user_agent=OLLAMA, x_redirect_uploads="1")
    else:
        answer = await service.patch(session, start, length, **headers)
    assert answer.status == status


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({"redirect": {"push": "never"}}, {}),
        ({"redirect": {"proxied": ("127.0.0.1",)}}, {}),
        ({}, {"x_redirect_uploads": "no"}),
    ],
)
async def test_others_send_their_bytes_here(
    service: Stored, settings: dict[str, Any], headers: dict[str, Any]
) -> None:
    service.direct(**settings)
    session = await service.begin()
    sent: dict[str, Any] = {
        "x_redirect_uploads": "1",
        "content_range": f"0-{len(DATA) - 1}",
    } | headers
    assert (await service.ask("PATCH", session, DATA, **sent)).status == 202
    assert (await service.ask("PUT", f"{session}?digest={DIGEST}")).status == 201
    assert service.store.objects == {}


async def test_a_small_blob_is_taken_here(service: Stored) -> None:
    session = await service.begin()
    body = DATA[: PART - 1]
    sent: dict[str, Any] = {"x_redirect_uploads": "1", "content_range": f"0-{len(body) - 1}"}
    assert (await service.ask("PATCH", session, body, **sent)).status == 202
    assert (await service.ask("PUT", f"{session}?digest={Digest.of(body)}")).status == 201
    assert service.store.objects == {}


async def test_a_stream_without_a_range_is_taken_here(service: Stored) -> None:
    session = await service.begin()
    assert (await service.ask("PATCH", session, DATA, x_redirect_uploads="1")).status == 202


async def test_no_bytes_come_with_the_commit_of_parts(service: Stored) -> None:
    session = await service.begin()
    await service.send(session)
    refused = await service.ask("PUT", f"{session}?digest={DIGEST}", b"more")
    assert refused.status == 409


async def test_a_session_of_parts_can_be_cancelled(service: Stored) -> None:
    session = await service.begin()
    await service.send(session)
    assert (await service.ask("DELETE", session)).status == 204
    assert (await service.ask("GET", session)).status == 404
    assert service.store.begun == {}


# pushes of whole blobs


async def announce(service: Stored, size: str, **headers: str) -> Answer:
    given: dict[str, Any] = {
        "user_agent": TRANSFER,
        "x_redirect_uploads": "2",
        "x_content_length": size,
    }
    target = f"{UPLOADS}?digest={Digest.of(TENSOR)}"
    return await service.ask("POST", target, **given | headers)


async def test_a_tensor_goes_to_the_store_in_one_request(service: Stored) -> None:
    answer = await announce(service, str(len(TENSOR)))
    assert answer.status == 202
    assert answer.headers["x-signed-header-x-sum"] == Digest.of(TENSOR).hex
    assert answer.headers["cache-control"] == "no-store"
    assert service.store.send(answer.headers["x-direct-upload-url"], TENSOR)
    commit = await service.ask("PUT", f"{path_of(answer)}?digest={Digest.of(TENSOR)}")
    assert commit.status == 201
    assert service.store.reads == []


@pytest.mark.parametrize(
    ("size", "headers", "settings"),
    [
        (str((5 << 30) + 1), {}, {}),
        ("", {}, {}),
        ("many", {}, {}),
        ("-1", {}, {}),
        ("9" * 30, {}, {}),
        ("600", {"x_redirect_uploads": "0"}, {}),
        ("600", {}, {"redirect": {"push": "never"}}),
    ],
)
async def test_other_tensors_come_in_parts(
    service: Stored, size: str, headers: dict[str, Any], settings: dict[str, Any]
) -> None:
    service.direct(**settings)
    answer = await announce(service, size, **headers)
    assert answer.status == 202
    assert "x-direct-upload-url" not in answer.headers


async def test_a_blob_over_the_limit_is_refused_when_it_is_announced(service: Stored) -> None:
    assert (await announce(service, str((1 << 40) + 1))).status == 413
