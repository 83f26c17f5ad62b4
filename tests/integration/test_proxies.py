"""The recipes of `deploy/` as they stand, run with a private authority; and TLS in process.

Each way is pushed to and pulled from by a plain client, by skopeo and by a real ollama, if they are
installed (`OLLAMA` names the binary, else it is looked for in PATH). `PROXY_TEST_MIB` is the size
of the layer.
"""

import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from registry.web.files import PROBE_S
from tests.support.backends import BACKENDS
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.proxies import Front, program, proxied, wait_for
from tests.support.server import Server, running
from tests.support.stock_clients import (
    OLLAMA,
    SKOPEO,
    digest_of,
    ollama_round_trip,
    push_blob,
    skopeo_round_trip,
    some_bytes,
)

SENT_BY_NGINX = pytest.mark.folder("nginx sends the store's files by itself")
WAYS = ["direct", "nginx", pytest.param("nginx-files", marks=SENT_BY_NGINX), "caddy"]


@dataclass
class Place:
    """A service behind a way in. Its names are `localhost` and, for direct URLs, `127.0.0.1`."""

    way: str
    folder: Path
    authority: Authority
    server: Server
    port: int

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def blobs_url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, verify=self.authority.trust(), timeout=60)

    def logs(self, line: re.Pattern[str]) -> bool:
        """Whether the service writes such a line within a few seconds."""
        deadline = time.monotonic() + 5
        while not line.search(self.server.log.read_text()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


@pytest.fixture(scope="module", params=WAYS)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    way = str(request.param)
    folder = tmp_path_factory.mktemp(way)
    authority = Authority(folder)
    pair = authority.issue("localhost", "127.0.0.1")
    port = free_port()
    environ = {
        "REGISTRY_EXTERNAL_URL": f"https://localhost:{port}",
        "REGISTRY_BLOB_BASE_URL": f"https://127.0.0.1:{port}",
    }
    if way == "direct":
        environ |= {
            "REGISTRY_TLS_CERT": str(pair.certificate),
            "REGISTRY_TLS_KEY": str(pair.key),
            "SSL_CERT_FILE": str(authority.file),
        }
        with running_tls(folder / "data", port, environ) as server:
            yield Place(way, folder, authority, server, port)
        return
    proxy = way.partition("-")[0]
    if program(proxy) is None:
        pytest.skip(f"{proxy} is not installed: its recipe was not run")
    environ["REGISTRY_TRUSTED_PROXIES"] = "127.0.0.1"
    if proxy != way:
        environ["REGISTRY_ACCEL_REDIRECT"] = "/.blobs"
    with running(folder / "data", **environ) as server:
        front = Front(port, [server.port], server.data, pair)
        with proxied(proxy, folder, front):
            yield Place(way, folder, authority, server, port)


@contextmanager
def running_tls(data: Path, port: int, environ: dict[str, str]) -> Iterator[Server]:
    data.mkdir(parents=True)
    log = data.with_suffix(".log")
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "registry", "serve"]
            + ["--port", str(port), "--data", str(data)],
            stdout=output,
            stderr=output,
            env={**os.environ, **BACKENDS.environ(data), **environ},
        )
    server = Server(process, port, data, log)
    try:
        wait_for(port, log)
        yield server
    finally:
        server.stop()


def test_bytes_go_in_and_out_whole_and_by_range(place: Place) -> None:
    data = some_bytes(1)
    path = f"/v2/team/plain/blobs/{digest_of(data)}"
    with place.client() as client:
        push_blob(client, "team/plain", data)
        answer = client.get(path)
        assert (answer.status_code, answer.content == data) == (200, True)
        direct = answer.headers["location"]
        assert direct.startswith(f"{place.blobs_url}{path}?exp=")
        assert answer.headers["docker-content-digest"] == digest_of(data)
        part = client.get(direct, headers={"Range": "bytes=1000-2999"})
        assert (part.status_code, part.content) == (206, data[1000:3000])
        assert ("last-modified" in part.headers) == ("files" in place.way), "who sent it"
        tag = f'"{digest_of(data)}"'
        assert {answer.headers["etag"], part.headers["etag"]} == {tag}
        assert client.get(path, headers={"If-None-Match": tag}).status_code == 304
        behind = client.get(path, headers={"Range": f"bytes={len(data)}-"})
        assert behind.status_code == 416
        several = client.get(path, headers={"Range": "bytes=0-1,5-6"})
        assert (several.status_code, several.content == data) == (200, True)
        assert client.get(f"/.blobs/{digest_of(data).replace(':', '-')}").status_code == 404
        assert client.head(path).headers["content-length"] == str(len(data))


