"""`registry jobs`: listing, watching, cancelling, on the database that servers share."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from registry.ports.jobs import Asker, Job
from tests.support.backends import BACKENDS
from tests.unit.cli.test_admin import data, listed, run

__all__ = ["data"]

JOB = Job(
    id="0123456789abcdef",
    kind="pull",
    key="pull a",
    title="sha256:ab",
    model="team/llama:8b",
    subject="ann",
    created_at=1_760_000_000 * 10**9,
    state="running",
    owner="p",
    done=25 << 20,
    total=100 << 20,
)
OVER = replace(JOB, id="1" * 16, state="done", finished_at=9)


def put(data: Path, *jobs: Job) -> None:
    async def fill() -> None:
        catalog = BACKENDS.catalog(data)
        for job in jobs:
            await catalog.write(lambda tx, j=job: tx.put_job(j))  # type: ignore[misc]
        await catalog.write(lambda tx: tx.put_asker(Asker(jobs[0].id, "h", "p", "ann")))
        await catalog.close()

    asyncio.run(fill())


@pytest.fixture(autouse=True)
def library(data: Path) -> None:
    run("user add alice --no-password")


def test_jobs_are_listed_with_how_far_they_are(data: Path) -> None:
    put(data, JOB, OVER)
    assert [row["id"] for row in listed("jobs")] == [OVER.id, JOB.id]
    row = listed("jobs")[1]
    shown = {key: row[key] for key in ("kind", "model", "state", "done", "size", "account", "what")}
    assert shown == {
        "kind": "pull",
        "model": "team/llama:8b",
        "state": "running",
        "done": "25%",
        "size": "104 MB",
        "account": "ann",
        "what": "sha256:ab",
    }


def test_nothing_is_listed_where_there_is_nothing() -> None:
    said = run("jobs")
    assert (said.exit_code, said.stdout) == (0, "")


@pytest.mark.parametrize(
    ("job", "code", "told"),
    [
        (OVER, 0, "pull team/llama:8b  104 MB"),
        (replace(OVER, state="failed", error="no space left"), 1, "failed: no space left"),
    ],
)
def test_watching_ends_with_the_job(data: Path, job: Job, code: int, told: str) -> None:
    put(data, job)
    said = run(f"jobs watch {job.id}")
    assert said.exit_code == code
    assert told in said.stderr


def test_watching_nothing_ends_at_once(data: Path) -> None:
    put(data, OVER)
    assert run("jobs watch").exit_code == 0
    assert "there is no such job" in run("jobs watch 2222222222222222").stderr


def test_a_job_is_cancelled_once(data: Path) -> None:
    put(data, JOB)
    said = run(f"jobs cancel {JOB.id}")
    assert said.stderr == "pull team/llama:8b is cancelled.\n"
    assert listed("jobs")[0]["what"] == "cancelled by an administrator"
    again = run(f"jobs cancel {JOB.id}")
    assert (again.exit_code, "the job is over" in again.stderr) == (1, True)
    assert listed("audit")[0]["action"] == "job.cancel"
