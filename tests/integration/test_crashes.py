"""Promises 1 to 3 under `kill -9`: what was acknowledged is there, nothing half-written shows.

Each round starts a server over the same folder, lets clients work, kills the server at a random
moment, starts it again and looks. Run more rounds with `REGISTRY_CRASH_ROUNDS=200`.

A power cut is played: after the kill, files that nobody is known to have synced are emptied, torn
or removed. Which these are the catalog says; that it says so until they are synced is tried by
`tests/unit/services/library/test_filing.py`.
"""

import hashlib
import http.client
import json
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from dataclasses import field as default
from functools import partial
from pathlib import Path

import pytest

from registry.adapters.s3_client import S3Bucket
from registry.core.names import RepositoryName
from registry.core.records import RecordName
from tests.support.backends import leftovers
from tests.support.gguf import SMALLEST, field, gguf
from tests.support.ports import free_port
from tests.support.s3 import S3Server
from tests.support.server import Server, running, start

ROUNDS = int(os.environ.get("REGISTRY_CRASH_ROUNDS", "6"))
CLIENTS = 4
ARCH = field("general.architecture", 8, "test")
SEED = int(os.environ.get("REGISTRY_CRASH_SEED", "1"))


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def call(server: Server, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path, body=body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def post(server: Server, path: str, value: object, method: str = "POST") -> tuple[int, bytes]:
    return call(server, method, path, json.dumps(value).encode())


@dataclass
class World:
    """What clients know: acknowledged things, and names whose last request was not answered."""

    blobs: dict[str, bytes] = default(default_factory=dict)  # kept by nobody but the grace
    models: dict[str, str] = default(default_factory=dict)  # name -> system text
    pushed: dict[str, str] = default(default_factory=dict)  # name -> digest of the manifest
    unsure: set[str] = default(default_factory=set)
    upstream: dict[str, str] = default(default_factory=dict)  # models to pull -> system text
    sizes: list[int] = default(default_factory=lambda: [0, 100, 70_000, 3_000_000])
    lock: threading.Lock = default(default_factory=threading.Lock)


class Client(threading.Thread):
    """Works until the server is gone. Each client has names of its own."""

    def __init__(self, server: Server, world: World, number: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.server, self.world, self.number = server, world, number
        self.random = random.Random(seed)
        self.failure: BaseException | None = None
        self.deeds = [self.upload, self.create, self.delete, self.push, self.copy, self.pull]

    def run(self) -> None:
        try:
            while True:
                self.random.choice(self.deeds)()
        except (OSError, http.client.HTTPException):
            return  # the server was killed
        except BaseException as error:
            self.failure = error

    def pick(self) -> str:
        return f"m{self.number}-{self.random.randrange(6)}"

    def upload(self) -> None:
        data = self.random.randbytes(self.random.choice(self.world.sizes))
        digest = digest_of(data)
        status, text = call(self.server, "POST", f"/api/blobs/{digest}", data)
        assert status in {200, 201}, text
        with self.world.lock:
            self.world.blobs[digest] = data

    def create(self) -> None:
        name, system = self.pick(), f"system {self.random.random()}"
        self.begin(name)
        status, text = post(
            self.server,
            "/api/create",
            {"model": name, "from": "base", "system": system, "stream": False},
        )
        assert status == 200, text
        with self.world.lock:
            self.world.models[name] = system
            self.world.unsure.discard(name)

    def delete(self) -> None:
        name = self.pick()
        self.begin(name)
        status, text = post(self.server, "/api/delete", {"model": name}, "DELETE")
        assert status in {200, 404}, text
        with self.world.lock:
            self.world.models.pop(name, None)
            self.world.unsure.discard(name)

    def copy(self) -> None:
        source, target = self.pick(), self.pick()
        if source == target:
            return
        self.begin(target)
        status, text = post(self.server, "/api/copy", {"source": source, "destination": target})
        assert status in {200, 404}, text
        with self.world.lock:
            if status == 200:
                self.world.models[target] = self.world.models[source]
            self.world.unsure.discard(target)

    def pull(self) -> None:
        name = list(self.world.upstream)[self.number]  # one each: nobody else deletes it
        self.begin(name)
        if self.random.random() < 0.3:
            status, text = post(self.server, "/api/delete", {"model": name}, "DELETE")
            assert status in {200, 404}, text
        ask = {"model": name, "insecure": True, "stream": False}
        status, text = post(self.server, "/api/pull", ask)
        assert (status, json.loads(text)) == (200, {"status": "success"})
        with self.world.lock:
            self.world.models[name] = self.world.upstream[name]
            self.world.unsure.discard(name)

    def push(self) -> None:
        """A push over `/v2/`: one blob in two chunks, a config, a manifest."""
        name = f"p{self.number}-{self.random.randrange(3)}"
        data = self.random.randbytes(self.random.choice([1, 5_000, 2_000_000]))
        self.begin(name)
        for blob in (data, b"{}"):
            self.push_blob(name, blob)
        config = {"mediaType": "application/x.config", "digest": digest_of(b"{}"), "size": 2}
        layer = {"mediaType": "application/x.bytes", "digest": digest_of(data), "size": len(data)}
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": config,
                "layers": [layer],
            }
        ).encode()
        path = f"/v2/crash/{name}/manifests/v1"
        status, text = call(self.server, "PUT", path, manifest)
        assert status == 201, text
        with self.world.lock:
            self.world.pushed[name] = digest_of(manifest)
            self.world.unsure.discard(name)

    def push_blob(self, name: str, data: bytes) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        try:
            connection.request("POST", f"/v2/crash/{name}/blobs/uploads/")
            answer = connection.getresponse()
            answer.read()
            path = answer.headers["Location"].split(str(self.server.port), 1)[1]
            half = len(data) // 2
            for first, part in ((0, data[:half]), (half, data[half:])):
                if part:
                    span = {"Content-Range": f"{first}-{first + len(part) - 1}"}
                    connection.request("PATCH", path, body=part, headers=span)
                    answer = connection.getresponse()
                    assert answer.status == 202, answer.read()
                    answer.read()
            connection.request("PUT", f"{path}?digest={digest_of(data)}")
            answer = connection.getresponse()
            assert answer.status == 201, answer.read()
            answer.read()
        finally:
            connection.close()

    def begin(self, name: str) -> None:
        with self.world.lock:
            self.world.unsure.add(name)


