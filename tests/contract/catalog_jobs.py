"""What every catalog does with jobs and those who wait for them."""

import asyncio
import time
from dataclasses import replace

import pytest

from registry.core.errors import RegistryError
from registry.ports.catalog import Catalog
from registry.ports.jobs import Asker, Job

JOB = Job(
    id="j1",
    kind="pull",
    key="pull sha256:ab",
    title="ab",
    model="team/llama:8b",
    subject="ann",
    created_at=1,
    state="running",
    owner="p1",
    beat=3,
    done=1 << 40,
    total=1 << 41,
    note="F16",
    result="{}",
    error="no",
)
OTHER = replace(JOB, id="j2", key="other", subject="bob", created_at=2)


class JobsContract:
    async def test_a_job_comes_back_as_it_was_put(self, catalog: Catalog) -> None:
        await catalog.write(lambda tx: tx.put_job(replace(JOB, state="queued", done=0)))
        await catalog.write(lambda tx: tx.put_job(JOB))
        assert await catalog.read(lambda tx: tx.job("j1")) == JOB
        assert await catalog.read(lambda tx: tx.job("j2")) is None

    async def test_of_equal_work_one_job_is_under_way(self, catalog: Catalog) -> None:
        await catalog.write(lambda tx: tx.put_job(JOB))
        rival = replace(JOB, id="j2")
        with pytest.raises(RegistryError):
            await catalog.write(lambda tx: tx.put_job(rival))
        ended = replace(JOB, state="done", finished_at=9)
        await catalog.write(lambda tx: tx.put_job(ended))
        await catalog.write(lambda tx: tx.put_job(rival))
        assert await catalog.read(lambda tx: tx.jobs_under_way()) == [rival]
        assert await catalog.read(lambda tx: tx.job_under_way(JOB.key)) == rival
        assert await catalog.read(lambda tx: tx.job_under_way("none")) is None
        later = replace(rival, id="j0", created_at=3, state="done", finished_at=4)
        await catalog.write(lambda tx: tx.put_job(later))
        assert await catalog.read(lambda tx: tx.last_job(JOB.key)) == later
        assert await catalog.read(lambda tx: tx.last_job("none")) is None

    async def test_jobs_are_listed_newest_first_to_those_they_concern(
        self, catalog: Catalog
    ) -> None:
        await catalog.write(lambda tx: tx.put_job(JOB))
        await catalog.write(lambda tx: tx.put_job(OTHER))
        await catalog.write(lambda tx: tx.put_asker(Asker("j2", "h", "p", "ann")))
        listed = await catalog.read(
            lambda tx: [
                tx.jobs(9),
                tx.jobs(1),
                tx.jobs(9, "ann"),
                tx.jobs(9, "bob"),
                tx.jobs(9, ""),
            ]
        )
        assert listed == [[OTHER, JOB], [OTHER], [OTHER, JOB], [OTHER], []]

    async def test_those_who_wait_come_beat_and_go(self, catalog: Catalog) -> None:
        await catalog.write(lambda tx: tx.put_job(JOB))
        here = Asker("j1", "a", "p1", "ann", "m")
        there = Asker("j1", "b", "p2")
        for asker in (here, there):
            await catalog.write(lambda tx, a=asker: tx.put_asker(a))  # type: ignore[misc]
        await catalog.write(lambda tx: tx.beat_askers("p1"))
        beaten = replace(here, beat=1)
        assert await catalog.read(lambda tx: tx.askers("j1")) == [beaten, there]
        assert await catalog.read(lambda tx: tx.asking_from("p1")) == [beaten]
        await catalog.write(lambda tx: tx.drop_asker("j1", "b"))
        assert await catalog.read(lambda tx: tx.askers("j1")) == [beaten]

    async def test_old_jobs_are_forgotten_once_they_are_finished(self, catalog: Catalog) -> None:
        await catalog.write(lambda tx: tx.put_job(JOB))
        await catalog.write(lambda tx: tx.put_job(replace(OTHER, finished_at=5)))
        await catalog.write(lambda tx: tx.put_asker(Asker("j2", "a", "p1")))
        assert await catalog.write(lambda tx: tx.trim_jobs(5)) == 0
        assert await catalog.write(lambda tx: tx.trim_jobs(6)) == 1
        assert await catalog.read(lambda tx: tx.jobs(9)) == [JOB]
        assert await catalog.read(lambda tx: tx.asking_from("p1")) == []

    async def test_who_waits_for_a_change_of_jobs_is_woken_by_it(self, catalog: Catalog) -> None:
        await catalog.job_change(0.01)  # Postgres is listened to from here on
        await asyncio.sleep(0.3)
        began = time.monotonic()
        waiting = asyncio.create_task(catalog.job_change(20))
        await asyncio.sleep(0.05)
        await catalog.write(lambda tx: tx.put_job(JOB))
        await waiting
        assert time.monotonic() - began < 10

    async def test_without_a_change_the_wait_ends_all_the_same(self, catalog: Catalog) -> None:
        began = time.monotonic()
        await catalog.job_change(0.2)
        await catalog.job_change(0.2)
        assert 0.1 < time.monotonic() - began < 5
