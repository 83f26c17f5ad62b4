"""Pushers of common layers, deleters, collections without grace and scrubs, all at once.

Through two servers that share a library. While it goes on and at the end, everything that a tag
names is read and hashed: no tag may ever miss a byte. Ten minutes with `REGISTRY_RACE_S=600`; a few
seconds otherwise. With `REGISTRY_RACE_KILL_S=10` servers are killed all the time besides.
"""

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.backends import leftovers
from tests.support.postgres import PostgresServer
from tests.support.race import Race
from tests.support.s3 import S3Server
from tests.support.server import Server, start

SECONDS = float(os.environ.get("REGISTRY_RACE_S", "8"))
KILL_S = float(os.environ.get("REGISTRY_RACE_KILL_S", "0"))
LEASE_S = 5
SETTINGS = {
    "REGISTRY_RETENTION__GRACE_S": "0",
    "REGISTRY_RETENTION__LEASE_S": str(LEASE_S),
    "REGISTRY_RETENTION__SWEEP_EVERY_S": "1",
    "REGISTRY_WORKER__LOCAL": "off",
}
UNDELETE: tuple[dict[str, str], ...] = ({}, {"REGISTRY_RETENTION__UNDELETE_S": "1"})

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 180)]


def race(again: Callable[[int], Server], held: Callable[[], int]) -> None:
    """Let it happen; then everything acknowledged is there, and nothing else."""
    with ExitStack() as stack:
        servers = [again(number) for number in range(2)]
        stack.callback(lambda: [server.stop() for server in servers])
        running = Race(servers, SECONDS, KILL_S, again if KILL_S else None)
        running.run()
        print(dict(running.counts))
        assert not running.wrong, "\n".join(running.wrong[:5])
        with running.client() as client:
            running.check_all(client)
            running.collect(client)
            running.check_all(client)
            running.clear(client)
            deadline = time.monotonic() + LEASE_S + 30
            while held() and not KILL_S:
                assert time.monotonic() < deadline, "files are left that nothing refers to"
                running.collect(client)
                time.sleep(0.2)
        check_logs(servers)
        assert min(running.counts[what] for what in ("push", "gc", "scrub")) > 0


def check_logs(servers: list[Server]) -> None:
    """Nothing happened that nobody has thought of."""
    for server in servers:
        lines = server.log.read_text().splitlines()
        strange = [number for number, line in enumerate(lines) if "Traceback" in line]
        assert not strange, "\n".join(lines[strange[0] - 1 : strange[0] + 60])


@pytest.mark.folder("the next one is the same on an object store")
def test_no_tag_ever_misses_a_byte_of_a_folder(tmp_path: Path) -> None:
    ports: dict[int, int] = {}

    def again(number: int) -> Server:
        server = start(tmp_path / "data", ports.get(number), **SETTINGS, **UNDELETE[number])
        ports[number] = server.port
        return server

    def held() -> int:
        folders = ("blobs", "manifests", "records")
        files = (path for name in folders for path in (tmp_path / "data" / name).rglob("*"))
        return sum(path.is_file() for path in files)

    race(again, held)
    for file in (tmp_path / "data/blobs").iterdir():
        assert file.name == f"sha256-{hashlib.sha256(file.read_bytes()).hexdigest()}"


def test_no_tag_ever_misses_a_byte_of_a_bucket(
    tmp_path: Path, s3: S3Server, postgres: PostgresServer
) -> None:
    name = s3.bucket()
    ports: dict[int, int] = {}
    with postgres.database() as url:
        settings = SETTINGS | s3.environ(name) | {"REGISTRY_DATABASE_URL": url}

        def again(number: int) -> Server:
            folder = tmp_path / ("one", "other")[number]
            server = start(folder, ports.get(number), **settings, **UNDELETE[number])
            ports[number] = server.port
            return server

        def held() -> int:
            bucket = s3.open(name)
            return sum(1 for _ in bucket.listed(bucket.prefix))

        race(again, held)
        assert KILL_S or not leftovers(s3.open(name))