def check(server: Server, world: World) -> None:
    """Everything acknowledged is there; what was in flight is whole or absent."""
    for digest, _ in list(world.blobs.items())[-20:]:
        status, _ = call(server, "HEAD", f"/api/blobs/{digest}")
        assert status == 200, f"acknowledged blob {digest} is gone"
    listed = {item["name"].removesuffix(":latest") for item in tags(server)}
    for name, system in world.models.items():
        if name in world.unsure:
            continue
        assert name in listed, f"acknowledged model {name} is gone"
        status, text = post(server, "/api/show", {"model": name})
        assert (status, json.loads(text)["system"]) == (200, system)
    for name, digest in world.pushed.items():
        if name not in world.unsure:
            check_pushed(server, name, digest)
    for name in listed:
        status, text = post(server, "/api/show", {"model": name})
        assert status == 200, f"{name} is listed and cannot be shown: {text!r}"
    for name in world.unsure:  # learn what became of them
        world.models.pop(name, None)
        world.pushed.pop(name, None)
        if name in listed:
            _, text = post(server, "/api/show", {"model": name})
            world.models[name] = json.loads(text)["system"]
    world.unsure.clear()


def check_pushed(server: Server, name: str, digest: str) -> None:
    status, manifest = call(server, "GET", f"/v2/crash/{name}/manifests/v1")
    assert (status, digest_of(manifest)) == (200, digest)
    for layer in json.loads(manifest)["layers"]:
        status, data = call(server, "GET", f"/v2/crash/{name}/blobs/{layer['digest']}")
        assert (status, digest_of(data)) == (200, layer["digest"])


def check_folder(data: Path) -> None:
    """Every file that looks like a blob is the blob it is called, and every tag file is whole."""
    for file in (data / "blobs").iterdir():
        try:
            content = file.read_bytes()
        except FileNotFoundError:  # a server that runs already has freed it since it was listed
            continue
        assert hashlib.sha256(content).hexdigest() == file.name.removeprefix("sha256-")
    for file in (data / "manifests").rglob("*"):
        if file.is_file():
            manifest = json.loads(file.read_bytes())
            for part in [manifest["config"], *(manifest["layers"] or [])]:
                blob = data / "blobs" / part["digest"].replace(":", "-")
                assert blob.stat().st_size == part["size"], f"{file.name} lacks {blob.name}"


