"""Jobs for people: who may see and cancel which; and the rows that nobody tends any more."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from registry.core.errors import Conflict, NotFound, RegistryError
from registry.ports.catalog import Transaction
from registry.ports.jobs import Asker, Job
from registry.services.sharing.sharing import CANCELLED, LOST, Sharing

KEPT_NS = 86_400 * 10**9
"""So long a job that is over can be looked at."""


class JobDesk:
    """The use case, over the work that processes share."""

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing
        self._catalog = sharing.catalog

    async def jobs(self, limit: int, subject: str | None = None) -> list[Job]:
        """The newest jobs; with `subject`, those that concern that account."""
        found = await self._catalog.scan(lambda tx: tx.jobs(limit, subject))
        return [self._fresh(job) for job in found]

    async def job(self, job_id: str, subject: str | None = None) -> Job:
        """One job, if it concerns the account.

        Raises:
            NotFound: there is none.
        """
        job, askers = await self._catalog.read(lambda tx: (tx.job(job_id), tx.askers(job_id)))
        if job is None or not _concerns(job, askers, subject):
            raise NotFound("there is no such job")
        return self._fresh(job)

    def _fresh(self, job: Job) -> Job:
        """With the progress of this moment, if the work is done here."""
        errand = self._sharing.errand(job)
        if errand is None or job.finished_at:
            return job
        now = errand.effort.look()
        return replace(job, done=now.done, total=now.total, note=now.note)

    async def cancel(self, job_id: str, by: str, subject: str | None = None) -> Job:
        """Let those wait no longer who are of the account, or nobody; the work ends with the last.

        Raises:
            NotFound: no such job concerns the account.
            Conflict: it is over.
        """

        def work(tx: Transaction) -> Job:
            job, askers = tx.job(job_id), tx.askers(job_id)
            if job is None or not _concerns(job, askers, subject):
                raise NotFound("there is no such job")
            if job.finished_at:
                raise Conflict(f"the job is over: {job.state}")
            gone = [a.holder for a in askers if subject is None or a.subject == subject]
            self._sharing.drop(tx, job_id, gone, f"cancelled by {by}" if by else CANCELLED)
            return tx.job(job_id) or job

        job = await self._catalog.write(work)
        await self._sharing.beat()
        return job

    async def trim(self) -> None:
        """Forget jobs that have long been over."""
        before = self._sharing.clock() - KEPT_NS
        await self._catalog.write(lambda tx: tx.trim_jobs(before))

    async def watch(self) -> None:
        """Close jobs that nobody tends any more; until cancelled."""
        while True:
            try:
                await self._look()
            except RegistryError:
                self._sharing.pulses.forget()
            await asyncio.sleep(self._sharing.pace.dead_s / 4)

    async def _look(self) -> None:
        """Watch all other processes, so that who is dead is known when somebody asks."""
        jobs = await self._catalog.read(lambda tx: tx.jobs_under_way())
        for job in jobs:
            if self._sharing.errand(job) is None:
                is_late = self._sharing.age_s(job) >= self._sharing.pace.closed_s
                if is_late or self._sharing.is_gone(job):
                    await self._catalog.write(partial(self._close_lost, job, is_late))

    def _close_lost(self, job: Job, is_late: bool, tx: Transaction) -> None:
        """Close a job; while that is early, only one that no other process waits for."""
        now = tx.job(job.id)
        is_awaited = any(asker.process != job.owner for asker in tx.askers(job.id))
        if is_awaited and not is_late:
            return
        if now is not None and not now.finished_at and now.beat == job.beat:
            tx.put_job(replace(now, state="failed", error=LOST, finished_at=self._sharing.clock()))


def _concerns(job: Job, askers: Sequence[Asker], subject: str | None) -> bool:
    return subject is None or subject in {job.subject, *(asker.subject for asker in askers)}
