"""GET /metrics: what inference does and how the library stands, in the Prometheus text format.

With authentication on it is for administrators, of whose API key the group `read` is enough: the
names of models stand in it. Counters of inference are this process's own; what is told of the
library is read when it is asked for, and the same on every replica.

Source: Prometheus, "Exposition formats", text format 0.0.4.
"""

import shutil
from collections import Counter

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Gauge,
    ProcessCollector,
    generate_latest,
)
from starlette.requests import Request
from starlette.responses import Response

from registry.core.access import Group
from registry.core.errors import Denied, Unauthenticated, Unavailable
from registry.ports.catalog import Reader
from registry.services import Services
from registry.web import auth
from registry.web.answers import bytes_response
from registry.web.health import Readiness
from registry.web.resources import resource

_SUSPECTS = 1_000


async def metrics(request: Request) -> Response:
    """All counters of this process, and the library's figures."""
    if not auth.is_off(request):
        caller = await auth.require(request, Group.READ)
        if not caller.is_signed_in:
            raise Unauthenticated("sign in: this needs an administrator's API key")
        if not caller.is_admin:
            raise Denied("only an administrator can read the metrics")
    services: Services = request.app.state.services
    library = await _library(services, request.app.state.readiness)
    text = generate_latest(services.router.meter.registry) + generate_latest(library)
    return bytes_response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def _library(services: Services, readiness: Readiness) -> CollectorRegistry:
    """The figures of the moment. While the database is away, that it is, and little else."""
    found = CollectorRegistry()
    ProcessCollector(registry=found)
    ready = Gauge("registry_ready", "1: this part works", ["part"], registry=found)
    for name, text in (await readiness.parts()).items():
        ready.labels(name).set(text == "ok")
    disk = shutil.disk_usage(services.settings.data)
    for name, help_text, value in (
        ("free", "Free bytes where the data folder is", disk.free),
        ("total", "All bytes there", disk.total),
    ):
        Gauge(f"registry_data_{name}_bytes", help_text, registry=found).set(value)
    try:
        figures = await services.catalog.scan(_figures)
    except Unavailable:
        return found
    for (name, help_text), value in figures.items():
        Gauge(f"registry_{name}", help_text, registry=found).set(value)
    jobs = Gauge("registry_jobs", "Pieces of long work under way", ["kind"], registry=found)
    under_way = await services.catalog.read(lambda tx: tx.jobs_under_way())
    for kind, count in Counter(job.kind for job in under_way).items():
        jobs.labels(kind).set(count)
    return found


def _figures(tx: Reader) -> dict[tuple[str, str], int]:
    """Name without its prefix, and meaning, of each."""
    blobs, uploads, fetches = tx.blob_tally(), tx.upload_tally(), tx.fetch_tally()
    return {
        ("blobs", "Blobs in the store"): blobs.count,
        ("blob_bytes", "Bytes of all blobs"): blobs.size,
        ("uploads", "Upload sessions that are open"): uploads.count,
        ("upload_bytes", "Bytes that they have received"): uploads.size,
        ("fetches", "Blobs of pulls that are not all here"): fetches.count,
        ("fetch_bytes", "Bytes of them that are here"): fetches.size,
        ("damaged_blobs", "Blobs whose bytes were found to be wrong"): len(
            tx.suspects("", _SUSPECTS)
        ),
    }


routes = [resource("/metrics", GET=metrics)]
"""Read by scrapers, so not in the OpenAPI document."""