def check_bucket(bucket: S3Bucket, data: Path) -> None:
    """Every blob is an object with its bytes, and every tag's blobs are blobs or due to go."""
    with closing(sqlite3.connect(data / "registry.db")) as database:
        blobs = database.execute(
            "SELECT digest, storage_key FROM blob WHERE storage_key NOT IN "
            "(SELECT storage_key FROM unwritten)"
        ).fetchall()
        known = {digest for (digest,) in database.execute("SELECT digest FROM blob")}
        known |= {digest for (digest,) in database.execute("SELECT digest FROM freed")}
    for digest, key in blobs:
        size = bucket.call("head_object", Key=bucket.blob(key))["ContentLength"]
        assert digest_of(bucket.read(bucket.blob(key), 0, size)) == digest
    for item in bucket.listed(bucket.path("manifests", "")):
        manifest = json.loads(bucket.read(item["Key"], 0, item["Size"]))
        for part in [manifest["config"], *(manifest["layers"] or [])]:
            assert part["digest"] in known, f"{item['Key']} lacks {part['digest']}"


def tags(server: Server) -> list[dict[str, str]]:
    models: list[dict[str, str]] = json.loads(call(server, "GET", "/api/tags")[1])["models"]
    return models


@pytest.mark.slow
@pytest.mark.timeout(60 + 20 * ROUNDS)
@pytest.mark.folder("the next one is the same on an object store")
def test_a_killed_server_keeps_its_promises(tmp_path: Path) -> None:
    place = Place(tmp_path / "data", free_port(), check_folder)
    with worked_on(tmp_path / "upstream") as world:
        run_rounds(place, world, random.Random(SEED))
    check_leftovers(place.data, place.port)


@pytest.mark.slow
@pytest.mark.timeout(120 + 30 * ROUNDS)
@pytest.mark.sqlite("asks the file which bytes may be missing")
def test_a_killed_server_keeps_its_promises_over_an_object_store(
    tmp_path: Path, s3: S3Server
) -> None:
    name = s3.bucket()
    bucket = s3.open(name)
    environ = {**s3.environ(name), "REGISTRY_RETENTION__LEFTOVER_S": "0"}
    place = Place(tmp_path / "data", free_port(), partial(check_bucket, bucket), environ)
    with worked_on(tmp_path / "upstream") as world:
        world.sizes = [0, 70_000, 3_000_000, 9_000_000, 20_000_000]
        run_rounds(place, world, random.Random(SEED))
    with running(place.data, **environ):
        kept = {key.partition(".")[0] for key in incoming_keys(place.data)}
        deadline = time.monotonic() + 20
        while [key for key in leftovers(bucket) if key.split("/")[-2] not in kept]:
            assert time.monotonic() < deadline, "the sweep left something over"
    check_bucket(bucket, place.data)


@dataclass
class Place:
    """A server's data folder, and how to look at what it keeps."""

    data: Path
    port: int
    check: Callable[[Path], None]
    environ: dict[str, str] = default(default_factory=dict)

    def start(self) -> Server:
        return start(self.data, self.port, **self.environ)


@contextmanager
def worked_on(folder: Path) -> Iterator[World]:
    """A world with a registry from which models can be pulled."""
    world = World()
    with running(folder) as upstream:
        put_base(upstream, gguf(*(field(f"pad.{n}", 8, "x" * 60_000) for n in range(60)), ARCH))
        for number in range(CLIENTS):
            name, system = f"up/m{number}", f"upstream {number}"
            ask = {"model": name, "from": "base", "system": system, "stream": False}
            assert post(upstream, "/api/create", ask)[0] == 200
            world.upstream[f"{upstream.address}/{name}"] = system
        yield world


def put_base(server: Server, weights: bytes) -> None:
    digest = digest_of(weights)
    assert call(server, "POST", f"/api/blobs/{digest}", weights)[0] == 201
    base = {"model": "base", "files": {"m.gguf": digest}, "stream": False}
    assert post(server, "/api/create", base)[0] == 200


