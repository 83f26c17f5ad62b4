"""`registry jobs`: long work that is under way or was: pulls, conversions and the like.

The commands work on the database of `--data`, so that they see the jobs of every server on it.
"""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli.admin import Data, Json, administer, moment_of, show
from registry.cli.client import Report
from registry.cli.render import Board, remark, size_text

if TYPE_CHECKING:
    from registry.cli.administration import Administration
    from registry.ports.jobs import Job

_LOOK_S = 0.5
_LIMIT = 100

jobs = typer.Typer(
    name="jobs", help="Long work: what is under way, and what was.", invoke_without_command=True
)
JobId = Annotated[str, typer.Argument(metavar="ID", help="As `registry jobs` shows it.")]


@jobs.callback()
def list_jobs(context: typer.Context, data: Data = None, as_json: Json = False) -> None:
    """List jobs, newest first; those that are over are kept for a day."""
    if context.invoked_subcommand is None:
        found = administer(data, lambda place: place.jobs.jobs(_LIMIT))
        show([_row(job) for job in found], as_json)


def _row(job: "Job") -> dict[str, Any]:
    percent = f"{100 * job.done // job.total}%" if job.total else None
    return {
        "id": job.id,
        "kind": job.kind,
        "model": job.model,
        "state": job.state,
        "done": percent,
        "size": size_text(job.total) if job.total else None,
        "account": job.subject or None,
        "created": moment_of(job.created_at),
        "what": job.error or job.title,
    }


@jobs.command()
def watch(
    job_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", show_default="all under way")
    ] = None,
    data: Data = None,
) -> None:
    """Show how far jobs are, until they are over. Fails if one of them does."""
    ended = administer(data, lambda place: _watched(place, job_ids))
    bad = [job for job in ended if job.state != "done"]
    for job in bad:
        remark(f"{job.id} {job.state}: {job.error}")
    raise typer.Exit(1 if bad else 0)


async def _watched(place: "Administration", job_ids: list[str] | None) -> list["Job"]:
    """Draw jobs until all are over; as they were at the end."""
    if not job_ids:
        under_way = await place.jobs.jobs(_LIMIT)
        job_ids = [job.id for job in under_way if not job.finished_at]
    with Board() as board:
        while True:
            found = [await place.jobs.job(job_id) for job_id in job_ids]
            for job in found:
                text = f"{job.kind} {job.model}".rstrip()
                board.show(Report(text, job.id, job.total, job.done))
            if all(job.finished_at for job in found):
                return found
            await asyncio.sleep(_LOOK_S)


@jobs.command()
def cancel(job_id: JobId, data: Data = None) -> None:
    """End a job, whoever waits for it. A pull keeps what it has for the next."""
    deed = ("job.cancel", job_id)
    job = administer(data, lambda place: place.jobs.cancel(job_id, "an administrator"), deed)
    remark(f"{job.kind} {job.model} is {job.state}.")
