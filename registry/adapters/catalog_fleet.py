"""Workers, placements, usage: that part of the catalog's SQL."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import bindparam, delete, select

from registry.adapters import tables_fleet as t
from registry.adapters.catalog_transfers import _put
from registry.adapters.statements import Insert, Queries, Row, Statement
from registry.core.names import ModelName
from registry.core.placement import Placement
from registry.ports.fleet import Enlisted, Replica, Usage

_P = bindparam
_COUNTS = ("requests", "prompt_tokens", "tokens", "milliseconds")
_USAGE_KEYS = ("hour", "account", "model", "worker")

_WORKERS = Statement(select(t.worker).order_by(t.worker.c.name))
_PUT_WORKER = Statement(_put(t.worker, "name"))
_DELETE_WORKER = Statement(delete(t.worker).where(t.worker.c.name == _P("name")))
_DRAINED = Statement(select(t.drained_worker.c.name))
_DRAIN = Statement(
    lambda insert: insert(t.drained_worker).values(name=_P("name")).on_conflict_do_nothing()
)
_RESUME = Statement(delete(t.drained_worker).where(t.drained_worker.c.name == _P("name")))
_REPLICAS = Statement(select(t.replica).order_by(t.replica.c.id))
_PUT_REPLICA = Statement(_put(t.replica, "id"))
_DELETE_REPLICA = Statement(delete(t.replica).where(t.replica.c.id == _P("id")))
_PLACEMENTS = Statement(
    select(t.placement.c.model, t.placement.c.labels, t.placement.c.pinned).order_by(
        t.placement.c.model_key
    )
)
_PUT_PLACEMENT = Statement(_put(t.placement, "model_key"))
_DELETE_PLACEMENT = Statement(delete(t.placement).where(t.placement.c.model_key == _P("model_key")))
_USAGE = Statement(
    select(t.usage)
    .where(t.usage.c.hour >= _P("since"), t.usage.c.hour < _P("until"))
    .order_by(t.usage.c.hour.desc(), t.usage.c.account, t.usage.c.model, t.usage.c.worker)
    .limit(_P("count"))
)
_TRIM_USAGE = Statement(delete(t.usage).where(t.usage.c.hour < _P("before")))


def _add(insert: Callable[[Any], Insert]) -> Any:
    """Insert a row, or add its counts to the one that is there."""
    row = insert(t.usage).values({column.name: _P(column.name) for column in t.usage.c})
    sums = {name: t.usage.c[name] + row.excluded[name] for name in _COUNTS}
    return row.on_conflict_do_update(index_elements=list(_USAGE_KEYS), set_=sums)


_ADD_USAGE = Statement(_add)


class FleetQueries(Queries):
    """`FleetReader` on a session."""

    def workers(self) -> list[Enlisted]:
        """See `FleetReader`."""
        return [_worker(row) for row in self._sql.all(_WORKERS)]

    def drained(self) -> frozenset[str]:
        """See `FleetReader`."""
        return frozenset(name for (name,) in self._sql.all(_DRAINED))

    def replicas(self) -> list[Replica]:
        """See `FleetReader`."""
        return [Replica(*row) for row in self._sql.all(_REPLICAS)]

    def placements(self) -> list[tuple[ModelName, Placement]]:
        """See `FleetReader`."""
        return [
            (ModelName.parse(model), Placement(frozenset(json.loads(labels)), bool(pinned)))
            for model, labels, pinned in self._sql.all(_PLACEMENTS)
        ]

    def usage(self, since: int, until: int, limit: int) -> list[Usage]:
        """See `FleetReader`."""
        rows = self._sql.all(_USAGE, since=since, until=until, count=limit)
        return [Usage(*row) for row in rows]


class FleetChanges(FleetQueries):
    """The methods of `FleetWriter`."""

    def put_worker(self, worker: Enlisted) -> None:
        """See `FleetWriter`."""
        self._sql.run(
            _PUT_WORKER,
            name=worker.name,
            kind=worker.kind,
            url=worker.url,
            created_at=worker.created_at,
            labels=_listed(worker.labels),
            models=json.dumps(dict(worker.models), sort_keys=True),
            slots=worker.slots,
            drained=worker.drained,
            key=worker.key,
        )

    def delete_worker(self, name: str) -> bool:
        """See `FleetWriter`."""
        return self._sql.run(_DELETE_WORKER, name=name) > 0

    def drain(self, name: str, *, drained: bool) -> None:
        """See `FleetWriter`."""
        self._sql.run(_DRAIN if drained else _RESUME, name=name)

    def put_replica(self, replica: Replica) -> None:
        """See `FleetWriter`."""
        self._sql.run(_PUT_REPLICA, **asdict(replica))

    def delete_replica(self, id_: str) -> None:
        """See `FleetWriter`."""
        self._sql.run(_DELETE_REPLICA, id=id_)

    def put_placement(self, name: ModelName, placement: Placement) -> None:
        """See `FleetWriter`."""
        key = str(name).lower()
        if placement == Placement():
            self._sql.run(_DELETE_PLACEMENT, model_key=key)
            return
        labels = _listed(placement.labels)
        self._sql.run(
            _PUT_PLACEMENT,
            model_key=key,
            model=str(name),
            labels=labels,
            pinned=placement.pinned,
        )

    def add_usage(self, rows: Sequence[Usage]) -> None:
        """See `FleetWriter`."""
        self._sql.many(_ADD_USAGE, [asdict(row) for row in rows])

    def trim_usage(self, before: int) -> int:
        """See `FleetWriter`."""
        return self._sql.run(_TRIM_USAGE, before=before)


def _listed(labels: frozenset[str]) -> str:
    return json.dumps(sorted(labels))


def _worker(row: Row) -> Enlisted:
    name, kind, url, created_at, labels, models, slots, drained, key = row
    return Enlisted(
        name,
        kind,
        url,
        created_at,
        frozenset(json.loads(labels)),
        json.loads(models),
        slots,
        bool(drained),
        key,
    )
