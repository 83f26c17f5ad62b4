"""Sharing: of equal work one piece is done, in one of all processes, for everybody who asks.

A piece of work is a row (`ports/jobs.py`), and a task in the process that owns it. Everybody who
waits for it is a row too, so that it is decided in one transaction who was the last to leave: the
work is cancelled then. An owner that shows no sign of life loses the work to a process that waits
for it; if nobody does, the row is closed. Results are named by their content, so that an owner that
only seemed dead does no harm: the same comes out twice.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Literal

from anyio import CancelScope

from registry.core import errors
from registry.core.errors import OperationFailed, RegistryError, Unavailable
from registry.core.pulse import Pulses
from registry.ports.catalog import Catalog, Transaction
from registry.ports.jobs import Asker, Job, State
from registry.services.sharing.efforts import (
    PACE,
    STOPPED,
    Asking,
    Effort,
    Errand,
    Pace,
    Process,
    Progress,
    What,
    Work,
)

_KINDS: dict[str, type[RegistryError]] = {
    kind.__name__: kind
    for kind in (
        errors.CheckpointInvalid,
        errors.RequestInvalid,
        errors.StorageFull,
        errors.TooLarge,
        errors.Unavailable,
        errors.Unsupported,
        errors.UpstreamFailed,
    )
}
_FOLLOW_S = 0.5
_LEASE_NS = 86_400 * 10**9
_ABANDONED = "nobody waited for it any longer"
CANCELLED = "the job was cancelled"
LOST = "the server that did this went away; ask again"


class Share:
    """A job as one who waits for it sees it."""

    def __init__(self, sharing: "Sharing", job: Job, asking: Asking, work: Work) -> None:
        self._sharing = sharing
        self._work = work
        self._done = 0
        self._refusal: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.mine = False
        """Whether the work that was done last is what this asker brought."""
        self.job = job
        self.asking = asking

    @property
    def progress(self) -> Progress:
        """How far it is; never less than it said before."""
        errand = self._sharing.errand(self.job)
        if errand is not None:
            now = errand.effort.look()
        else:
            job = self.job
            now = Progress(job.done, job.total, job.note, job.state == "queued")
        self._done = max(self._done, now.done)
        return replace(now, done=self._done)

    def begin(self) -> None:
        """Let the work of this asker be done here."""
        self._sharing.begin(self.job, self._work)

    def refuse(self, reason: str) -> None:
        """Let it wait no longer."""
        if not self._refusal.done():
            self._refusal.set_result(reason)

    async def wait(self, timeout_s: float) -> str | None:
        """Wait a while for the result.

        Raises:
            RegistryError: it will not come, and why.
        """
        errand = self._sharing.errand(self.job)
        self.mine = errand is not None and errand.work is self._work
        if errand is None:
            found = await self._follow()
        else:
            both = {errand.task, self._refusal}
            await asyncio.wait(both, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            found = errand.outcome() if errand.task.done() else None
        if found is None and self._refusal.done():
            raise OperationFailed(self._refusal.result())
        return found

    async def _follow(self) -> str | None:
        """Look at what another process does; take it over if that process is dead."""
        catalog = self._sharing.catalog
        try:
            await catalog.job_change(_FOLLOW_S)
            job = await catalog.read(lambda tx: tx.job(self.job.id))
            if job is None:
                raise OperationFailed(LOST)
            self.job = job
            if not job.finished_at:
                await self._sharing.take_over(self)
        except Unavailable:  # the owner cannot give a sign of life either
            self._sharing.pulses.forget()
            await asyncio.sleep(_FOLLOW_S)
            return None
        if job.state == "failed":
            raise _KINDS.get(job.result, OperationFailed)(job.error)
        if job.state == "cancelled":
            raise OperationFailed(job.error)
        return job.result if job.state == "done" else None


class Sharing:
    """The work of this process, and its view of that of others. `clock` gives nanoseconds."""

    def __init__(
        self,
        catalog: Catalog,
        clock: Callable[[], int] = time.time_ns,
        pace: Pace = PACE,
        process: Process | None = None,
    ) -> None:
        self.catalog = catalog
        self.clock = clock
        found = process or Process()
        self.process = found.name
        self._is_gone = found.is_gone
        self.pulses = Pulses()
        self.pace = pace
        self._errands: dict[str, Errand] = {}  # by key
        self._shares: set[Share] = set()
        self._owed: set[tuple[str, str]] = set()
        """Who has left, and the database could not be told."""
        self._keeper: asyncio.Task[None] | None = None

    def errand(self, job: Job) -> Errand | None:
        """The work of a job, if it is done here."""
        errand = self._errands.get(job.key)
        return errand if errand is not None and errand.effort.job_id == job.id else None

    @asynccontextmanager
    async def join(self, what: What, asking: Asking, work: Work) -> AsyncIterator[Share]:
        """Wait with others for a piece of work, or begin it. Leaving the block leaves it."""
        entering = asyncio.ensure_future(self._enter(what, asking, work))
        try:
            share = await asyncio.shield(entering)
        except asyncio.CancelledError:
            with CancelScope(shield=True):
                with suppress(RegistryError):
                    await self._leave(await entering)
            raise
        try:
            yield share
        finally:
            with CancelScope(shield=True):
                await self._leave(share)

    async def _enter(self, what: What, asking: Asking, work: Work) -> Share:
        fresh = Job(
            secrets.token_hex(8),
            what.kind,
            what.key,
            what.title,
            asking.model,
            asking.subject,
            self.clock(),
            "running",
            self.process,
        )

        def enter(tx: Transaction) -> Job:
            if asking.needs:
                tx.lease(asking.needs, asking.holder, self.clock() + _LEASE_NS)
            job = tx.job_under_way(what.key)
            if job is None:
                job = fresh
                tx.put_job(job)
            asker = Asker(job.id, asking.holder, self.process, asking.subject, asking.model)
            tx.put_asker(asker)
            return job

        job = await self.catalog.write(enter)
        share = Share(self, job, asking, work)
        self._shares.add(share)
        if job is fresh:
            share.begin()
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep())
        return share

    def begin(self, job: Job, work: Work) -> None:
        """Do a job here."""
        before = self._errands.get(job.key)
        if before is not None:
            before.cancel()  # its own job is over
        errand = Errand(Effort(job.id, self.process, self.clock, note=job.note), work)
        self._errands[job.key] = errand
        errand.begin(self._run(errand, before))

    async def _run(self, errand: Errand, before: Errand | None) -> str:
        if before is not None:  # stopped, and putting away what it has
            await asyncio.wait({before.task})
        try:
            result = await errand.work(errand.effort)
        except RegistryError as error:
            await self._close(errand, "failed", type(error).__name__, str(error))
            raise
        if errand.effort.concluded:
            errand.closed = True
        else:
            await self._close(errand, "done", result)
        return result

    async def _close(
        self, errand: Errand, state: Literal["done", "failed"], result: str, error: str = ""
    ) -> None:
        with suppress(RegistryError):  # the row is closed by whoever sees that nobody tends it
            await self.catalog.write(lambda tx: errand.effort.close(tx, state, result, error))
            errand.closed = True

    async def _leave(self, share: Share) -> None:
        """One waits no longer; what the last of all has left is stopped."""
        self._shares.discard(share)
        errand = self.errand(share.job)
        if errand is None or not errand.closed:
            is_over = await self._tell(share)
            if errand is not None and is_over:
                await errand.stop(_ABANDONED)
        self._tidy()

    async def _tell(self, share: Share) -> bool:
        """Note that one has left; whether nobody is left."""
        job_id, holder = share.job.id, share.asking.holder
        try:
            return await self.catalog.write(lambda tx: self.drop(tx, job_id, {holder}))
        except RegistryError:
            self._owed.add((job_id, holder))
            return all(other.job.id != job_id for other in self._shares)

    def drop(
        self, tx: Transaction, job_id: str, holders: Collection[str], reason: str = _ABANDONED
    ) -> bool:
        """Let some wait no longer; whether that ended the job, or it had ended."""
        for holder in holders:
            tx.drop_asker(job_id, holder)
        job = tx.job(job_id)
        if job is None or job.finished_at:
            return True
        if tx.askers(job_id):
            return False
        tx.put_job(replace(job, state="cancelled", error=reason, finished_at=self.clock()))
        return True

    def _tidy(self) -> None:
        """Forget work that is over, once nobody here waits for it."""
        wanted = {share.job.key for share in self._shares}
        for key, errand in list(self._errands.items()):
            if errand.task.done() and key not in wanted:
                del self._errands[key]

    # signs of life

    async def _keep(self) -> None:
        """Tell of what is done and waited for here, while anything is."""
        while self._errands or self._shares or self._owed:
            await asyncio.sleep(self.pace.beat_s)
            self._tidy()
            try:
                await self.beat()
            except RegistryError:
                self.pulses.forget()  # the others could not tell either
        self.pulses.forget()

    async def beat(self) -> None:
        """Give a sign of life, and see what others decided."""
        shares, owed = list(self._shares), set(self._owed)
        running = [errand for errand in self._errands.values() if not errand.task.done()]
        told = [(errand, errand.effort.look()) for errand in running]

        def work(tx: Transaction) -> tuple[list[tuple[Errand, Job | None]], list[Share]]:
            for job_id, holder in owed:
                self.drop(tx, job_id, {holder})
            tx.beat_askers(self.process)
            found = [(errand, self._advance(tx, errand, now)) for errand, now in told]
            waiting = {(asker.job_id, asker.holder) for asker in tx.asking_from(self.process)}
            gone = [s for s in shares if (s.job.id, s.asking.holder) not in waiting]
            return found, [share for share in gone if _is_cancelled(tx.job(share.job.id))]

        found, gone = await self.catalog.write(work)
        self._owed -= owed
        for errand, job in found:
            if job is not None and (job.owner != self.process or job.state == "cancelled"):
                await self._let_go(errand, job)
        for share in gone:
            share.refuse(CANCELLED)

    def _advance(self, tx: Transaction, errand: Errand, now: Progress) -> Job | None:
        """Move a job's count on; those who wait for it elsewhere and died are left out."""
        job = tx.job(errand.effort.job_id)
        if job is None or job.finished_at or job.owner != self.process:
            return job
        state: State = "queued" if now.queued else "running"
        now_s = time.monotonic()
        moved = replace(job, beat=job.beat + 1, state=state, done=now.done, total=now.total)
        tx.put_job(replace(moved, note=now.note))
        dead = {
            asker.holder
            for asker in tx.askers(job.id)
            if asker.process != self.process
            and self.pulses.age_s((job.id, asker.holder), asker.beat, now_s) >= self.pace.dead_s
        }
        if dead:
            self.drop(tx, job.id, dead)
        return tx.job(job.id)

    async def _let_go(self, errand: Errand, job: Job) -> None:
        """Stop work that was cancelled, or that another process has taken over."""
        if errand.task.done():
            return
        errand.lost = job.owner != self.process  # to one that may have finished it by now
        await errand.stop(job.error)
        if errand.lost and self._errands.get(job.key) is errand:
            del self._errands[job.key]

    # work of other processes

    def age_s(self, job: Job) -> float:
        """For how long the owner of a job gave no sign of life."""
        return self.pulses.age_s(job.id, (job.owner, job.beat), time.monotonic())

    def is_gone(self, job: Job) -> bool:
        """Whether its owner is known to have ended."""
        return job.owner != self.process and self._is_gone(job.owner)

    async def take_over(self, share: Share) -> None:
        """Do another process's job here if that is dead, or has let go of it."""
        job = share.job
        if job.owner and not self.is_gone(job) and self.age_s(job) < self.pace.dead_s:
            return

        def work(tx: Transaction) -> Job | None:
            now = tx.job(job.id)
            if now is None or now.finished_at or (now.owner, now.beat) != (job.owner, job.beat):
                return None  # it lives, or another was first
            now = replace(now, owner=self.process, beat=now.beat + 1)
            tx.put_job(now)
            return now

        taken = await self.catalog.write(work)
        if taken is not None:
            share.job = taken
            share.begin()

    async def close(self) -> None:
        """Stop everything; what is waited for elsewhere may be gone on with there at once."""
        if self._keeper is not None:
            self._keeper.cancel()
        errands = list(self._errands.values())
        for errand in errands:
            await errand.stop(STOPPED)

        def work(tx: Transaction) -> None:
            for asker in tx.asking_from(self.process):
                self.drop(tx, asker.job_id, {asker.holder}, STOPPED)
            for errand in errands:
                job = tx.job(errand.effort.job_id)
                if job is not None and not job.finished_at and job.owner == self.process:
                    tx.put_job(replace(job, owner="", beat=job.beat + 1))

        with suppress(RegistryError):
            await self.catalog.write(work)


def _is_cancelled(job: Job | None) -> bool:
    """Whether one who waited for it and is not noted any more was told to go."""
    return job is None or not job.finished_at or job.state == "cancelled"
