"""Two replicas on one Postgres and one folder: behind the proxies of `deploy/`, killed, racing.

Each replica knows the folder by a path of its own, so that they have logs of their own.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import ollama
import pytest

from tests.integration.test_clients import GGUF, MODULES, SCRIPT
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer
from tests.support.proxies import PROXIES, Front, program, proxied
from tests.support.server import Server, running, start
from tests.support.stock_clients import (
    OCI,
    OLLAMA,
    SKOPEO,
    digest_of,
    model_of,
    ollama_round_trip,
    push_blob,
    skopeo_round_trip,
    some_bytes,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
RACES = 25


@dataclass
class Place:
    """Both replicas, and the way in to them if there is one."""

    folder: Path
    url: str
    environ: dict[str, str]
    replicas: list[Server]
    authority: Authority
    port: int = 0

    def client(self) -> httpx2.Client:
        base = f"https://localhost:{self.port}"
        return httpx2.Client(base_url=base, verify=self.authority.trust(), timeout=60)

    def again(self, number: int) -> None:
        """Start a replica anew on its port."""
        old = self.replicas[number]
        self.replicas[number] = start(old.data, old.port, **self.environ)


@contextmanager
def two(folder: Path, postgres: PostgresServer, **environ: str) -> Iterator[Place]:
    shared = folder / "shared"
    shared.mkdir()
    with postgres.database() as url:
        environ |= {"REGISTRY_DATABASE_URL": url, "REGISTRY_WORKER__LOCAL": "off"}
        place = Place(folder, url, environ, [], Authority(folder))
        try:
            for name in ("one", "other"):
                (folder / name).symlink_to(shared)
                place.replicas.append(start(folder / name, None, **environ))
            yield place
        finally:
            for server in place.replicas:
                server.stop()


@pytest.fixture(params=PROXIES)
def place(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer
) -> Iterator[Place]:
    name = str(request.param)
    if program(name) is None:
        pytest.skip(f"{name} is not installed: its recipe was not run")
    port = free_port()
    environ = {
        "REGISTRY_EXTERNAL_URL": f"https://localhost:{port}",
        "REGISTRY_TRUSTED_PROXIES": "127.0.0.1",
    }
    with ExitStack() as stack:
        place = stack.enter_context(two(tmp_path, postgres, **environ))
        pair = place.authority.issue("localhost", "127.0.0.1")
        inside = [server.port for server in place.replicas]
        stack.enter_context(proxied(name, tmp_path, Front(port, inside, tmp_path / "one", pair)))
        place.port = port
        yield place


@pytest.fixture
def pair(tmp_path: Path, postgres: PostgresServer) -> Iterator[Place]:
    with two(tmp_path, postgres) as place:
        yield place


def test_stock_clients_push_and_pull_through_both(place: Place) -> None:
    data = some_bytes(1)
    with place.client() as client:
        push_blob(client, "team/plain", data)
        for _ in range(4):
            assert client.get(f"/v2/team/plain/blobs/{digest_of(data)}").content == data
    if SKOPEO:
        skopeo_round_trip(place.folder, place.port, place.authority, some_bytes(2))
    if OLLAMA:
        ollama_round_trip(place.folder, place.port, place.authority, some_bytes(3))
    for server in place.replicas:
        assert server.log.read_text().count("/blobs/") > 3, "both had a share of it"


def test_what_one_replica_wrote_the_other_reads_at_once(place: Place) -> None:
    """The Python client; the proxy gives each call to the next replica."""
    host = f"https://localhost:{place.port}"
    with ollama.Client(host=host, verify=place.authority.trust()) as client:
        for turn in range(12):
            name, child = f"py/tiny{turn}", f"py/child{turn}"
            digest = client.create_blob(GGUF)
            made = client.create(name, files={"t.gguf": digest}, stream=True)
            assert [step.status for step in made][-1] == "success"
            client.create(child, from_=name, system=f"You are {turn}.")
            shown = client.show(child)
            assert shown.modelinfo is not None
            assert shown.modelfile is not None
            assert f"You are {turn}." in shown.modelfile
            client.copy(child, f"{child}:v2")
            listed = {model.model for model in client.list().models}
            assert listed == {f"{name}:latest", f"{child}:latest", f"{child}:v2"}
            for each in (name, child, f"{child}:v2"):
                client.delete(each)
                with pytest.raises(ollama.ResponseError, match="not found"):
                    client.show(each)


def test_the_javascript_client_does_every_management_call(place: Place) -> None:
    node = shutil.which("node")
    if node is None or not (MODULES / "node_modules").is_dir():
        pytest.skip("the JavaScript client is not here: test_clients.py installs it")
    with running(place.folder / "second") as second:
        environ = {
            "SERVER": f"https://localhost:{place.port}",
            "REGISTRY": second.address,
            "GGUF": str(GGUF),
            "NODE_PATH": str(MODULES / "node_modules"),
            "NODE_EXTRA_CA_CERTS": str(place.authority.file),
        }
        done = subprocess.run(
            [node, str(SCRIPT)],
            env=os.environ | environ,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_replica_that_is_killed_costs_a_request_and_no_byte(place: Place) -> None:
    """Clients ask where the upload stands and go on; the proxy passes over who is not there."""
    data, name = some_bytes(4), "team/killed"
    step = 1 << 20
    with place.client() as client:
        location = client.post(f"/v2/{name}/blobs/uploads/").headers["location"]
        offset, failures = 0, 0
        for turn in range(10 * len(data) // step):
            if offset == len(data):
                break
            if turn in {8, 20}:
                killer = threading.Timer(0.01, place.replicas[turn // 20].kill)
                killer.start()
            if turn in {14, 26}:
                place.again(turn // 20)
            try:
                span = {"Content-Range": f"{offset}-{min(offset + step, len(data)) - 1}"}
                sent = client.patch(location, content=data[offset : offset + step], headers=span)
                good = sent.status_code == 202
            except httpx2.HTTPError:
                good = False
            if good:
                offset, location = min(offset + step, len(data)), sent.headers["location"]
                continue
            failures += 1
            time.sleep(0.5)
            found = client.get(location)
            if found.status_code == 204:
                offset = int(found.headers["range"].partition("-")[2]) + 1
        done = client.put(location, params={"digest": digest_of(data)})
        assert done.status_code == 201, done.text
        assert failures < 8
        assert client.get(f"/v2/{name}/blobs/{digest_of(data)}").content == data


def test_what_two_replicas_received_at_once_is_never_mixed(pair: Place) -> None:
    """Different bytes for one place of one upload: whoever is told 202 has his in the blob."""
    dice = random.Random(5)
    clients = [httpx2.Client(base_url=server.url, timeout=90) for server in pair.replicas]
    with ThreadPoolExecutor(2) as threads:
        for race in range(RACES):
            begun = clients[race % 2].post("/v2/team/race/blobs/uploads/")
            path = httpx2.URL(begun.headers["location"]).raw_path.decode()
            truth = dice.randbytes(dice.choice([0, 1000, 3 << 20]))
            if truth:
                path = patched(clients[0], path, truth, 0)[1] or path
            for _ in range(2):
                chunks = [dice.randbytes(dice.choice([70_000, 2 << 20])) for _ in clients]
                start = len(truth)
                jobs = [
                    threads.submit(patched, client, path, chunk, start)
                    for client, chunk in zip(clients, chunks, strict=True)
                ]
                answers = [job.result()[0] for job in jobs]
                assert answers.count(202) == 1, answers
                truth += chunks[answers.index(202)]
                wrong = truth[:start] + chunks[1 - answers.index(202)]
            lie = clients[race % 2].put(path, params={"digest": digest_of(wrong)})
            assert lie.status_code in {400, 404}, lie.text
            assert clients[0].get(f"/v2/team/race/blobs/{digest_of(wrong)}").status_code == 404
    for client in clients:
        client.close()


def patched(client: httpx2.Client, path: str, chunk: bytes, start: int) -> tuple[int, str]:
    span = {"Content-Range": f"{start}-{start + len(chunk) - 1}"}
    answer = client.patch(path, content=chunk, headers=span)
    location = answer.headers.get("location", "")
    return answer.status_code, httpx2.URL(location).raw_path.decode() if location else ""


def test_a_database_that_restarts_costs_time_and_nothing_acknowledged(
    pair: Place, postgres: PostgresServer
) -> None:
    """Requests wait, or are told to come again; afterwards all is as it was said to be."""
    acknowledged: dict[str, bytes] = {}
    refused: list[int] = []
    over = threading.Event()

    def push(number: int) -> None:
        with httpx2.Client(base_url=pair.replicas[number % 2].url, timeout=90) as client:
            for turn in range(10_000):
                if over.is_set():
                    return
                name, data = f"team/m{number}-{turn}", f"{number} {turn}".encode() * 50
                status = pushed(client, name, data)
                if status == 201:
                    acknowledged[name] = data
                else:
                    refused.append(status)
                    time.sleep(0.1)

    with ThreadPoolExecutor(4) as threads:
        jobs = [threads.submit(push, number) for number in range(4)]
        for _ in range(3):
            time.sleep(1)
            postgres.stop()
            time.sleep(1)
            postgres.start()
        time.sleep(2)
        before = len(acknowledged)
        time.sleep(2)
        over.set()
        for job in jobs:
            job.result()
    assert set(refused) <= {503}
    assert len(acknowledged) > before, "it goes on by itself"
    with httpx2.Client(base_url=pair.replicas[0].url, timeout=90) as client:
        for name, data in acknowledged.items():
            manifest = client.get(f"/v2/{name}/manifests/latest", headers={"Accept": OCI})
            assert manifest.status_code == 200, name
            layer = json.loads(manifest.content)["layers"][0]["digest"]
            assert client.get(f"/v2/{name}/blobs/{layer}").content == data


def pushed(client: httpx2.Client, name: str, layer: bytes) -> int:
    """Push a model in single requests; the first status that is no success, or 201."""
    config, manifest = model_of(layer, OCI)
    for data in (config, layer):
        path = f"/v2/{name}/blobs/uploads/"
        query = {"digest": f"sha256:{hashlib.sha256(data).hexdigest()}"}
        answer = client.post(path, params=query, content=data)
        if answer.status_code == 202:  # it came without a length
            raise AssertionError(answer.headers)
        if answer.status_code != 201:
            return answer.status_code
    headers = {"Content-Type": OCI}
    return client.put(f"/v2/{name}/manifests/latest", content=manifest, headers=headers).status_code
