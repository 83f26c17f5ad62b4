"""`/api/v1`: workers, where models may run, what they were used for. For administrators."""

from datetime import UTC, datetime

from registry.core.names import ModelName
from registry.core.placement import Placement
from registry.ports.fleet import HOUR_NS, Enlisted, NewWorker, Usage
from registry.ports.workers import Loaded, Worker, WorkerFacts
from registry.services import Services
from registry.web import api_v1_fleet_schemas as schemas
from registry.web.endpoints import Call, Endpoint, For


def _services(call: Call) -> Services:
    found: Services = call.request.app.state.services
    return found


async def workers(call: Call) -> schemas.Workers:
    """Workers and how they are, as this process knows them."""
    own = _services(call)
    rows = {row.name: row for row in await own.fleet.workers()}
    known = {worker.name: worker for worker in own.router.workers()}
    names = sorted(rows.keys() | known.keys())
    made = [_worker(own, name, rows.get(name), known.get(name)) for name in names]
    resting = [
        schemas.Resting(model=rest.name, seconds=rest.seconds, reason=rest.reason)
        for rest in own.router.quarantine.resting(len(known))
    ]
    return schemas.Workers(workers=made, resting=resting)


async def add_worker(call: Call) -> schemas.Worker:
    """Make an existing server a worker; every process begins to use it within seconds."""
    ask = call.asked(schemas.NewWorker).root
    call.note("worker.add", f"{ask.name} {ask.url}")
    models = ask.models if isinstance(ask, schemas.OpenAIServer) else []
    wish = NewWorker(
        ask.name,
        ask.kind,
        ask.url,
        ask.key or "",
        tuple(ask.labels),
        {item.model: item.id for item in models},
        ask.slots,
    )
    own = _services(call)
    return _worker(own, ask.name, await own.fleet.add(wish), None)


async def change_worker(call: Call) -> schemas.Worker:
    """Send nothing new to a worker, or something again. What runs there goes on."""
    name, drained = call.path["worker"], call.asked(schemas.WorkerChange).drained
    call.note("worker.drain" if drained else "worker.resume", name)
    own = _services(call)
    await own.fleet.drain(name, drained=drained)
    row = next((row for row in await own.fleet.workers() if row.name == name.lower()), None)
    found = _worker(own, name.lower(), row, _known(own, name.lower()))
    return found.model_copy(update={"drained": drained})  # the router knows within seconds


async def remove_worker(call: Call) -> None:
    """Make an existing server a worker no longer. What runs there for this library may end."""
    call.note("worker.remove", call.path["worker"])
    await _services(call).fleet.remove(call.path["worker"])


async def placements(call: Call) -> schemas.Placements:
    """What is decided for models: labels that their workers must have, and which stay loaded."""
    found = await _services(call).fleet.placements()
    return schemas.Placements(placements=[_placement(name, item) for name, item in found])


async def place(call: Call) -> schemas.Placement:
    """Decide where a model may run and whether it stays loaded.

    One without labels that is not pinned is forgotten.
    """
    ask = call.asked(schemas.PlacementWish)
    call.note("model.place", f"{ask.model} {' '.join(ask.labels)}".strip())
    name = ModelName.checked(ask.model)
    fleet = _services(call).fleet
    await fleet.place(name, tuple(ask.labels))
    return _placement(name, await fleet.pin(name, pinned=ask.pinned))


async def usage(call: Call) -> schemas.UsageRows:
    """Tokens read and written, requests, and seconds that slots were taken."""
    ask, own = call.wanted(schemas.UsageQuery), _services(call)
    until = own.clock() // HOUR_NS * HOUR_NS + HOUR_NS
    rows = await own.ledger.totals(until - ask.hours * HOUR_NS, until, ask.by)
    return schemas.UsageRows(usage=[_row(row, ask.by) for row in rows])


def _known(own: Services, name: str) -> Worker | None:
    return next((worker for worker in own.router.workers() if worker.name == name), None)


def _worker(
    own: Services, name: str, row: Enlisted | None, worker: Worker | None
) -> schemas.Worker:
    mapped = row.models if row else {}
    facts = worker.facts() if worker else WorkerFacts(reachable=False)
    return schemas.Worker.model_validate(
        {
            "name": row.name if row else name,
            "kind": row.kind if row else "node",
            "url": row.url if row else None,
            "has_key": bool(row and row.key),
            "labels": sorted(row.labels if row else facts.labels),
            "models": [{"model": ours, "id": id_} for ours, id_ in mapped.items()],
            "drained": row.drained if row else own.router.is_draining(name),
            "reachable": facts.reachable,
            "engine": facts.engine,
            "version": facts.version,
            "memory_total": facts.memory_total,
            "memory_free": facts.memory_free,
            "running": [_running(item) for item in facts.loaded],
        }
    )


def _running(item: Loaded) -> schemas.Running:
    return schemas.Running(
        model=item.name.short,
        size=item.size,
        slots=item.slots,
        busy=item.busy,
        waiting=item.waiting,
        loading=item.loading,
    )


def _placement(name: ModelName, item: Placement) -> schemas.Placement:
    return schemas.Placement(model=name.short, labels=sorted(item.labels), pinned=item.pinned)


def _row(row: Usage, by: str) -> schemas.UsageRow:
    return schemas.UsageRow(
        hour=datetime.fromtimestamp(row.hour // 10**9, UTC) if by == "hour" else None,
        account=row.account if by == "account" else None,
        model=row.model if by == "model" else None,
        worker=row.worker if by == "worker" else None,
        requests=row.requests,
        prompt_tokens=row.prompt_tokens,
        tokens=row.tokens,
        seconds=row.milliseconds / 1e3,
    )


_V1 = "/api/v1"
ENDPOINTS = (
    Endpoint("GET", f"{_V1}/workers", workers, For.ADMIN, schemas.Workers),
    Endpoint(
        "POST", f"{_V1}/workers", add_worker, For.ADMIN, schemas.Worker,
        body=schemas.NewWorker, status=201,
    ),
    Endpoint(
        "PATCH", f"{_V1}/workers/{{worker}}", change_worker, For.ADMIN, schemas.Worker,
        body=schemas.WorkerChange,
    ),
    Endpoint("DELETE", f"{_V1}/workers/{{worker}}", remove_worker, For.ADMIN),
    Endpoint("GET", f"{_V1}/placements", placements, For.ADMIN, schemas.Placements),
    Endpoint(
        "PUT", f"{_V1}/placements", place, For.ADMIN, schemas.Placement,
        body=schemas.PlacementWish, errors=(404,),
    ),
    Endpoint(
        "GET", f"{_V1}/usage", usage, For.ADMIN, schemas.UsageRows, query=schemas.UsageQuery,
    ),
)  # fmt: skip
