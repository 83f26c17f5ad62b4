"""OCI clients with authentication on: skopeo, the Python client of oras, curl.

They are programs of others: `skopeo` and `curl` are looked for in PATH, and a Python that has the
package `oras` is named by ORAS_PYTHON. Where one is missing, it is skipped.
"""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.app import build
from registry.core.access import Right, Visibility
from registry.core.digest import Digest
from registry.services.access.accounts import Accounts
from registry.services.access.keys import ApiKeyWish
from tests.integration.test_sign_in import PASSWORD, Place, make_image
from tests.support.backends import BACKENDS
from tests.support.secured import model
from tests.support.server import running

SKOPEO, CURL = shutil.which("skopeo"), shutil.which("curl")
ORAS_PYTHON = os.environ.get("ORAS_PYTHON", sys.executable)
CONFIG, WEIGHTS = b'{"model_format":"gguf","model_family":"llama"}', b"weights" * 1000
KIND = "application/vnd.oci.image.manifest.v1+json"
"""In the other type, docker's, skopeo refuses layers whose media types it does not know."""

ORAS = """
import hashlib, json, pathlib, sys
import oras.client, oras.oci
address, backend, name, password, folder = sys.argv[1:]
folder = pathlib.Path(folder)
(folder / "data.txt").write_bytes(b"an artifact" * 1000)
(folder / "sbom.json").write_bytes(b"{}")
client = oras.client.OrasClient(hostname=address, insecure=True, auth_backend=backend)
client.login(username=name, password=password, hostname=address)
target = f"{address}/team/artifact-{backend}:1"
say = dict(disable_path_validation=True, quiet=True)
client.push(target, files=[str(folder / "data.txt")], **say)
client.push(target, files=[str(folder / "data.txt")], do_chunked=True, chunk_size=4000, **say)
container = client.get_container(target)
answer = client.do_request(
    client.prefix + "://" + container.manifest_url(), "GET",
    headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
)
subject = oras.oci.Subject(
    answer.headers["Content-Type"],
    "sha256:" + hashlib.sha256(answer.content).hexdigest(), len(answer.content),
)
client.push(
    target.replace(":1", ":sbom"), files=[str(folder / "sbom.json")], subject=subject,
    manifest_annotations={"kind": "sbom"}, **say,
)
(folder / "back").mkdir()
(back,) = client.pull(target=target, outdir=str(folder / "back"))
assert pathlib.Path(back).read_bytes() == (folder / "data.txt").read_bytes()
print(json.dumps({"subject": subject.digest, "tags": sorted(client.get_tags(target))}))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server with a private and a public model of one kind each, and people."""
    with running(tmp_path_factory.mktemp("server") / "data", REGISTRY_AUTH="true") as server:
        made = Place(server)

        async def people(accounts: Accounts) -> None:
            for name in ("alice", "bob"):
                await accounts.create_user(name, PASSWORD)
            await accounts.grant("user:alice", "team/*", Right.ALL)
            await accounts.set_policy("team/public*", Visibility.PUBLIC)

        made.accounts(people)
        for name in ("team/model", "team/public"):
            push_model(made, name)
        yield made


def request(place: Place, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    basic = base64.b64encode(f"alice:{PASSWORD}".encode()).decode()
    given = {name.replace("_", "-"): text for name, text in headers.items()}
    asked = urllib.request.Request(
        place.server.url + path, body or None, {"Authorization": f"Basic {basic}", **given},
        method=method,
    )  # fmt: skip
    with urllib.request.urlopen(asked, timeout=30) as answer:
        content: bytes = answer.read()
        return content


def push_model(place: Place, name: str) -> None:
    for data in (CONFIG, WEIGHTS):
        path = f"/v2/{name}/blobs/uploads/?digest={Digest.of(data)}"
        request(place, "POST", path, data, Content_Type="application/octet-stream")
    request(place, "PUT", f"/v2/{name}/manifests/1", manifest(), Content_Type=KIND)


def manifest() -> bytes:
    """That of a model, as an OCI manifest."""
    return json.dumps({**json.loads(model(CONFIG, WEIGHTS)), "mediaType": KIND}).encode()


def run(*words: str, timeout_s: float = 60, **environ: str) -> tuple[int, str]:
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=timeout_s, env=os.environ | environ
    )
    return done.returncode, done.stdout + done.stderr


def api_key(place: Place) -> str:
    async def make(accounts: Accounts) -> str:
        alice = await accounts.named("alice")
        return (await accounts.create_api_key(alice.id, ApiKeyWish("ci"))).text

    return place.accounts(make)