def run_rounds(place: Place, world: World, dice: random.Random) -> None:
    server = place.start()
    put_base(server, SMALLEST)
    for _ in range(ROUNDS):
        clients = [Client(server, world, n, dice.randrange(1 << 30)) for n in range(CLIENTS)]
        for client in clients:
            client.start()
        time.sleep(dice.uniform(0.05, 1.0))
        server.kill()
        for client in clients:
            client.join(60)
            if client.failure is not None:
                raise client.failure
        place.check(place.data)
        server = place.start()
        check(server, world)
    assert world.models or world.pushed or world.blobs
    assert server.stop() == 0
    place.check(place.data)


@pytest.mark.slow
@pytest.mark.timeout(60 + 20 * ROUNDS)
@pytest.mark.folder("does to files what a power cut does")
def test_a_power_cut_takes_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    data, port, world = tmp_path / "data", free_port(), World()
    server = start(data, port)
    put_base(server, SMALLEST)
    harmed = 0
    for _ in range(ROUNDS):
        clients = [Client(server, world, n, dice.randrange(1 << 30)) for n in range(CLIENTS)]
        for client in clients:
            client.deeds = [client.create, client.create, client.copy, client.delete]
            client.start()
        time.sleep(dice.uniform(0.3, 1.5))
        server.kill()
        for client in clients:
            client.join(60)
            if client.failure is not None:
                raise client.failure
        check_folder(data)
        harmed += cut_power(data, dice)
        server = start(data, port)
        check_folder(data)
        check(server, world)
        for name, system in world.models.items():
            check_pulled(server, name, system)
    assert harmed > ROUNDS
    assert server.stop() == 0
    check_folder(data)
    assert unsynced(data) == []


def unsynced(data: Path) -> list[Path]:
    """The files that a power cut may still take."""
    with closing(sqlite3.connect(data / "registry.db")) as database:
        blobs = database.execute("SELECT storage_key FROM unwritten").fetchall()
        tags = database.execute("SELECT host, namespace, model, tag FROM folder_change").fetchall()
    files = [data / "blobs" / key for (key,) in blobs]
    records = [RecordName(RepositoryName(row[1]), row[3]) for row in tags if not row[0]]
    files += [data / "records" / name.file_path for name in records]
    return files + [data.joinpath("manifests", *parts) for parts in tags if parts[0]]


def cut_power(data: Path, dice: random.Random) -> int:
    """Do to each file that was not synced what a file system may do to it; return how many."""
    files = unsynced(data)
    for file in files:
        what = dice.choice(["kept", "gone", "emptied", "torn", "zeros"])
        if what == "gone":
            file.unlink(missing_ok=True)
        elif what != "kept" and file.exists():
            content = file.read_bytes()
            torn = {
                "emptied": b"",
                "torn": content[: len(content) // 2],
                "zeros": bytes(len(content)),
            }
            file.write_bytes(torn[what])
    return len(files)


def check_pulled(server: Server, name: str, system: str) -> None:
    """The model comes byte for byte, its system text among its blobs."""
    status, manifest = call(server, "GET", f"/v2/library/{name}/manifests/latest")
    assert status == 200, manifest
    texts = []
    document = json.loads(manifest)
    for part in [document["config"], *document["layers"]]:
        status, content = call(server, "GET", f"/v2/library/{name}/blobs/{part['digest']}")
        assert (status, digest_of(content)) == (200, part["digest"])
        texts.append(content)
    assert system.encode() in texts


def check_leftovers(data: Path, port: int) -> None:
    """The sweep at a start takes what the crashes left, and spares open sessions and fetches."""
    with running(data, REGISTRY_RETENTION__LEFTOVER_S="0", REGISTRY_LOG_LEVEL="debug"):
        kept = incoming_keys(data)
        deadline = time.monotonic() + 20
        while {path.name for path in (data / "incoming").iterdir()} - kept:
            assert time.monotonic() < deadline, "the sweep left something over"
            time.sleep(0.1)
    check_folder(data)


def incoming_keys(data: Path) -> set[str]:
    with closing(sqlite3.connect(data / "registry.db")) as database:
        rows = database.execute(
            "SELECT storage_key FROM upload WHERE state = 'open' "
            "UNION ALL SELECT storage_key FROM fetch"
        ).fetchall()
    return {key for (key,) in rows}
