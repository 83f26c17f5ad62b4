"""Pushers of common layers, deleters, collections without grace and scrubs, all at once.

Through two servers that share a library. While it goes on and at the end, everything that a tag
names is read and hashed: no tag may ever miss a byte. Ten minutes with `REGISTRY_RACE_S=600`; a few
seconds otherwise.
"""

import hashlib
import http.client
import json
import os
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.test_crashes import digest_of
from tests.support.postgres import PostgresServer
from tests.support.s3 import S3Server
from tests.support.server import Server, start

SECONDS = float(os.environ.get("REGISTRY_RACE_S", "8"))
PUSHERS = 6
LAYERS = [random.Random(seed).randbytes(seed * 3_000 + 1) for seed in range(24)]
TYPE = "application/vnd.oci.image.manifest.v1+json"
SETTINGS = {
    "REGISTRY_RETENTION__GRACE_S": "0",
    "REGISTRY_RETENTION__SWEEP_EVERY_S": "1",
    "REGISTRY_WORKER__LOCAL": "off",
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 120)]


class Client:
    """A kept connection to each of the servers, asked by chance."""

    def __init__(self, servers: list[Server], seed: int) -> None:
        self._connections = [
            http.client.HTTPConnection("127.0.0.1", server.port, timeout=60) for server in servers
        ]
        self.dice = random.Random(seed)

    def ask(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/json"
    ) -> tuple[int, bytes]:
        connection = self.dice.choice(self._connections)
        connection.request(method, path, body=body, headers={"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


class Race:
    """What all of them share: the end, what they counted, what went wrong."""

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers
        self.until = time.monotonic() + SECONDS
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.tags: dict[str, str] = {}  # acknowledged, by their owners only
        self._seed = iter(range(1_000))

    def goes_on(self) -> bool:
        return time.monotonic() < self.until and not self.wrong

    @contextmanager
    def client(self) -> Iterator[Client]:
        client = Client(self.servers, next(self._seed))
        try:
            yield client
        finally:
            client.close()

    def run(self) -> None:
        deeds: list[tuple[Callable[[int], None], int]] = [
            (self.push, number) for number in range(PUSHERS)
        ]
        deeds += [(self.check, 0), (self.check, 1), (self.collect, 0), (self.scrub, 0)]
        threads = [threading.Thread(target=self.do, args=deed) for deed in deeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def do(self, deed: Callable[[int], None], number: int) -> None:
        """A deed that breaks off ends the race, and says where."""
        try:
            deed(number)
        except Exception:  # the edge of a thread: whatever it is, it has to be seen
            self.wrong.append(traceback.format_exc())

    def push(self, number: int) -> None:
        """Push models into repositories of one's own, and delete some of them again."""
        with self.client() as client:
            while self.goes_on():
                tag = f"team/m{number}x{client.dice.randrange(3)}"
                if tag in self.tags and client.dice.random() < 0.5:
                    status, _ = client.ask("DELETE", f"/v2/{tag}/manifests/1")
                    self.expect("delete", status, {202})
                    del self.tags[tag]
                else:
                    self.push_model(client, tag)

    def push_model(self, client: Client, tag: str) -> None:
        layers = [self.upload(client, tag, layer) for layer in client.dice.sample(LAYERS, 3)]
        body = json.dumps(
            {"schemaVersion": 2, "mediaType": TYPE, "config": layers[0], "layers": layers[1:]}
        ).encode()
        status, text = client.ask("PUT", f"/v2/{tag}/manifests/1", body, TYPE)
        if status == 201:
            self.tags[tag] = digest_of(body)
            self.counts["push"] += 1
        elif b"BLOB_UNKNOWN" in text:  # collected before the manifest came: no grace
            self.counts["push again"] += 1
        else:
            self.wrong.append(f"push: {status} {text[:200]!r}")

    def upload(self, client: Client, tag: str, layer: bytes) -> Mapping[str, object]:
        digest = digest_of(layer)
        status, _ = client.ask("HEAD", f"/v2/{tag}/blobs/{digest}")
        self.expect("head", status, {200, 404})
        if status == 404:
            path = f"/v2/{tag}/blobs/uploads/?digest={digest}"
            status, _ = client.ask("POST", path, layer, "application/octet-stream")
            self.expect("upload", status, {201})
        kind = "application/vnd.oci.image.layer.v1.tar"
        return {"mediaType": kind, "digest": digest, "size": len(layer)}

    def expect(self, what: str, status: int, allowed: set[int]) -> None:
        self.counts[what] += 1
        if status not in allowed:
            self.wrong.append(f"{what}: {status}")

    def collect(self, _: int) -> None:
        """Collections without any grace, one after the other."""
        with self.client() as client:
            while self.goes_on():
                status, text = client.ask("POST", "/api/v1/gc", b'{"grace_s": 0, "untagged": true}')
                self.expect("gc", status, {200, 409})
                if b'"error"' in text:
                    self.wrong.append(f"gc: {text[-300:]!r}")
                time.sleep(0.05)

    def scrub(self, _: int) -> None:
        """Scrubs, which may find nothing."""
        with self.client() as client:
            while self.goes_on():
                status, text = client.ask("POST", "/api/v1/scrub", b"{}")
                self.expect("scrub", status, {200, 409})
                if b'"error"' in text:
                    self.wrong.append(f"scrub: {text[-300:]!r}")
                time.sleep(0.2)

    def check(self, _: int) -> None:
        """Read what tags name."""
        with self.client() as client:
            while self.goes_on():
                for tag in list(self.tags):
                    self.check_tag(client, tag, None)

    def check_tag(self, client: Client, tag: str, digest: str | None) -> None:
        """Everything is there, or the tag has moved meanwhile; with `digest`, it has not."""
        status, body = client.ask("GET", f"/v2/{tag}/manifests/1")
        if digest is not None and (status, digest_of(body)) != (200, digest):
            self.wrong.append(f"{tag}: {status}, not as pushed")
        if status != 200:
            return
        manifest = json.loads(body)
        for layer in (manifest["config"], *manifest["layers"]):
            status, data = client.ask("GET", f"/v2/{tag}/blobs/{layer['digest']}")
            if status == 200 and digest_of(data) == layer["digest"]:
                self.counts["blob read"] += 1
            elif client.ask("GET", f"/v2/{tag}/manifests/1") == (200, body):
                self.wrong.append(f"{tag} misses {layer['digest']}: {status}, {len(data)} bytes")


def race(servers: list[Server]) -> None:
    """Let it happen; then everything acknowledged is there, and nothing else."""
    running = Race(servers)
    running.run()
    assert not running.wrong, running.wrong[:5]
    with running.client() as client:
        for tag, digest in running.tags.items():
            running.check_tag(client, tag, digest)
        assert not running.wrong, running.wrong[:5]
        assert client.ask("POST", "/api/v1/gc", b'{"grace_s": 0, "untagged": true}')[0] == 200
        for tag, digest in running.tags.items():
            running.check_tag(client, tag, digest)
    assert not running.wrong, running.wrong[:5]
    assert min(running.counts[what] for what in ("push", "delete", "gc", "scrub")) > 0
    print(dict(running.counts))


def test_no_tag_ever_misses_a_byte_of_a_folder(tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = []
        for _ in range(2):
            servers.append(start(tmp_path / "data", None, **SETTINGS))
            stack.callback(servers[-1].stop)
        race(servers)
        held = {file.name.removeprefix("sha256-") for file in (tmp_path / "data/blobs").iterdir()}
        assert held <= {hashlib.sha256(layer).hexdigest() for layer in LAYERS}


def test_no_tag_ever_misses_a_byte_of_a_bucket(
    tmp_path: Path, s3: S3Server, postgres: PostgresServer
) -> None:
    with ExitStack() as stack:
        settings = SETTINGS | s3.environ()
        settings["REGISTRY_DATABASE_URL"] = stack.enter_context(postgres.database())
        servers = []
        for name in ("one", "other"):
            servers.append(start(tmp_path / name, None, **settings))
            stack.callback(servers[-1].stop)
        race(servers)
