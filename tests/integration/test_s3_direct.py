"""The real ollama client and an object store, through two replicas of which one may die.

`OLLAMA` names the client's binary; with `S3_TEST_BIG` the layers have the sizes of the protocol's
acceptance list, to 1.7 GB, and the replica dies in the middle of the last.
"""

import hashlib
import json
import os
import random
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from registry.adapters.s3_client import S3Bucket
from registry.core.storage_url import S3Url
from tests.support.balancer import balanced
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer
from tests.support.proxies import started
from tests.support.s3 import KEYS, S3Server
from tests.support.server import Server, start
from tests.support.stock_clients import DOCKER, OLLAMA

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(OLLAMA is None, reason="the ollama client is not installed here"),
]

MB = 10**6
PART = 100 * MB  # what ollama sends at once
SIZES = (0, 1, (8 << 20) - 1, 8 << 20, PART, PART + 1, 250 * MB)
BIG = (0, 1, PART - 1, PART, PART + 1, 250 * MB, 1700 * MB)
LAYERS = BIG if os.environ.get("S3_TEST_BIG") else SIZES
LAYER, TENSOR = "application/vnd.ollama.image.license", "application/vnd.ollama.image.tensor"
BROKEN = re.compile(r"attempt \d failed: .*(?:EOF|reset by peer|broken pipe)")
NEVER = {"REGISTRY_REDIRECT__PULL": "never", "REGISTRY_REDIRECT__PUSH": "never"}
MODES = {  # the host name of the store for clients, and settings
    "another host": ("localhost", {}),
    "the same host": ("127.0.0.1", {}),
    "proxied": ("localhost", NEVER),
}


@dataclass
class Site:
    """Two replicas, the way in to them, the store behind them, and an ollama server."""

    folder: Path
    bucket: S3Bucket
    settings: dict[str, str]
    replicas: list[Server] = field(default_factory=list)
    name: str = ""
    digests: list[str] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def models(self) -> Path:
        return self.folder / "models"

    def stop(self) -> None:
        for server in self.replicas:
            server.stop()

    def again(self, number: int) -> None:
        """Start a replica anew on its port."""
        old = self.replicas[number]
        self.replicas[number] = start(old.data, old.port, **self.settings)

    def run(self, *words: str) -> None:
        assert OLLAMA is not None
        done = subprocess.run(
            [OLLAMA, *words],
            env={**os.environ, **self.environ},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-2000:]

    def make(self, sizes: tuple[int, ...], media_type: str) -> None:
        """Put a model into ollama's folder."""
        layers = [
            {"mediaType": media_type, "digest": self._blob(size), "size": size, "name": f"t{size}"}
            for size in sizes
        ]
        config = json.dumps({"model_format": "gguf", "rootfs": {"type": "layers"}}).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": DOCKER,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": self._put(iter([config])),
                "size": len(config),
            },
            "layers": layers,
        }
        host, namespace, model = self.name.split("/")
        entry = self.models / "manifests" / host / namespace / model.replace(":", "/")
        entry.parent.mkdir(parents=True)
        entry.write_text(json.dumps(manifest))

    def _blob(self, size: int) -> str:
        piece = random.Random(size).randbytes(1 << 20)  # but for its number, the same each time
        starts = range(0, size, len(piece))
        return self._put(
            (start.to_bytes(8) + piece)[: min(len(piece), size - start)] for start in starts
        )

    def _put(self, pieces: Iterator[bytes]) -> str:
        blobs, hasher = self.models / "blobs", hashlib.sha256()
        blobs.mkdir(parents=True, exist_ok=True)
        with (blobs / "new").open("wb") as file:
            for piece in pieces:
                hasher.update(piece)
                file.write(piece)
        (blobs / "new").rename(blobs / f"sha256-{hasher.hexdigest()}")
        self.digests.append(hasher.hexdigest())
        return f"sha256:{hasher.hexdigest()}"

    def forget(self) -> None:
        self.run("rm", self.name)
        for file in (self.models / "blobs").iterdir():
            file.unlink()

    def check(self) -> None:
        for digest in self.digests:
            with (self.models / "blobs" / f"sha256-{digest}").open("rb") as file:
                assert hashlib.file_digest(file, "sha256").hexdigest() == digest

    def requests(self, what: str) -> int:
        """How many requests the replicas have answered, by a part of the log line."""
        return sum(server.log.read_text().count(what) for server in self.replicas)


