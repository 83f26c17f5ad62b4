"""Shared work: what it is, who asks for it, how it is done. See `sharing.py`."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from registry.core.digest import Digest
from registry.core.errors import OperationFailed
from registry.ports.catalog import Transaction

STOPPED = "the server that did this was stopped; ask again"


@dataclass(frozen=True, slots=True)
class Pace:
    """How often an owner gives a sign of life, and how long others wait for one, in seconds."""

    beat_s: float = 0.5
    dead_s: float = 8.0  # several beats, and a database that is busy for some seconds
    closed_s: float = 24.0  # nobody has taken the work over either


PACE = Pace()


@dataclass(frozen=True, slots=True)
class Process:
    """A process that shares work. `is_gone` tells of the names of others whether it is certain."""

    name: str = field(default_factory=lambda: secrets.token_hex(8))
    is_gone: Callable[[str], bool] = lambda name: False


@dataclass(frozen=True, slots=True)
class What:
    """A piece of work: equal work has equal keys. `title` tells people what it is."""

    kind: str
    key: str
    title: str


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks: `holder` gets leases on what comes out and on `needs`, the blobs that go in."""

    holder: str
    subject: str = ""
    model: str = ""
    needs: Sequence[Digest] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far work is, in bytes; `note` is the work's own. `queued`: other work comes first."""

    done: int = 0
    total: int = 0
    note: str = ""
    queued: bool = False


@dataclass(slots=True)
class Effort:
    """A job as the work itself sees it: where it tells how far it is, and that it is done."""

    job_id: str
    process: str
    clock: Callable[[], int]
    look: Callable[[], Progress] = Progress
    concluded: bool = False
    note: str = ""  # of the process that did it before, and died over it

    def conclude(self, tx: Transaction, result: str = "") -> list[str]:
        """Close the job in the transaction that makes its result visible.

        Returns the holders of those who wait, for their leases.
        """
        askers = tx.askers(self.job_id)
        self.close(tx, "done", result=result)
        self.concluded = True  # counts only if the work returns, and so was committed
        return [asker.holder for asker in askers]

    def close(
        self, tx: Transaction, state: Literal["done", "failed"], result: str = "", error: str = ""
    ) -> None:
        """Note what became of the job, if it is still this process's."""
        job = tx.job(self.job_id)
        if job is None or job.finished_at or job.owner != self.process:
            return
        now = self.look()
        tx.put_job(
            replace(
                job,
                state=state,
                result=result,
                error=error,
                done=now.total if state == "done" else now.done,
                total=now.total,
                note=now.note,
                finished_at=self.clock(),
            )
        )
        for asker in tx.askers(job.id):
            if asker.process == self.process:
                tx.drop_asker(job.id, asker.holder)


Work = Callable[[Effort], Awaitable[str]]
"""Does a job; what it returns is the result, for all who wait, unless it has concluded it."""


@dataclass(slots=True, eq=False)
class Errand:
    """A job that this process does."""

    effort: Effort
    work: Work
    task: "asyncio.Task[str]" = field(init=False)
    reason: str = ""  # why it was stopped
    lost: bool = False  # to another process
    closed: bool = False  # its row too, and nobody of this process waits for it there
    _cancelled: bool = False

    def begin(self, doing: Coroutine[Any, Any, str]) -> None:
        """Let it be done. Nobody may be left to hear how it ends: the row tells too."""
        self.task = asyncio.create_task(doing)
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())

    def outcome(self) -> str | None:
        """The result; None if another process does it now."""
        if not self.task.cancelled():
            return self.task.result()
        if self.lost:
            return None
        raise OperationFailed(self.reason or STOPPED)

    def cancel(self) -> None:
        """Let it stop. Once: a second time would break into what it does to put things away."""
        if not self._cancelled:
            self._cancelled = True
            self.task.cancel()

    async def stop(self, reason: str) -> None:
        """Stop it, and see it put away what it has."""
        self.reason = self.reason or reason
        self.cancel()
        await asyncio.wait({self.task})
        if not self.task.cancelled():
            self.task.exception()  # whoever waited was told; nobody is left to tell
