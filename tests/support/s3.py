"""An S3 server of the tests' own: versitygw over a passing folder, on a free port."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.adapters.s3_client import S3Bucket, connect
from registry.core.errors import RegistryError
from registry.core.storage_url import S3Url
from registry.settings import S3Keys
from tests.support.ports import free_port

KEYS = S3Keys(access_key="test", secret_key="a-secret-of-the-tests")
START_S = 20.0


def binary() -> str | None:
    """Where the server is; None if it is not installed."""
    named = os.environ.get("VERSITYGW", "")
    return named if named and Path(named).is_file() else shutil.which("versitygw")


@dataclass(slots=True)
class S3Server:
    """A running server."""

    endpoint: str
    process: subprocess.Popen[bytes]
    folder: Path  # of all its buckets
    client: Any = None

    def bucket(self) -> str:
        """A new, empty bucket."""
        name = f"test-{uuid.uuid4().hex}"
        self.open(name).call("create_bucket")
        return name

    def drop(self, bucket: str) -> None:
        """A bucket with all that is in it: its room is wanted."""
        shutil.rmtree(self.folder / bucket, ignore_errors=True)  # somebody may yet write into it

    def url(self, bucket: str, prefix: str = "models") -> str:
        """A place in it, as an operator writes it."""
        return f"s3://{bucket}/{prefix}?endpoint={self.endpoint}"

    def place(self, bucket: str) -> S3Url:
        """The same, read."""
        return S3Url.parse(self.url(bucket))

    def open(self, bucket: str | None = None) -> S3Bucket:
        """A place in a bucket, or in one of its own. A client takes 0.3 s: all have the same."""
        if self.client is None:
            self.client = connect(self.place("any-bucket"), KEYS)
        return S3Bucket(self.client, bucket or self.bucket(), "models")

    def environ(self, bucket: str | None = None) -> dict[str, str]:
        """The settings of a service that keeps its blobs in a bucket, or in one of its own."""
        return {
            "REGISTRY_STORAGE_URL": self.url(bucket or self.bucket()),
            "REGISTRY_S3__ACCESS_KEY": KEYS.access_key,
            "REGISTRY_S3__SECRET_KEY": KEYS.secret_key,
        }


@contextlib.contextmanager
def running(program: str) -> Iterator[S3Server]:
    """A started server, gone afterwards with all that it has."""
    port = free_port()
    secrets = {"ROOT_ACCESS_KEY": KEYS.access_key, "ROOT_SECRET_KEY": KEYS.secret_key}
    with tempfile.TemporaryDirectory(prefix="s3-") as folder:
        options = ["--port", f"127.0.0.1:{port}", "--quiet", "--keep-alive"]
        command = [program, *options, "posix", "--disable-object-lock-file", folder]
        process = subprocess.Popen(command, env=os.environ | secrets, stdout=subprocess.DEVNULL)
        server = S3Server(f"http://127.0.0.1:{port}", process, Path(folder))
        try:
            _wait(server)
            yield server
        finally:
            process.terminate()
            process.wait(20)


def _wait(server: S3Server) -> None:
    client = connect(server.place("none"), KEYS)
    bucket = S3Bucket(client, "none", "", tries=1)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(RegistryError):
            bucket.tried(client.list_buckets)
            return
        time.sleep(0.05)
    raise AssertionError("the S3 server did not start")
