"""What fails around a service, while clients push, pull and list: nothing acknowledged is lost.

One kind of trouble after the other comes and goes. While it lasts, answers are good ones or
refusals that a client understands, in bounded time; `/healthz` answers; afterwards everything works
again by itself and everything acknowledged is read, whole. Some seconds of each kind; three minutes
with `REGISTRY_OUTAGE_S=180`, which prints a table (`pytest -s`).
"""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from email.message import Message
from pathlib import Path

import pytest

from registry.adapters.catalog_sql import open_catalog
from registry.services.access.accounts import Accounts
from registry.settings import Settings
from tests.support import faulty_s3
from tests.support.crowd import Crowd, digest_of
from tests.support.postgres import PostgresServer
from tests.support.s3 import KEYS, S3Server
from tests.support.server import Server
from tests.support.tally import Tally, lines
from tests.support.troubles import (
    Clocks,
    Site,
    Trouble,
    faulty,
    frozen,
    full,
    killed,
    small_disk,
    stopped,
)

SECONDS = float(os.environ.get("REGISTRY_OUTAGE_S", "1"))
ONLY = os.environ.get("REGISTRY_OUTAGE_KINDS", "")
CLIENTS = 5
SEED = int(os.environ.get("REGISTRY_OUTAGE_SEED", "1"))
LONGEST_S = 20.0  # of one trouble
ANSWER_S = 45.0  # no request takes longer
LOOK_S = 6.0  # nor does a look at its health
RECOVERY_S = 15.0
START_S = 3.0  # of a server; where it takes longer all else may, too
DISK = 64 << 20
SETTINGS = {
    "REGISTRY_WORKER__LOCAL": "off",
    "REGISTRY_RETENTION__SWEEP_EVERY_S": "1",
    "REGISTRY_RETENTION__LEFTOVER_S": "1800",
}
SHORT = {"REGISTRY_RETENTION__GRACE_S": "1800", "REGISTRY_LIMITS__UPLOAD_IDLE_S": "1800"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400 + 40 * SECONDS)]


class Outages:
    """Troubles of a site, each for its time, and what was counted."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.table: dict[str, Tally] = {}

    def run(self, troubles: Mapping[str, Trouble]) -> None:
        """All kinds, or those that were named; fails at the first that does not hold."""
        with Crowd(self.site.ports, CLIENTS, SEED) as crowd:
            try:
                for name, trouble in troubles.items():
                    if not ONLY or name in ONLY.split(","):
                        self._kind(name, trouble, crowd)
            finally:
                print("\n" + "\n".join(lines(self.table)))

    def _kind(self, name: str, trouble: Trouble, crowd: Crowd) -> None:
        tally = self.table[name] = crowd.tally = Tally()
        until = time.monotonic() + SECONDS
        while not tally.rounds or time.monotonic() < until:
            tally.rounds += 1
            self._round(trouble, crowd)
            assert not crowd.wrong, (name, crowd.wrong[:5])
        assert tally.acknowledged, name
        busy = max(1.0, self.site.slowest_start_s / START_S)
        assert tally.slowest_s < ANSWER_S * busy, (name, tally)
        assert tally.recovered_s < RECOVERY_S * busy, (name, tally)
        assert tally.look_s < LOOK_S * busy, (name, tally)

    def _round(self, trouble: Trouble, crowd: Crowd) -> None:
        dice = self.site.dice
        crowd.work()
        time.sleep(dice.uniform(0.2, 0.5))
        with ExitStack() as stack:
            stack.enter_context(trouble(self.site))
            with looked_at(self.site, crowd.tally):
                time.sleep(dice.uniform(0.3, 1.0) * min(SECONDS, LONGEST_S))
            crowd.heal()
        crowd.tally.recovered_s = max(crowd.tally.recovered_s, crowd.recovery(120))
        for server in self.site.servers:
            _wait_ready(server.url)
        crowd.rest()
        crowd.check()


def _wait_ready(url: str) -> None:
    deadline = time.monotonic() + 120
    while _status(url + "/readyz") != 200:
        assert time.monotonic() < deadline, "not ready after the trouble was over"
        time.sleep(0.1)


def _status(url: str) -> int:
    """Of an answer; 0: there was none."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@contextmanager
def looked_at(site: Site, tally: Tally) -> Iterator[None]:
    """Health and readiness are asked for all the while, of servers that run."""
    over = threading.Event()
    seen: list[str] = []

    def look() -> None:
        while not over.wait(0.2):
            for server in site.servers:
                if server.process.poll() is not None:
                    continue
                began = time.monotonic()
                if _status(server.url + "/healthz") != 200:
                    seen.append("/healthz was not 200")
                tally.live += 1
                tally.unready += _status(server.url + "/readyz") == 503
                tally.look_s = max(tally.look_s, time.monotonic() - began)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not seen, seen


@contextmanager
def site(*places: tuple[Path, dict[str, str]]) -> Iterator[Site]:
    made = Site([(folder, SETTINGS | environ) for folder, environ in places])
    made.dice.seed(SEED)
    with contextlib.ExitStack() as stack:
        made.start()
        stack.callback(lambda: [server.stop() for server in made.servers])
        yield made
        made.stop()


def test_a_folder_and_sqlite_through_all_of_it(tmp_path: Path) -> None:
    troubles: dict[str, Trouble] = {"kill -9": killed}
    environ: dict[str, str] = {}
    clocks = Clocks.found(tmp_path)
    if clocks is not None:
        environ = clocks.environ("one")
        troubles["clock an hour off"] = clocks.off("one")
    with small_disk(tmp_path / "data", DISK) as is_small:
        if is_small:
            troubles["disk full"] = full(tmp_path / "data")
        with site((tmp_path / "data", environ)) as made:
            Outages(made).run(troubles)