@pytest.mark.skipif(not SKOPEO, reason="no skopeo here")
def test_skopeo_copies_images_and_models_in_and_out(place: Place, tmp_path: Path) -> None:
    assert SKOPEO is not None
    address, auth = place.server.address, str(tmp_path / "auth.json")
    plain = ("--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests")

    def copy(source: str, target: str, *more: str) -> tuple[int, str]:
        return run(SKOPEO or "", "copy", *plain, *more, source, target, REGISTRY_AUTH_FILE=auth)

    def ours(name: str) -> str:
        return f"docker://{address}/{name}"

    image = tmp_path / "image"
    make_image(image)
    # without a login: what is public can be copied, what is private neither read nor written
    code, said = copy(ours("team/public:1"), f"dir:{tmp_path / 'anonymous'}")
    assert code == 0, said
    kept = (tmp_path / "anonymous" / "manifest.json").read_bytes()
    assert kept == manifest()
    assert (tmp_path / "anonymous" / Digest.of(WEIGHTS).hex).read_bytes() == WEIGHTS
    assert copy(ours("team/model:1"), f"dir:{tmp_path / 'none'}")[0] != 0
    assert copy(f"dir:{image}", ours("team/public:2"))[0] != 0
    # with one
    login = ("login", "--tls-verify=false", "-u", "alice", "--password-stdin", address)
    done = subprocess.run(
        [SKOPEO, *login], input=PASSWORD, text=True, capture_output=True, timeout=60,
        env=os.environ | {"REGISTRY_AUTH_FILE": auth},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for source, target in (
        (f"dir:{image}", ours("team/image:1")),
        (ours("team/image:1"), f"dir:{tmp_path / 'image2'}"),
        (ours("team/model:1"), f"dir:{tmp_path / 'model'}"),
        (f"dir:{tmp_path / 'model'}", ours("team/second:1")),
        (ours("team/model:1"), ours("team/third:1")),  # mounts
        (ours("team/image:1"), f"oci:{tmp_path / 'layout'}:1"),
        (f"oci:{tmp_path / 'layout'}:1", ours("team/layout:1")),
    ):
        code, said = copy(source, target)
        assert (source, target, code) == (source, target, 0), said
    for name in ("second", "third"):
        assert request(place, "GET", f"/v2/team/{name}/manifests/1") == manifest()
    assert (tmp_path / "image2" / "manifest.json").read_bytes() == (
        image / "manifest.json"
    ).read_bytes()
    code, said = run(SKOPEO, "delete", "--tls-verify=false", ours("team/third:1"),
                     REGISTRY_AUTH_FILE=auth)  # fmt: skip
    assert code == 0, said
    code, said = copy(f"dir:{image}", ours("bob/image:1"))  # somebody else's namespace
    assert code != 0
    assert "403" in said, said


@pytest.mark.parametrize("backend", ["token", "basic"])
def test_oras_pushes_an_artifact_and_what_refers_to_it(
    place: Place, tmp_path: Path, backend: str
) -> None:
    if run(ORAS_PYTHON, "-c", "import oras")[0]:
        pytest.skip("no Python with the package oras: name one by ORAS_PYTHON")
    script = (ORAS_PYTHON, "-W", "ignore", "-c", ORAS, place.server.address, backend)
    home = str(tmp_path / "home")
    (tmp_path / "home").mkdir()
    if backend == "basic":  # with tokens it tries again and again
        code, said = run(
            *script, "alice", "wrong password", str(tmp_path), HOME=home, DOCKER_CONFIG=home
        )
        assert code != 0, said
    code, said = run(*script, "alice", api_key(place), str(tmp_path), HOME=home, DOCKER_CONFIG=home)
    assert code == 0, said
    told = json.loads(said.strip().splitlines()[-1])
    assert told["tags"] == ["1", "sbom"]
    listed = request(place, "GET", f"/v2/team/artifact-{backend}/referrers/{told['subject']}")
    (referrer,) = json.loads(listed)["manifests"]
    assert referrer["annotations"] == {"kind": "sbom"}


@pytest.mark.skipif(not CURL, reason="no curl here")
def test_curl_comes_with_a_name_and_a_password_or_an_api_key(place: Place) -> None:
    assert CURL is not None

    def status(path: str, *more: str) -> str:
        words = ("-s", "-o", os.devnull, "-w", "%{http_code}", *more, place.server.url + path)
        return run(CURL or "", *words)[1]

    key = api_key(place)
    private, blob = "/v2/team/model/manifests/1", f"/v2/team/model/blobs/{Digest.of(WEIGHTS)}"
    for path in (private, blob, "/v2/", "/api/tags"):
        for credentials in (f"alice:{PASSWORD}", f"alice:{key}", f"anything:{key}"):
            assert (path, status(path, "-u", credentials)) == (path, "200")
        assert (path, status(path, "-u", "alice:wrong")) == (path, "401")
    assert status(private) == status("/v2/") == "401"
    assert status(private, "-u", f"bob:{PASSWORD}") == "403"
    assert status("/v2/team/public/manifests/1") == status("/api/tags") == "200"
    assert status(private, "-H", f"Authorization: Bearer {key}") == "200"


def test_the_handshake_of_docker_login(place: Place) -> None:
    """As docker does it: the ping, its challenge, a token by Basic, the ping with the token."""
    asked = urllib.request.Request(place.server.url + "/v2/")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asked, timeout=30)
    caught.value.close()
    challenges = caught.value.headers.get_all("WWW-Authenticate") or []
    realm = challenges[0].partition('realm="')[2].partition('"')[0]
    service = challenges[0].partition('service="')[2].partition('"')[0]
    path = realm.removeprefix(place.server.url)
    query = f"?account=alice&client_id=docker&offline_token=true&service={service}"
    told = json.loads(request(place, "GET", path + query))
    assert "refresh_token" not in told  # docker then keeps name and password
    bearer = f"Bearer {told['token']}"
    assert request(place, "GET", "/v2/", Authorization=bearer) == b"{}"


def test_what_was_done_is_in_the_audit(place: Place) -> None:
    async def look() -> set[tuple[str, str]]:
        services = build(BACKENDS.settings(place.server.data, auth=True))
        try:
            found = await services.audit.entries(limit=500)
            return {(one.who, one.action) for one in found}
        finally:
            await services.accounts.close()
            await services.audit.close()
            await services.catalog.close()

    assert {("alice", "put manifest"), ("alice", "begin blob")} <= asyncio.run(look())
