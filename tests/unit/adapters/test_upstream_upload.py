"""Sending blobs to other registries, against a scripted registry on loopback."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from registry.adapters import upstream_upload
from registry.adapters.upstream_http import HttpUpstreams, Repository
from registry.core.errors import UpstreamFailed, UpstreamUnknown
from registry.core.names import ModelName
from registry.core.parts import split
from registry.ports.upstream import RemoteManifest
from registry.settings import Settings
from tests.support.upstream import Blob, Reply, ScriptedRegistry, digest_of

pytestmark = pytest.mark.anyio

DATA = bytes(range(256)) * 40


@pytest.fixture
async def registry() -> AsyncIterator[ScriptedRegistry]:
    async with ScriptedRegistry().running() as found:
        yield found


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three parts of 4096 bytes in place of 100 MB ones."""
    monkeypatch.setattr(upstream_upload, "upload_parts", lambda size: split(size, 4096))


@asynccontextmanager
async def opened(registry: ScriptedRegistry, tmp_path: Path) -> AsyncIterator[Repository]:
    upstream = {"retries": 1, "stall_s": 0.5, "connect_s": 2}
    upstreams = HttpUpstreams(Settings.load({}, data=tmp_path, upstream=upstream))
    try:
        yield upstreams.open(ModelName.parse(f"{registry.host}/a/b:v1"), insecure=True)
    finally:
        await upstreams.close()


async def test_a_blob_goes_as_post_patch_put(registry: ScriptedRegistry, tmp_path: Path) -> None:
    async with opened(registry, tmp_path) as repository:
        await repository.upload(Blob(DATA))
    assert registry.blobs == {str(digest_of(DATA)): DATA}
    post, patch, put = registry.log
    assert (post.line, post.query) == ("POST /v2/a/b/blobs/uploads/", [])
    assert post.headers["content-length"] == "0"
    assert patch.headers["content-range"] == f"0-{len(DATA) - 1}"
    assert patch.headers["x-redirect-uploads"] == "1"
    assert patch.headers["content-type"] == "application/octet-stream"
    md5 = hashlib.md5(hashlib.md5(DATA).digest()).hexdigest()
    expected = [("digest", str(digest_of(DATA))), ("etag", f"{md5}-1"), ("state", "t")]
    assert put.query == expected
    assert put.body == b""


async def test_an_empty_blob_has_no_part(registry: ScriptedRegistry, tmp_path: Path) -> None:
    async with opened(registry, tmp_path) as repository:
        await repository.upload(Blob(b""))
    assert [r.method for r in registry.log] == ["POST", "PUT"]
    assert dict(registry.log[1].query)["etag"] == "d41d8cd98f00b204e9800998ecf8427e-0"