def test_two_replicas_through_all_of_it(
    tmp_path: Path, s3: S3Server, postgres: PostgresServer
) -> None:
    with ExitStack() as stack:
        url = stack.enter_context(postgres.database())
        front = stack.enter_context(faulty_s3.front(s3.endpoint))
        bucket = s3.bucket()
        environ = {
            "REGISTRY_DATABASE_URL": url,
            "REGISTRY_STORAGE_URL": f"s3://{bucket}/models?endpoint={front.endpoint}",
            "REGISTRY_S3__ACCESS_KEY": KEYS.access_key,
            "REGISTRY_S3__SECRET_KEY": KEYS.secret_key,
        }
        made = stack.enter_context(site((tmp_path / "one", environ), (tmp_path / "other", environ)))
        Outages(made).run(
            {
                "kill -9": killed,
                "Postgres stopped": stopped(postgres, signal.SIGINT),
                "Postgres crashed": stopped(postgres, signal.SIGQUIT),
                "Postgres frozen": frozen(postgres),
                "S3 500": faulty(front, "500"),
                "S3 503": faulty(front, "503"),
                "S3 silent": faulty(front, "silent"),
                "S3 cut": faulty(front, "cut"),
                "S3 lost": faulty(front, "lost"),
                "S3 away": faulty(front, "500", every=(1,)),
            }
        )


NAMES = ("one", "other")
PASSWORD = "a password of alice"


@contextmanager
def apart(clocks: Clocks, url: str, *offsets: int, **more: str) -> Iterator[Site]:
    """Two servers on one folder, whose clocks differ by more than most things live."""
    folder = clocks.folder
    (folder / "shared").mkdir()
    common = SHORT | {"REGISTRY_DATABASE_URL": url} | more
    places = []
    for name, offset in zip(NAMES, offsets, strict=True):
        (folder / name).symlink_to(folder / "shared")
        places.append((folder / name, common | clocks.environ(name, offset)))
    with site(*places) as made:
        yield made


@pytest.fixture
def clocks(tmp_path: Path) -> Clocks:
    found = Clocks.found(tmp_path)
    if found is None:
        pytest.skip("faketime is not installed here")
    return found


def test_clocks_that_are_hours_apart(clocks: Clocks, postgres: PostgresServer) -> None:
    """On one folder: an object store refuses who is a quarter of an hour off."""
    with postgres.database() as url, apart(clocks, url, 0, 0) as made:
        Outages(made).run({"clocks apart": clocks.off(*NAMES)})
        with clocks.off(*NAMES)(made):
            Outages(made).run({"kill -9, clocks apart": killed})


def test_what_one_clock_says_holds_by_the_other(
    tmp_path: Path, clocks: Clocks, postgres: PostgresServer
) -> None:
    """Tokens and uploads, whose lives are shorter than the clocks are apart."""
    short = {
        "REGISTRY_AUTH": "true",
        "REGISTRY_EXTERNAL_URL": "http://127.0.0.1:1",
        "REGISTRY_CREDENTIALS__TOKEN_S": "600",
        "REGISTRY_LIMITS__UPLOAD_IDLE_S": "600",
    }
    basic = "Basic " + base64.b64encode(f"alice:{PASSWORD}".encode()).decode()
    scope = "/v2/token?service=127.0.0.1:1&scope=repository:team/a:pull,push"
    data = b"part" * 1000
    with postgres.database() as url, apart(clocks, url, 3600, -3600, **short) as made:
        asyncio.run(_enlist(url, tmp_path / "one"))
        assert abs(_told(made.servers[0]) - _told(made.servers[1])) > 7000
        for issuer, other in itertools.permutations(made.servers):
            _, answer = _ask(issuer, "GET", scope, Authorization=basic)
            bearer = "Bearer " + json.loads(answer)["token"]
            headers, _ = _ask(issuer, "POST", "/v2/team/a/blobs/uploads/", Authorization=bearer)
            for server in (other, issuer):
                path = headers["Location"].removeprefix("http://127.0.0.1:1")
                headers, _ = _ask(server, "PATCH", path, data, Authorization=bearer)
            path = headers["Location"].removeprefix("http://127.0.0.1:1")
            digest = digest_of(data + data)
            _ask(other, "PUT", f"{path}?digest={digest}", Authorization=bearer)
            path = f"/v2/team/a/blobs/{digest}"
            assert _ask(issuer, "GET", path, Authorization=bearer)[1] == data + data


async def _enlist(url: str, folder: Path) -> None:
    catalog = open_catalog(url, folder)
    accounts = Accounts(catalog, Settings.load({}, data=folder), catalog.now)
    await accounts.create_user("alice", PASSWORD, admin=True)
    await accounts.close()
    await catalog.close()


def _ask(
    server: Server, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[Message, bytes]:
    request = urllib.request.Request(server.url + path, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers, answer.read()


def _told(server: Server) -> float:
    """A server's clock, by its log."""
    stamps: list[str] = []
    while not stamps:
        _ask(server, "GET", "/api/version")
        stamps = re.findall(r"^(\d{4}-\S+Z)", server.log.read_text(), re.MULTILINE)
    return datetime.fromisoformat(stamps[-1]).timestamp()
