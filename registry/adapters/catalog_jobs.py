"""Long work and who waits for it: that part of the catalog's SQL."""

from dataclasses import asdict

from sqlalchemy import bindparam, delete, literal_column, or_, select, update

from registry.adapters import tables_jobs as t
from registry.adapters.catalog_transfers import _put
from registry.adapters.statements import Queries, Statement
from registry.ports.jobs import Asker, Job

JOB_CHANNEL = "registry_job"

_P = bindparam
_JOB = Statement(select(t.job).where(t.job.c.id == _P("id")))
_OF_KEY = Statement(
    select(t.job).where(t.job.c.key == _P("key"), t.job.c.finished_at == literal_column("0"))
)
_LAST = Statement(
    select(t.job)
    .where(t.job.c.key == _P("key"))
    .order_by(t.job.c.created_at.desc(), t.job.c.id.desc())
    .limit(1)
)
_UNDER_WAY = Statement(
    select(t.job)
    .where(t.job.c.finished_at == literal_column("0"))
    .order_by(t.job.c.created_at, t.job.c.id)
)
_NEWEST = select(t.job).order_by(t.job.c.created_at.desc(), t.job.c.id.desc()).limit(_P("count"))
_JOBS = Statement(_NEWEST)
_JOBS_OF = Statement(
    _NEWEST.where(
        or_(
            t.job.c.subject == _P("subject"),
            t.job.c.id.in_(
                select(t.job_asker.c.job_id).where(t.job_asker.c.subject == _P("asker"))
            ),
        )
    )
)
_ASKERS = Statement(
    select(t.job_asker).where(t.job_asker.c.job_id == _P("job_id")).order_by(t.job_asker.c.holder)
)
_ASKING_FROM = Statement(select(t.job_asker).where(t.job_asker.c.process == _P("process")))
_PUT_JOB = Statement(_put(t.job, "id"))
_PUT_ASKER = Statement(_put(t.job_asker, "job_id", "holder"))
_DROP_ASKER = Statement(
    delete(t.job_asker).where(
        t.job_asker.c.job_id == _P("job_id"), t.job_asker.c.holder == _P("holder")
    )
)
_BEAT_ASKERS = Statement(
    update(t.job_asker)
    .where(t.job_asker.c.process == _P("b_process"))
    .values(beat=t.job_asker.c.beat + 1)
)
_TRIM = Statement(delete(t.job).where(t.job.c.finished_at != 0, t.job.c.finished_at < _P("before")))


class JobQueries(Queries):
    """`JobReader` on a session."""

    def job(self, job_id: str) -> Job | None:
        """See `JobReader`."""
        row = self._sql.one(_JOB, id=job_id)
        return Job(*row) if row else None

    def job_under_way(self, key: str) -> Job | None:
        """See `JobReader`."""
        row = self._sql.one(_OF_KEY, key=key)
        return Job(*row) if row else None

    def last_job(self, key: str) -> Job | None:
        """See `JobReader`."""
        row = self._sql.one(_LAST, key=key)
        return Job(*row) if row else None

    def jobs_under_way(self) -> list[Job]:
        """See `JobReader`."""
        return [Job(*row) for row in self._sql.all(_UNDER_WAY)]

    def jobs(self, limit: int, subject: str | None = None) -> list[Job]:
        """See `JobReader`."""
        if subject is None:
            rows = self._sql.all(_JOBS, count=limit)
        else:
            rows = self._sql.all(_JOBS_OF, count=limit, subject=subject, asker=subject)
        return [Job(*row) for row in rows]

    def askers(self, job_id: str) -> list[Asker]:
        """See `JobReader`."""
        return [Asker(*row) for row in self._sql.all(_ASKERS, job_id=job_id)]

    def asking_from(self, process: str) -> list[Asker]:
        """See `JobReader`."""
        return [Asker(*row) for row in self._sql.all(_ASKING_FROM, process=process)]


class JobChanges(JobQueries):
    """The methods of `JobWriter`."""

    def put_job(self, job: Job) -> None:
        """See `JobWriter`."""
        self._sql.run(_PUT_JOB, **asdict(job))
        self._sql.notify(JOB_CHANNEL, job.id)

    def put_asker(self, asker: Asker) -> None:
        """See `JobWriter`."""
        self._sql.run(_PUT_ASKER, **asdict(asker))

    def drop_asker(self, job_id: str, holder: str) -> None:
        """See `JobWriter`."""
        self._sql.run(_DROP_ASKER, job_id=job_id, holder=holder)

    def beat_askers(self, process: str) -> None:
        """See `JobWriter`."""
        self._sql.run(_BEAT_ASKERS, b_process=process)

    def trim_jobs(self, before: int) -> int:
        """See `JobWriter`."""
        return self._sql.run(_TRIM, before=before)