@pytest.mark.usefixtures("small_parts")
async def test_parts_go_in_order_each_to_the_location_named_last(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.relative_uploads = True
    async with opened(registry, tmp_path) as repository:
        await repository.upload(Blob(DATA))
    ranges = [r.headers["content-range"] for r in registry.log if r.method == "PATCH"]
    assert ranges == ["0-4095", "4096-8191", "8192-10239"]
    assert [dict(r.query)["state"] for r in registry.log[1:]] == ["s", "t", "t", "t"]


async def test_a_mounted_blob_is_not_sent(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.say("POST", "/uploads/", Reply(201))
    async with opened(registry, tmp_path) as repository:
        await repository.upload(Blob(DATA, origin="library/tiny"))
    assert len(registry.log) == 1
    assert registry.log[0].query == [("from", "library/tiny"), ("mount", str(digest_of(DATA)))]


@pytest.mark.parametrize("status", [400, 403, 404, 405])
async def test_a_registry_that_refuses_to_mount_gets_the_bytes(
    registry: ScriptedRegistry, tmp_path: Path, status: int
) -> None:
    registry.say("POST", "/uploads/", Reply(status))
    async with opened(registry, tmp_path) as repository:
        await repository.upload(Blob(DATA, origin="library/tiny"))
    assert str(digest_of(DATA)) in registry.blobs


@pytest.mark.usefixtures("small_parts")
async def test_a_redirected_part_goes_there_by_put_without_the_token(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.token = "secret"
    async with opened(registry, tmp_path) as repository:
        for start in (0, 4096, 8192):
            there = {
                "Location": f"http://localhost:{registry.port}/direct/{start}",
                "Docker-Upload-Location": f"/v2/a/b/blobs/uploads/1?state={start}",
            }
            registry.say("PATCH", "/uploads/", Reply(307, there))
            registry.say("PUT", f"/direct/{start}", Reply(200))
        registry.say("PUT", "/uploads/1", Reply(201))
        await repository.size(digest_of(DATA))
        await repository.upload(Blob(DATA))
    puts = [r for r in registry.log if r.path.startswith("/direct/")]
    assert b"".join(r.body for r in sorted(puts, key=lambda r: int(r.path[8:]))) == DATA
    assert not any("authorization" in r.headers for r in puts)
    assert registry.log[-1].headers["authorization"] == "Bearer secret"
    assert dict(registry.log[-1].query)["state"] == "8192"


async def test_an_interrupted_part_is_sent_again(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.say("PATCH", "/uploads/", Reply(503, {"Retry-After": "0"}))
    blob = Blob(DATA)
    async with opened(registry, tmp_path) as repository:
        await repository.upload(blob)
    assert blob.asked == [(0, len(DATA))] * 2
    assert registry.blobs


async def test_a_token_that_ended_is_renewed(registry: ScriptedRegistry, tmp_path: Path) -> None:
    async with opened(registry, tmp_path) as repository:
        challenge = f'Bearer realm="http://{registry.host}/token"'
        registry.say("PATCH", "/uploads/", Reply(401, {"WWW-Authenticate": challenge}))
        registry.say("GET", "/token", Reply(200, body=b'{"token":"fresh"}'))
        await repository.upload(Blob(DATA))
    assert registry.log[-1].headers["authorization"] == "Bearer fresh"


@pytest.mark.parametrize("status", [404, 416])
async def test_a_lost_session_is_begun_anew(
    registry: ScriptedRegistry, tmp_path: Path, status: int
) -> None:
    registry.say("PATCH", "/uploads/", Reply(status))
    async with opened(registry, tmp_path) as repository:
        await repository.upload(Blob(DATA))
    assert [r.method for r in registry.log] == ["POST", "PATCH", "POST", "PATCH", "PUT"]


async def test_a_session_lost_again_and_again_is_given_up(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.say("PATCH", "/uploads/", *[Reply(404)] * 9)
    async with opened(registry, tmp_path) as repository:
        with pytest.raises(UpstreamFailed, match="max retries exceeded: the upload was lost"):
            await repository.upload(Blob(DATA))
    assert len(registry.lines("POST")) == 3


@pytest.mark.parametrize(
    ("method", "reply", "text"),
    [
        ("POST", Reply(400, body=b"no"), "400: no"),
        ("POST", Reply(202), "http: no Location header in response"),
        ("PATCH", Reply(413, body=b"too large"), "413: too large"),
        ("PATCH", Reply(500), "max retries exceeded: 500: "),
        ("PUT", Reply(400, body=b"DIGEST"), "400: DIGEST"),
    ],
)
async def test_refusals_are_passed_on(
    registry: ScriptedRegistry, tmp_path: Path, method: str, reply: Reply, text: str
) -> None:
    registry.say(method, "/uploads/", reply, reply)
    async with opened(registry, tmp_path) as repository:
        with pytest.raises(UpstreamFailed) as caught:
            await repository.upload(Blob(DATA))
    assert str(caught.value) == text


async def test_an_unknown_repository_is_a_missing_file(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.say("POST", "/uploads/", Reply(404))
    async with opened(registry, tmp_path) as repository:
        with pytest.raises(UpstreamUnknown, match="file does not exist"):
            await repository.upload(Blob(DATA))


async def test_the_manifest_is_put_with_its_type(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    async with opened(registry, tmp_path) as repository:
        await repository.put_manifest("v1", RemoteManifest(b"{}", "application/x-test"))
    assert registry.log[0].line == "PUT /v2/a/b/manifests/v1"
    assert registry.log[0].headers["content-type"] == "application/x-test"
    assert registry.manifests == {"a/b:v1": b"{}"}
