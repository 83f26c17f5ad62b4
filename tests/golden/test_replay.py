"""The recorded answers of the real Ollama server, replayed against ours."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.balancer import balanced
from tests.support.postgres import PostgresServer
from tests.support.s3 import S3Server
from tests.support.server import running

HERE = Path(__file__).parent


def replay(url: str, *flags: str) -> str:
    """Run the replay program; fail with the differences it prints."""
    line = [sys.executable, str(HERE / "replay.py"), url, *flags]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_recorded_answer_is_ours_too(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        summary = replay(server.url, "--wire")
    assert summary.endswith(" 0 failed")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_answers_do_not_depend_on_the_order_of_requests(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        summary = replay(server.url, "--shuffle", "7")
    assert summary.endswith(" 0 failed")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_replicas_on_postgres_answer_as_one(tmp_path: Path, postgres: PostgresServer) -> None:
    data = tmp_path / "data"
    with (
        postgres.database() as url,
        running(data, REGISTRY_DATABASE_URL=url) as one,
        running(data, REGISTRY_DATABASE_URL=url) as other,
        balanced([one.port, other.port]) as port,
    ):
        summary = replay(f"http://127.0.0.1:{port}", "--wire")
    assert summary.endswith(" 0 failed")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_replicas_on_postgres_and_an_object_store_answer_as_one(
    tmp_path: Path, postgres: PostgresServer, s3: S3Server
) -> None:
    with postgres.database() as url:
        environ = {"REGISTRY_DATABASE_URL": url, **s3.environ()}
        with (
            running(tmp_path / "one", **environ) as one,
            running(tmp_path / "other", **environ) as other,
            balanced([one.port, other.port]) as port,
        ):
            summary = replay(f"http://127.0.0.1:{port}", "--wire")
    assert summary.endswith(" 0 failed")


@pytest.mark.slow
@pytest.mark.engine
def test_models_run_as_recorded(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        summary = replay(server.url, "--inference", "--group", "inference")
    assert summary.endswith(" 0 failed")