@contextmanager
def site(folder: Path, s3: S3Server, postgres: PostgresServer, mode: str) -> Iterator[Site]:
    host, settings = MODES[mode]
    bucket = s3.bucket()
    public = s3.endpoint.replace("127.0.0.1", host)
    with ExitStack() as stack:
        given = {
            **settings,
            "REGISTRY_STORAGE_URL": f"{s3.url(bucket)}&public_endpoint={public}",
            "REGISTRY_S3__ACCESS_KEY": KEYS.access_key,
            "REGISTRY_S3__SECRET_KEY": KEYS.secret_key,
            "REGISTRY_DATABASE_URL": stack.enter_context(postgres.database()),
            "REGISTRY_WORKER__LOCAL": "off",
        }
        here = Site(folder, S3Bucket.open(S3Url.parse(s3.url(bucket)), KEYS), given)
        stack.callback(here.stop)
        for name in ("one", "other"):
            here.replicas.append(start(folder / name, None, **given))
        port = stack.enter_context(balanced([server.port for server in here.replicas]))
        here.name = f"127.0.0.1:{port}/team/Llama-3.Q4:8b"
        own = free_port()
        here.environ = {
            "HOME": str(folder),
            "OLLAMA_MODELS": str(here.models),
            "OLLAMA_HOST": f"127.0.0.1:{own}",
            "OLLAMA_NOPRUNE": "1",
        }
        assert OLLAMA is not None
        stack.enter_context(started([OLLAMA, "serve"], own, folder / "ollama.log", **here.environ))
        yield here


@contextmanager
def killing(server: Server, when: Callable[[], bool]) -> Iterator[None]:
    """Let a replica die as soon as something is the case, which must come about in the block."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if when():
                server.kill()
                return
            time.sleep(0.02)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert server.process.poll() is not None, "it was over too soon"


def sends_parts(here: Site, size: int) -> bool:
    """Whether the store has so many bytes of something unfinished."""
    found = here.bucket.call("list_multipart_uploads", Prefix=here.bucket.prefix)
    parts = [
        here.bucket.call("list_parts", Key=one["Key"], UploadId=one["UploadId"]).get("Parts", [])
        for one in found.get("Uploads", [])
    ]
    return any(sum(part["Size"] for part in some) >= size for some in parts)


def has_partial(here: Site, size: int) -> bool:
    files = (here.models / "blobs").glob("*-partial")
    return any(file.stat().st_blocks * 512 >= size for file in files)


@pytest.mark.parametrize("mode", MODES)
def test_ollama_pushes_and_pulls_through_two_replicas(
    tmp_path: Path, s3: S3Server, postgres: PostgresServer, mode: str
) -> None:
    with site(tmp_path, s3, postgres, mode) as here:
        here.make(LAYERS, LAYER)
        here.run("push", "--insecure", here.name)
        here.forget()
        here.run("pull", "--insecure", here.name)
        here.check()
        assert (here.requests("status=307") > 0) == (mode != "proxied")
        assert not BROKEN.search((tmp_path / "ollama.log").read_text())


@pytest.mark.parametrize("mode", MODES)
def test_a_replica_that_dies_in_the_middle_is_not_missed(
    tmp_path: Path, s3: S3Server, postgres: PostgresServer, mode: str
) -> None:
    with site(tmp_path, s3, postgres, mode) as here:
        here.make(LAYERS[-1:], LAYER)
        size = LAYERS[-1] // 4 if LAYERS is BIG else 1
        with killing(here.replicas[0], partial(sends_parts, here, size)):
            here.run("push", "--insecure", here.name)
        here.forget()
        here.again(0)
        with killing(here.replicas[1], partial(has_partial, here, size)):
            here.run("pull", "--insecure", here.name)
        here.check()


def test_tensors_go_to_the_store_in_one_request_each(
    tmp_path: Path, s3: S3Server, postgres: PostgresServer
) -> None:
    with site(tmp_path, s3, postgres, "another host") as here:
        here.make((10, 5000, 300_000, 20 * MB, 120 * MB), TENSOR)
        here.run("push", "--insecure", here.name)
        assert here.requests("method=PATCH") == 0
        assert here.requests("method=PUT path=/v2/team/Llama-3.Q4/manifests/8b status=201") == 1
