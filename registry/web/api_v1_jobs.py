"""`/api/v1/jobs`: long work, for those whom it concerns; administrators see all."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from registry.core.access import Caller, Group
from registry.ports import jobs as kept
from registry.services.sharing.job_desk import JobDesk
from registry.web import auth
from registry.web.api_v1_schemas import Answer, Ask
from registry.web.endpoints import Call, Endpoint, For


class Job(Answer):
    """A piece of work. Everybody who asks for the same waits for the same job."""

    id: str
    kind: str = Field(description="pull, quantize, convert and the like")
    title: str
    model: str = Field(description="for which it was begun; empty if for none")
    account: str = Field(description="who began it; empty without authentication")
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    completed: int = Field(description="bytes")
    total: int = Field(description="bytes; 0 until that is known")
    created: datetime
    finished: datetime | None
    error: str | None


class Jobs(Answer):
    """Jobs, newest first; those that are over are kept for a day."""

    jobs: list[Job]


class JobPage(Ask):
    """How many."""

    limit: int = Field(100, ge=1, le=1000)


def _desk(call: Call) -> JobDesk:
    found: JobDesk = call.request.app.state.services.job_desk
    return found


def _whose(caller: Caller) -> str | None:
    """The account whose jobs the caller may see; None: everybody's."""
    return None if caller.is_admin else caller.name


async def jobs(call: Call) -> Jobs:
    """Jobs that the caller began or waits for; an administrator gets everybody's."""
    found = await _desk(call).jobs(call.wanted(JobPage).limit, _whose(call.caller))
    return Jobs(jobs=[_job(job) for job in found])


async def job(call: Call) -> Job:
    """One job, how far it is and what became of it."""
    return _job(await _desk(call).job(call.path["job"], _whose(call.caller)))


async def cancel(call: Call) -> Job:
    """Stop waiting for a job. The work ends unless others wait for it; administrators end it."""
    await auth.require(call.request, Group.WRITE)
    call.note("job.cancel", call.path["job"])
    whose = _whose(call.caller)
    return _job(await _desk(call).cancel(call.path["job"], call.caller.name, whose))


def _job(row: kept.Job) -> Job:
    return Job(
        id=row.id,
        kind=row.kind,
        title=row.title,
        model=row.model,
        account=row.subject,
        state=row.state,
        completed=row.done,
        total=row.total,
        created=_moment(row.created_at),
        finished=_moment(row.finished_at) if row.finished_at else None,
        error=row.error or None,
    )


def _moment(ns: int) -> datetime:
    return datetime.fromtimestamp(ns // 10**9, UTC)


_JOBS = "/api/v1/jobs"
ENDPOINTS = (
    Endpoint("GET", _JOBS, jobs, For.SIGNED_IN, Jobs, query=JobPage),
    Endpoint("GET", f"{_JOBS}/{{job}}", job, For.SIGNED_IN, Job),
    Endpoint("DELETE", f"{_JOBS}/{{job}}", cancel, For.SIGNED_IN, Job, errors=(403, 409)),
)
