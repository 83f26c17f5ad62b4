"""Fixtures that every test may use, and what is skipped where."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.workers.engine import find_engine
from tests.support import postgres as servers
from tests.support import s3 as s3_servers
from tests.support.backends import BACKENDS, CHOSEN
from tests.support.postgres import PostgresServer
from tests.support.reach import reaches_backends
from tests.support.s3 import S3Server
from tests.support.syncs import Syncs


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio: the server's own loop."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A Postgres server of the session's own."""
    tools = servers.binaries()
    if tools is None:
        pytest.skip("Postgres is not installed here")
    with servers.running(tools) as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 server of the session's own."""
    program = s3_servers.binary()
    if program is None:
        pytest.skip("versitygw, the S3 server of the tests, is not installed here")
    with s3_servers.running(program) as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def _backends() -> Iterator[None]:
    """What tests run on: see `tests/support/backends.py`."""
    BACKENDS.start()
    yield
    BACKENDS.stop()


@pytest.fixture(autouse=True)
def _released(request: pytest.FixtureRequest) -> Iterator[None]:
    """Gives back what a test had of the backends, after all that it had open is closed."""
    below: Path | None = request.getfixturevalue("tmp_path") if CHOSEN else None
    yield
    if below is not None:
        BACKENDS.release(below)


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    """Records what is synced from here on."""
    return Syncs(monkeypatch)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of the real engine need it; on other backends only those run that have one."""
    engine = find_engine("xllamacpp")
    absent = {"engine": engine.problem} if engine.problem else {}
    alone = {"folder": "s3", "sqlite": "postgres"}
    absent |= {mark: f"of a {mark} alone" for mark, other in alone.items() if other in CHOSEN}
    for item in items:
        for mark, why in absent.items():
            if found := item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=next(iter(found.args), why)))
    if CHOSEN:
        again = [item for item in items if _runs_again(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(again)])
        items[:] = again


def _runs_again(item: pytest.Item) -> bool:
    """Whether a test is another one on the chosen backends: it has some and does not say which."""
    assert isinstance(item, pytest.Function)
    return reaches_backends(item.path) and not {"postgres", "s3"} & set(item.fixturenames)
