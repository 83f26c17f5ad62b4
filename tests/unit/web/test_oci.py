import hashlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette

from registry.adapters.models_folder import FolderOnDisk
from registry.core.digest import EMPTY, Digest
from registry.core.errors import RegistryError
from registry.core.media import OCI_INDEX, OCI_MANIFEST
from registry.services.library.housekeeping import Housekeeping
from registry.services.library.manifests import Manifests
from registry.services.uploading.uploads import NS
from registry.settings import Settings
from registry.web import errors, oci
from tests.support.asgi import Answer, Caller
from tests.support.world import DATA, DIGEST, World

pytestmark = pytest.mark.anyio

BASE = "http://models.example.com"
BLOB = f"/v2/team/Llama/blobs/{DIGEST}"
UPLOADS = "/v2/team/Llama/blobs/uploads/"
MANIFEST = "/v2/team/Llama/manifests/"
SHA512 = Digest("sha512", hashlib.sha512(DATA).hexdigest())
OLLAMA = "ollama/0.33.0 (amd64 linux) Go/go1.26"
ZERO = "sha256:" + "0" * 64


class Service:
    """The API over a store and a catalog on disk."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.settings = Settings.load({}, data=folder / "data")
        self.ask = Caller(self.build())

    def build(self, **settings: Any) -> Starlette:
        world = self.world
        settings = {"data": self.settings.data, **settings}
        given = Settings.load({}, **settings)
        folder = FolderOnDisk(given.data)
        housekeeping = Housekeeping(
            world.catalog, world.store, folder, given.retention, self.clock
        )  # fmt: skip
        app = Starlette(routes=oci.routes, exception_handlers={RegistryError: errors.answer})
        app.state.services = SimpleNamespace(
            settings=given,
            clock=self.clock,
            blobs=world.blobs,
            uploads=world.uploads,
            direct=None,
            manifests=Manifests(world.catalog, world.store, housekeeping, self.clock),
        )
        return app

    def clock(self) -> int:
        return self.world.now

    async def begin(self, query: str = "") -> str:
        """The path of a new session."""
        answer = await self.ask("POST", UPLOADS + query)
        assert answer.status == 202
        return path_of(answer)

    async def push(self, data: bytes, repository: str = "team/Llama") -> Digest:
        digest = Digest.of(data)
        path = f"/v2/{repository}/blobs/uploads/?digest={digest}"
        assert (await self.ask("POST", path, data, content_length=str(len(data)))).status == 201
        return digest

    async def push_manifest(self, tag: str = "8b", **changes: Any) -> tuple[bytes, Digest]:
        config, layer = await self.push(b"{}"), await self.push(DATA)
        body = image(config, layer, **changes)
        answer = await self.ask("PUT", MANIFEST + tag, body, content_type=OCI_MANIFEST)
        assert answer.status == 201, answer.body
        return body, Digest.of(body)


def image(config: Digest, layer: Digest, **changes: Any) -> bytes:
    value = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "a/config", "digest": str(config), "size": 2},
        "layers": [{"mediaType": "a/layer", "digest": str(layer), "size": len(DATA)}],
    }
    return json.dumps(value | changes).encode()


def path_of(answer: Answer) -> str:
    assert answer.headers["location"].startswith(BASE)
    return answer.headers["location"].removeprefix(BASE)


def codes(answer: Answer) -> list[str]:
    assert answer.headers["content-type"] == "application/json"
    return [error["code"] for error in json.loads(answer.body)["errors"]]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    service = Service(tmp_path)
    yield service
    await service.world.stop()


async def test_the_ping_says_that_the_protocol_is_spoken(service: Service) -> None:
    for path in ("/v2", "/v2/"):
        answer = await service.ask("GET", path)
        assert (answer.status, answer.body) == (200, b"{}")
        assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"/v2/team/Llama/blobs/{ZERO}", 404, "BLOB_UNKNOWN"),
        ("HEAD", f"/v2/team/Llama/blobs/{ZERO}", 404, "BLOB_UNKNOWN"),
        ("GET", f"/v2/nobody/x/blobs/{ZERO}", 404, "BLOB_UNKNOWN"),
        ("DELETE", f"/v2/nobody/x/blobs/{ZERO}", 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/team/Llama/blobs/sha256:xyz", 400, "DIGEST_INVALID"),
        ("GET", "/v2/team/Llama/blobs/md5:00", 400, "DIGEST_INVALID"),
        ("DELETE", "/v2/team/Llama/blobs/..", 400, "DIGEST_INVALID"),
        ("GET", "/v2/team/Llama/manifests/none", 404, "MANIFEST_UNKNOWN"),
        ("GET", f"/v2/team/Llama/manifests/{ZERO}", 404, "MANIFEST_UNKNOWN"),
        ("DELETE", "/v2/team/Llama/manifests/none", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/team/Llama/manifests/sha256:bad", 400, "DIGEST_INVALID"),
        ("PUT", "/v2/team/Llama/manifests/sha256:bad", 400, "DIGEST_INVALID"),
        ("PUT", "/v2/team/Llama/manifests/-bad", 400, "NAME_INVALID"),
        ("PUT", "/v2/team/Llama/manifests/a", 400, "MANIFEST_INVALID"),
        ("GET", "/v2/nobody/x/tags/list", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/a%2Fb/tags/list", 400, "NAME_INVALID"),
        ("GET", f"/v2/{'a' * 10_000}/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/a/../../b/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/nowhere", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/team/Llama/referrers/x", 400, "DIGEST_INVALID"),
        ("GET", "/v2/_catalog?n=x", 400, "PAGINATION_NUMBER_INVALID"),
        ("GET", "/v2/_catalog?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
        ("GET", "/v2/_catalog?n=99999999999999999999", 400, "PAGINATION_NUMBER_INVALID"),
        ("POST", "/v2/team/Llama/blobs/uploads/?digest=x", 400, "DIGEST_INVALID"),
        ("POST", "/v2/team/Llama/blobs/uploads/?mount=x", 400, "DIGEST_INVALID"),
        ("POST", "/v2/team/Llama/blobs/uploads/?digest-algorithm=md5", 400, "DIGEST_INVALID"),
        ("PATCH", "/v2/team/Llama/blobs/uploads/1", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("GET", "/v2/_catalog/x/y", 404, "NAME_UNKNOWN"),
        ("POST", "/v2/_catalog", 405, "UNSUPPORTED"),
        ("PATCH", "/v2/team/Llama/manifests/a", 405, "UNSUPPORTED"),
        ("GET", "/v2/team/Llama/blobs/uploads/", 405, "UNSUPPORTED"),
        ("OPTIONS", "/v2/", 405, "UNSUPPORTED"),
    ],
)
async def test_errors_have_their_status_and_code(
    service: Service, method: str, path: str, status: int, code: str
) -> None:
    answer = await service.ask(method, path)
    assert (answer.status, codes(answer)) == (status, [code])
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
    assert ("allow" in answer.headers) is (status == 405)
    assert str(service.settings.data) not in answer.body.decode()


async def test_the_ollama_client_is_answered_in_one_plain_line(service: Service) -> None:
    answer = await service.ask("PUT", MANIFEST + "8b", b"[\n]", user_agent=OLLAMA)
    assert answer.status == 400
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.body == b"invalid manifest: not a JSON object\n"


async def test_a_manifest_that_refers_to_a_missing_blob_names_it(service: Service) -> None:
    await service.push(b"{}")
    body = image(Digest.of(b"{}"), DIGEST)
    answer = await service.ask("PUT", MANIFEST + "8b", body, content_type=OCI_MANIFEST)
    assert (answer.status, codes(answer)) == (400, ["MANIFEST_BLOB_UNKNOWN"])
    assert json.loads(answer.body)["errors"][0]["detail"] == {"digest": str(DIGEST)}


async def test_head_and_get_of_a_blob_agree(service: Service) -> None:
    await service.push(DATA)
    head, get = await service.ask("HEAD", BLOB), await service.ask("GET", BLOB)
    for answer in (head, get):
        assert answer.status == 200
        expected = {
            "content-length": str(len(DATA)),
            "content-type": "application/octet-stream",
            "docker-content-digest": str(DIGEST),
            "etag": f'"{DIGEST}"',
            "accept-ranges": "bytes",
            "cache-control": "public, max-age=31536000, immutable",
        }
        assert {name: answer.headers[name] for name in expected} == expected
    assert (head.body, get.body) == (b"", DATA)
    assert "location" not in head.headers


@pytest.mark.parametrize(
    ("header", "status", "body", "content_range"),
    [
        ("bytes=500-1499", 206, DATA[500:1500], f"bytes 500-1499/{len(DATA)}"),
        ("bytes=500-", 206, DATA[500:], f"bytes 500-{len(DATA) - 1}/{len(DATA)}"),
        ("bytes=-500", 206, DATA[-500:], f"bytes {len(DATA) - 500}-{len(DATA) - 1}/{len(DATA)}"),
        ("bytes=9000-99999", 206, DATA[9000:], f"bytes 9000-{len(DATA) - 1}/{len(DATA)}"),
        ("bytes=500-0", 416, b"", f"bytes */{len(DATA)}"),
        ("bytes=99999-", 416, b"", f"bytes */{len(DATA)}"),
        ("bytes=0-1,5-6", 200, DATA, None),
        ("lines=1-2", 200, DATA, None),
    ],
)
async def test_ranges(
    service: Service, header: str, status: int, body: bytes, content_range: str | None
) -> None:
    await service.push(DATA)
    direct = path_of(await service.ask("GET", BLOB))
    for path in (BLOB, direct):
        answer = await service.ask("GET", path, range=header)
        assert (answer.status, answer.body) == (status, body)
        assert answer.headers.get("content-range") == content_range
        assert answer.headers["docker-content-digest"] == str(DIGEST)


async def test_who_has_the_blob_is_not_sent_it_again(service: Service) -> None:
    await service.push(DATA)
    answer = await service.ask("GET", BLOB, if_none_match=f'"{DIGEST}"')
    assert (answer.status, answer.body) == (304, b"")


async def test_every_whole_blob_bears_its_direct_url(service: Service) -> None:
    await service.push(DATA)
    answer = await service.ask("GET", BLOB)
    direct = path_of(answer)
    for method in ("GET", "HEAD"):
        again = await service.ask(method, direct)
        assert (again.status, again.headers["content-length"]) == (200, str(len(DATA)))
        assert again.headers["cache-control"].startswith("private")
    assert (await service.ask("GET", direct)).headers["location"] == answer.headers["location"]
    service.world.now += 86_399 * NS
    assert (await service.ask("GET", direct)).status == 200
    service.world.now += NS
    late = await service.ask("GET", direct)
    assert (late.status, late.body) == (403, b"")


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        ("sig=", "sig=0", 403),
        ("kid=", "kid=0", 403),
        ("exp=", "exp=9", 403),
        ("team/Llama", "team/other", 403),
        (str(DIGEST), ZERO, 403),
        (str(DIGEST), "sha256:bad", 400),
        ("team/Llama", "TEAM/llama", 200),
    ],
)
async def test_a_direct_url_is_for_one_blob_and_its_errors_have_no_body(
    service: Service, old: str, new: str, status: int
) -> None:
    await service.push(DATA)
    direct = path_of(await service.ask("GET", BLOB)).replace(old, new)
    answer = await service.ask("GET", direct)
    assert answer.status == status
    assert answer.body == (DATA if status == 200 else b"")


async def test_a_direct_url_of_a_deleted_blob_is_an_empty_404(service: Service) -> None:
    await service.push(DATA)
    direct = path_of(await service.ask("GET", BLOB))
    await service.ask("DELETE", BLOB)
    answer = await service.ask("GET", direct)
    assert (answer.status, answer.body) == (404, b"")


async def test_a_probe_of_the_ollama_client_is_sent_no_body(service: Service) -> None:
    large = bytes(3 << 20)
    digest = await service.push(large)
    path = f"/v2/team/Llama/blobs/{digest}"
    probe = await service.ask("GET", path, leaves=True, user_agent=OLLAMA)
    assert probe.headers["location"].startswith(BASE + path)
    assert len(probe.messages) == 1
    begun = time.monotonic()
    patient = await service.ask("GET", path, user_agent=OLLAMA)
    assert patient.body == large
    assert time.monotonic() - begun > 0.1


async def test_the_external_url_is_used_for_every_location(service: Service) -> None:
    await service.push(DATA)
    ask = Caller(service.build(external_url="https://registry.example.org/"))
    for method, path in (("GET", BLOB), ("POST", UPLOADS)):
        answer = await ask(method, path)
        assert answer.headers["location"].startswith("https://registry.example.org/v2/team/Llama/")


# uploads


async def test_chunks_in_order_become_a_blob(service: Service) -> None:
    session = await service.begin()
    sent = [(0, 1024), (1024, 2048)]
    for start, stop in sent:
        answer = await service.ask(
            "PATCH", session, DATA[start:stop], content_range=f"{start}-{stop - 1}"
        )
        assert (answer.status, answer.headers["range"]) == (202, f"0-{stop - 1}")
        assert path_of(answer) == session
        assert session.endswith(answer.headers["docker-upload-uuid"])
    status = await service.ask("GET", session)
    assert (status.status, status.headers["range"]) == (204, "0-2047")
    rest = DATA[2048:]
    answer = await service.ask("PUT", f"{session}?digest={DIGEST}", rest)
    assert (answer.status, path_of(answer)) == (201, BLOB)
    assert answer.headers["docker-content-digest"] == str(DIGEST)
    assert (await service.ask("GET", BLOB)).body == DATA


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_the_order_of_the_conformance_program(service: Service, method: str) -> None:
    data = DATA[:3067]
    session = await service.begin()
    steps = [
        ("PATCH", 1024, 2048, 416, "0-0"),
        ("PATCH", 0, 1024, 202, "0-1023"),
        (method, 2048, 3067, 416, "0-1023"),
        ("PATCH", 1024, 2048, 202, "0-2047"),
        ("PATCH", 0, 1024, 416, "0-2047"),
        ("PATCH", 1024, 2048, 202, "0-2047"),  # the last one again: its answer was lost
    ]
    query = f"?digest={Digest.of(data)}"
    for step, start, stop, status, so_far in steps:
        answer = await service.ask(
            step,
            session + (query if step == "PUT" else ""),
            data[start:stop],
            content_range=f"{start}-{stop - 1}",
        )
        assert (answer.status, answer.headers["range"]) == (status, so_far)
        assert path_of(answer) == session
        state = await service.ask("GET", session)
        assert (state.status, state.headers["range"]) == (204, so_far)
    final = await service.ask("PUT", session + query, data[2048:], content_range="2048-3066")
    assert final.status == 201


async def test_a_chunk_may_say_its_unit_and_come_in_pieces(service: Service) -> None:
    session = await service.begin()
    answer = await service.ask("PATCH", session, DATA[:100], content_range="bytes 0-99/*")
    assert answer.status == 202
    answer = await service.ask("PATCH", session, [DATA[100:5000], DATA[5000:]])
    assert answer.headers["range"] == f"0-{len(DATA) - 1}"
    answer = await service.ask(
        "PUT", f"{session}?etag=d41d8cd98f00b204e9800998ecf8427e-1&digest={DIGEST}"
    )  # fmt: skip
    assert answer.status == 201
    again = await service.ask("PUT", f"{session}?digest={DIGEST}")
    assert (again.status, path_of(again)) == (201, BLOB)


@pytest.mark.parametrize("content_range", ["0-8", "9-0", "x", "0-99999999999999999999", "-5"])
async def test_a_range_that_disagrees_with_the_length_is_refused(
    service: Service, content_range: str
) -> None:
    session = await service.begin()
    for method, path in (("PATCH", session), ("PUT", f"{session}?digest={DIGEST}")):
        answer = await service.ask(method, path, DATA[:10], content_range=content_range)
        assert (answer.status, codes(answer)) == (400, ["SIZE_INVALID"])
    assert (await service.ask("GET", session)).headers["range"] == "0-0"


async def test_a_body_shorter_than_it_says_is_not_kept(service: Service) -> None:
    session = await service.begin()
    for method, path in (
        ("PATCH", session),
        ("PUT", f"{session}?digest={DIGEST}"),
        ("POST", f"{UPLOADS}?digest={DIGEST}"),
    ):
        answer = await service.ask(method, path, DATA[:10], content_length="11")
        assert (answer.status, codes(answer)) == (400, ["SIZE_INVALID"])
    for length in ("x", "-1", "1" * 30, "1_0"):
        answer = await service.ask("PATCH", session, b"", content_length=length)
        assert (answer.status, codes(answer)) == (400, ["SIZE_INVALID"])


@pytest.mark.parametrize(
    "digest", ["", "&digest=" + ZERO, f"digest={ZERO}&digest={ZERO}", "digest=x"]
)
async def test_a_commit_needs_one_digest(service: Service, digest: str) -> None:
    session = await service.begin()
    path = f"{session}?{digest}" if digest != "&digest=" + ZERO else f"{session}?digest={ZERO}"
    answer = await service.ask("PUT", path, DATA)
    assert (answer.status, codes(answer)) == (400, ["DIGEST_INVALID"])
    assert (await service.ask("HEAD", BLOB)).status == 404
    assert service.world.leftovers() == []


@pytest.mark.parametrize("digest", [DIGEST, SHA512])
@pytest.mark.parametrize("pieces", [False, True])
async def test_a_blob_in_one_request(service: Service, digest: Digest, pieces: bool) -> None:
    body = [DATA[:7], DATA[7:]] if pieces else DATA
    answer = await service.ask("POST", f"{UPLOADS}?digest={digest}", body)
    assert (answer.status, answer.headers["docker-content-digest"]) == (201, str(digest))
    got = await service.ask("GET", path_of(answer))
    assert (got.body, got.headers["docker-content-digest"]) == (DATA, str(digest))


async def test_a_wrong_blob_in_one_request_is_not_kept(service: Service) -> None:
    answer = await service.ask("POST", f"{UPLOADS}?digest={ZERO}", DATA)
    assert (answer.status, codes(answer)) == (400, ["DIGEST_INVALID"])
    assert service.world.leftovers() == []


async def test_an_announced_blob_without_body_begins_a_session(service: Service) -> None:
    session = await service.begin(f"?digest={DIGEST}")
    assert (await service.ask("PUT", f"{session}?digest={DIGEST}", DATA)).status == 201
    answer = await service.ask("POST", f"{UPLOADS}?digest={ZERO}", [b""])
    assert (answer.status, answer.headers["range"]) == (202, "0-0")
    assert (await service.ask("POST", f"{UPLOADS}?digest={EMPTY}")).status == 201
    assert (await service.ask("GET", f"/v2/team/Llama/blobs/{EMPTY}")).body == b""


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("", 201),
        ("&from=team/Llama", 201),
        ("&from=TEAM/llama", 201),
        ("&from=nobody/x", 202),
        ("&from=library/base:8b", 202),
        ("&from=..%2f..", 202),
        ("&from=", 202),
    ],
)
async def test_a_blob_is_mounted_or_uploaded(service: Service, source: str, status: int) -> None:
    await service.push(DATA)
    other = "/v2/team/other/blobs/"
    answer = await service.ask("POST", f"{other}uploads/?mount={DIGEST}{source}")
    assert answer.status == status
    if status == 201:
        assert (await service.ask("GET", path_of(answer))).body == DATA
    else:
        assert path_of(answer).startswith(f"{other}uploads/")
        assert (await service.ask("HEAD", f"{other}{DIGEST}")).status == 404


async def test_a_cancelled_session_is_unknown(service: Service) -> None:
    session = await service.begin("?digest-algorithm=sha512")
    await service.ask("PATCH", session, DATA)
    assert (await service.ask("DELETE", session)).status == 204
    for method in ("GET", "PATCH", "DELETE"):
        answer = await service.ask(method, session)
        assert (answer.status, codes(answer)) == (404, ["BLOB_UPLOAD_UNKNOWN"])
    answer = await service.ask("PUT", f"{session}?digest={DIGEST}")
    assert answer.status == 404
    assert service.world.leftovers() == []


async def test_a_session_of_another_repository_is_unknown(service: Service) -> None:
    session = (await service.begin()).replace("team/Llama", "team/other")
    for method in ("GET", "PATCH", "DELETE"):
        assert (await service.ask(method, session)).status == 404


async def test_a_full_disk_says_so(service: Service) -> None:
    session = await service.begin()
    service.world.store.full = True
    for method, path in (
        ("POST", f"{UPLOADS}?digest={DIGEST}"),
        ("PATCH", session),
    ):
        answer = await service.ask(method, path, DATA, user_agent=OLLAMA)
        assert (answer.status, answer.body) == (507, b"no space left\n")
    assert service.world.leftovers() == []


# manifests and lists


async def test_a_manifest_comes_back_as_it_was_put(service: Service) -> None:
    body, digest = await service.push_manifest(extra={"kept": [1, 2]})
    for reference in ("8b", "8B", str(digest)):
        for method in ("GET", "HEAD"):
            answer = await service.ask(method, MANIFEST + reference, accept="x/y")
            assert (answer.status, answer.headers["content-type"]) == (200, OCI_MANIFEST)
            assert answer.headers["content-length"] == str(len(body))
            assert answer.headers["docker-content-digest"] == str(digest)
            assert answer.body == body
    known = await service.ask("GET", MANIFEST + "8b", if_none_match=f'W/"x", "{digest}"')
    assert (known.status, known.body) == (304, b"")


async def test_a_manifest_is_put_by_digest_and_under_more_tags(service: Service) -> None:
    body, digest = await service.push_manifest()
    answer = await service.ask("PUT", f"{MANIFEST}{digest}?tag=a&tag=b", body)
    assert (answer.status, path_of(answer)) == (201, f"{MANIFEST}{digest}")
    assert [text for name, text in answer.pairs if name == "oci-tag"] == ["a", "b"]
    tags = await service.ask("GET", "/v2/team/Llama/tags/list")
    assert json.loads(tags.body) == {"name": "team/Llama", "tags": ["8b", "a", "b"]}
    many = "&".join(f"tag=t{n}" for n in range(65))
    assert (await service.ask("PUT", f"{MANIFEST}{digest}?{many}", body)).status == 414
    wrong = await service.ask("PUT", MANIFEST + ZERO, body)
    assert (wrong.status, codes(wrong)) == (400, ["DIGEST_INVALID"])


async def test_a_manifest_over_the_limit_is_refused(service: Service) -> None:
    body = b" " * ((4 << 20) + 1)
    for sent in (body, [body[: 3 << 20], body[3 << 20 :]]):
        answer = await service.ask("PUT", MANIFEST + "8b", sent)
        assert (answer.status, codes(answer)) == (413, ["SIZE_INVALID"])


async def test_a_body_that_breaks_off_is_an_error(service: Service) -> None:
    session = await service.begin()
    for method, path in (
        ("PUT", MANIFEST + "8b"),
        ("PATCH", session),
        ("PUT", f"{session}?digest={DIGEST}"),
        ("POST", f"{UPLOADS}?digest={DIGEST}"),
    ):
        answer = await service.ask(method, path, [DATA], breaks_off=True)
        assert (answer.status, codes(answer)) == (400, ["SIZE_INVALID"])
    assert (await service.ask("GET", session)).headers["range"] == "0-0"


async def test_deleting_a_tag_leaves_the_manifest(service: Service) -> None:
    _, digest = await service.push_manifest()
    blob = await service.ask("DELETE", BLOB)
    assert (blob.status, codes(blob)) == (405, ["UNSUPPORTED"])
    assert (await service.ask("DELETE", MANIFEST + "8b")).status == 202
    assert (await service.ask("GET", MANIFEST + "8b")).status == 404
    assert (await service.ask("DELETE", f"{MANIFEST}{digest}")).status == 202
    assert (await service.ask("GET", f"{MANIFEST}{digest}")).status == 404
    assert (await service.ask("DELETE", BLOB)).status == 202
    assert (await service.ask("HEAD", BLOB)).status == 404


async def test_lists_come_in_pages(service: Service) -> None:
    for tag in ("b", "a", "c"):
        await service.push_manifest(tag)
    seen, path = [], "/v2/team/Llama/tags/list?n=1"
    while path:
        answer = await service.ask("GET", path)
        seen += json.loads(answer.body)["tags"]
        path = answer.headers.get("link", "").partition(">")[0].removeprefix("<")
    assert seen == ["a", "b", "c"]
    none = await service.ask("GET", "/v2/team/Llama/tags/list?n=0")
    assert (json.loads(none.body)["tags"], "link" in none.headers) == ([], False)
    behind = await service.ask("GET", "/v2/team/Llama/tags/list?last=aa")
    assert json.loads(behind.body)["tags"] == ["b", "c"]


async def test_the_catalog_comes_in_pages(service: Service) -> None:
    for name in ("b/b", "a/A", "c/c"):
        config, layer = await service.push(b"{}", name), await service.push(DATA, name)
        await service.ask("PUT", f"/v2/{name}/manifests/t", image(config, layer))
    seen, path = [], "/v2/_catalog?n=2"
    while path:
        answer = await service.ask("GET", path)
        seen += json.loads(answer.body)["repositories"]
        path = answer.headers.get("link", "").partition(">")[0].removeprefix("<")
    assert seen == ["a/A", "b/b", "c/c"]


async def test_referrers_are_listed_and_filtered(service: Service) -> None:
    _, subject = await service.push_manifest()
    path = f"/v2/team/Llama/referrers/{subject}"
    empty = await service.ask("GET", path)
    assert (empty.headers["content-type"], json.loads(empty.body)["manifests"]) == (OCI_INDEX, [])
    pointer = {"mediaType": OCI_MANIFEST, "digest": str(subject), "size": 1}
    found = {}
    for kind in ("x/one", "x/two"):
        service.world.now += 1
        body = image(
            Digest.of(b"{}"),
            DIGEST,
            subject=pointer,
            artifactType=kind,
            annotations={"kind": kind},
        )  # fmt: skip
        answer = await service.ask("PUT", f"{MANIFEST}{Digest.of(body)}", body)
        assert answer.headers["oci-subject"] == str(subject)
        found[kind] = {
            "mediaType": OCI_MANIFEST,
            "digest": str(Digest.of(body)),
            "size": len(body),
            "artifactType": kind,
            "annotations": {"kind": kind},
        }
    every = await service.ask("GET", path)
    assert json.loads(every.body)["manifests"] == list(found.values())
    assert "oci-filters-applied" not in every.headers
    some = await service.ask("GET", path + "?artifactType=x/two")
    assert json.loads(some.body)["manifests"] == [found["x/two"]]
    assert some.headers["oci-filters-applied"] == "artifactType"
    nowhere = await service.ask("GET", f"/v2/nobody/x/referrers/{ZERO}")
    assert (nowhere.status, json.loads(nowhere.body)["manifests"]) == (200, [])


async def test_a_long_list_of_referrers_comes_in_pages(service: Service) -> None:
    _, subject = await service.push_manifest()
    pointer = {"mediaType": OCI_MANIFEST, "digest": str(subject), "size": 1}
    put = []
    for number in range(3):
        body = image(
            Digest.of(b"{}"), DIGEST, subject=pointer, annotations={"n": f"{number}" * 1_500_000}
        )  # fmt: skip
        put.append(str(Digest.of(body)))
        assert (await service.ask("PUT", f"{MANIFEST}{put[-1]}", body)).status == 201
    seen, path = [], f"/v2/team/Llama/referrers/{subject}"
    while path:
        answer = await service.ask("GET", path)
        assert len(answer.body) <= 4 << 20
        seen += [item["digest"] for item in json.loads(answer.body)["manifests"]]
        path = answer.headers.get("link", "").partition(">")[0].removeprefix("<")
    assert sorted(seen) == sorted(put)


async def test_names_of_other_kinds_are_taken(service: Service) -> None:
    for name in ("m", "hf.co/ns/m", "a/b/c/d", "x/blobs", "__x/y-", "A.b_C/d"):
        digest = await service.push(DATA, name)
        assert (await service.ask("HEAD", f"/v2/{name.upper()}/blobs/{digest}")).status == 200
