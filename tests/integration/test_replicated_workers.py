"""Two replicas behind one address, one worker: both route to it, and one may be killed."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.integration.test_remote_worker import HELLO, LONG, Place, token, worker
from tests.support.balancer import balanced
from tests.support.postgres import PostgresServer
from tests.support.server import Server, start

pytestmark = pytest.mark.engine


@dataclass
class Pair:
    """Two servers over one folder and database, and their common address."""

    servers: list[Server]
    url: str
    database: str

    def seen_by(self, server: Server) -> list[str]:
        """Workers with something loaded, as that replica knows them."""
        models = httpx2.get(f"{server.url}/api/ps", timeout=20).json()["models"]
        return [item.get("worker", "local") for item in models]


@pytest.fixture
def pair(postgres: PostgresServer, tmp_path: Path) -> Iterator[Pair]:
    with postgres.database() as url:
        environ = {"REGISTRY_DATABASE_URL": url, "REGISTRY_WORKER__LOCAL": "off"}
        servers = [start(tmp_path / "library", None, **environ) for _ in range(2)]
        try:
            with balanced([server.port for server in servers]) as port:
                yield Pair(servers, f"http://127.0.0.1:{port}", url)
        finally:
            for server in servers:
                server.stop()


def eventually(what: str, condition: object, within_s: float = 20) -> None:
    assert callable(condition)
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.1)


@pytest.mark.timeout(240)
def test_both_replicas_route_to_a_worker_and_either_may_be_killed(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer
) -> None:
    first, second = pair.servers
    with (
        httpx2.Client(base_url=first.url, timeout=60) as one,
        httpx2.Client(base_url=second.url, timeout=60) as other,
    ):
        places = [Place(first, one), Place(second, other)]
        places[0].make("hello", HELLO)
        places[0].make("long", LONG)
        options = ("--token", _token(pair, monkeypatch), "--name", "one")
        with worker(first, tmp_path / "w", *options, url=pair.url) as linked:
            for place in places:  # fetched for the first who asks, by way of whom ever
                assert place.ask()["response"] == "".join(HELLO)
            assert [pair.seen_by(server) for server in pair.servers] == [["one"], ["one"]]
            results: Counter[str] = Counter()
            _many(pair, results, 40)
            assert results == {"".join(HELLO): 40}
            frames = places[1].stream()  # of the one that stays; perhaps it passes the other
            next(frames)
            first.kill()
            last = list(frames)[-1]
            assert last.get("done") or "error" in last
            for _ in range(10):
                assert places[1].ask()["response"] == "".join(HELLO)
            assert linked.process.poll() is None


def _token(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("REGISTRY_DATABASE_URL", pair.database)
    return token(pair.servers[0])


def _many(pair: Pair, results: Counter[str], count: int) -> None:
    """So many requests from eight at once, each to the replica that the balancer picks."""

    def ask() -> None:
        for _ in range(count // 8 + 1):
            body = {
                "model": "hello", "prompt": "hi\n", "raw": True, "stream": False,
                "options": {"temperature": 0},
            }  # fmt: skip
            with lock:
                if sum(results.values()) + len(out) >= count:
                    return
                out.append(1)
            answer = httpx2.post(f"{pair.url}/api/generate", json=body, timeout=30)
            with lock:
                out.pop()
                results[answer.json().get("response", answer.text)] += 1

    lock, out = threading.Lock(), list[int]()
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
