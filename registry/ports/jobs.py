"""Long work as the catalog knows it: what is under way, who does it, who waits for it.

Equal work has equal keys, and of each key one job is under way. `JobReader` and `JobWriter` are
mixed into `Reader` and `Transaction`. Times are integer nanoseconds since the epoch.

Whether a process lives is told by `beat`, a count that it moves on: the clocks of two machines need
not agree.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

State = Literal["queued", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work. `owner` is the process that does it, empty if it was let go of.

    `title` says to people what it is, `model` and `subject` for which model and account it was
    begun. `done` and `total` are bytes. `finished_at` is 0 while it is under way. `result` and
    `error` are for those who wait; `error` may be shown to people.
    """

    id: str
    kind: str
    key: str
    title: str
    model: str
    subject: str
    created_at: int
    state: State = "queued"
    owner: str = ""
    beat: int = 0
    done: int = 0
    total: int = 0
    note: str = ""
    finished_at: int = 0
    result: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Asker:
    """Somebody who waits for a job, in which process, and for which model."""

    job_id: str
    holder: str
    process: str
    subject: str = ""
    model: str = ""
    beat: int = 0


class JobReader(Protocol):
    """What a read function may ask."""

    def job(self, job_id: str) -> Job | None:
        """A job, finished or not."""

    def job_under_way(self, key: str) -> Job | None:
        """The job of that key that is not finished."""

    def last_job(self, key: str) -> Job | None:
        """The newest job of that key, finished or not."""

    def jobs_under_way(self) -> list[Job]:
        """Those that are not finished, oldest first."""

    def jobs(self, limit: int, subject: str | None = None) -> list[Job]:
        """The newest jobs, newest first; with `subject`, those it began or waits for."""

    def askers(self, job_id: str) -> list[Asker]:
        """Who waits for a job."""

    def asking_from(self, process: str) -> list[Asker]:
        """Who waits in a process."""


class JobWriter(Protocol):
    """What a write function may do besides."""

    def put_job(self, job: Job) -> None:
        """Add a job or overwrite its row; whoever listens learns of it (`Catalog.job_change`)."""

    def put_asker(self, asker: Asker) -> None:
        """Add somebody who waits."""

    def drop_asker(self, job_id: str, holder: str) -> None:
        """Somebody waits no longer."""

    def beat_askers(self, process: str) -> None:
        """Those who wait in a process are still there."""

    def trim_jobs(self, before: int) -> int:
        """Forget jobs that finished before; how many it were."""