def test_a_probe_has_its_headers_before_the_bytes(place: Place) -> None:
    """The ollama client drops the connection then; what comes behind is wasted."""
    data = some_bytes(2, 8 << 20)
    path = f"/v2/team/probe/blobs/{digest_of(data)}"
    classic = {"User-Agent": "ollama/0.33.0 (amd64 linux) Go/go1.26"}
    with place.client() as client:
        push_blob(client, "team/probe", data)
        sent = client.get(path, headers=classic)
        assert (sent.status_code, sent.content) == (307, b"")
        direct = sent.headers["location"].replace("127.0.0.1", "localhost")
        took = []
        for _ in range(5):
            began = time.monotonic()
            with client.stream("GET", direct, headers=classic) as answer:
                assert answer.status_code == 200
                took.append(time.monotonic() - began)
        assert min(took) < PROBE_S


def test_the_service_learns_that_a_client_has_left(place: Place) -> None:
    """Else a cancelled pull would go on."""
    with place.client() as client, socket.create_server(("127.0.0.1", 0)) as silent:
        model = f"127.0.0.1:{silent.getsockname()[1]}/team/x"
        ask = {"model": model, "insecure": True}
        with client.stream("POST", "/api/pull", json=ask) as answer:
            assert next(answer.iter_lines()) == '{"status":"pulling manifest"}'
        assert place.logs(re.compile("path=/api/pull "))


def test_a_large_body_that_nobody_wants_gets_its_answer(place: Place) -> None:
    session = "00000000-0000-4000-8000-000000000000"
    with place.client() as client:
        answer = client.patch(
            f"/v2/team/x/blobs/uploads/{session}", content=some_bytes(3, 16 << 20)
        )
        assert answer.status_code == 404
        assert answer.json()["errors"][0]["code"] == "BLOB_UPLOAD_UNKNOWN"


def test_lies_about_the_client_and_the_host_are_not_believed(place: Place) -> None:
    lies = {
        "X-Forwarded-For": "198.51.100.77",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=198.51.100.77;proto=http;host=evil.example",
    }
    with place.client() as client:
        begun = client.post("/v2/team/lies/blobs/uploads/", headers=lies)
        assert begun.headers["location"].startswith(f"{place.url}/v2/team/lies/")
    assert place.logs(re.compile(r"path=/v2/team/lies/blobs/uploads/ .*client=127\.0\.0\.1 "))
    assert "198.51.100.77" not in place.server.log.read_text()


@pytest.mark.parametrize("path", ["/", "/api/tags", "/v2/", "/v2/_catalog", "/healthz"])
def test_the_second_name_answers_nothing_but_direct_urls(place: Place, path: str) -> None:
    with place.client() as client:
        assert client.get(path).status_code == 200
        assert client.get(place.blobs_url + path).status_code == 404


def test_encoded_slashes_and_dots_reach_the_service_as_they_are(place: Place) -> None:
    context = place.authority.trust()
    for path in ("/v2/team%2Fx/tags/list", "/v2/team/../x/tags/list", "/v2//x/tags/list"):
        with (
            socket.create_connection(("127.0.0.1", place.port), timeout=20) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as sock,
        ):
            host = f"localhost:{place.port}"
            sock.sendall(
                f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
            )
            status = int(sock.recv(4096).split()[1])
        assert 400 <= status < 500, path


def test_old_tls_is_not_spoken(place: Place) -> None:
    context = place.authority.trust()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", place.port), timeout=20) as raw,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(raw, server_hostname="localhost")


# ---- other people's clients


def test_skopeo_copies_in_and_out(place: Place) -> None:
    if SKOPEO is None:
        pytest.skip("skopeo is not installed")
    skopeo_round_trip(place.folder, place.port, place.authority, some_bytes(4))


def test_ollama_pushes_and_pulls(place: Place) -> None:
    if OLLAMA is None:
        pytest.skip("ollama is not installed")
    ollama_round_trip(place.folder, place.port, place.authority, some_bytes(5))
