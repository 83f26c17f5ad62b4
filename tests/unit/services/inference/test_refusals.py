"""What workers answered in place of a lease, for as long as it counts; what callers are told."""

import asyncio

import pytest

from registry.core.errors import CannotRun, RegistryError, Unavailable
from registry.core.placement import Demand, Obstacle, Refuse
from registry.services.inference.refusals import Refusals, refusal
from registry.services.inference.waiting import Errand, Ticket
from tests.support.fake_worker import spec_of

pytestmark = pytest.mark.anyio
GIB = 1 << 30


def ticket() -> Ticket:
    spec = spec_of()
    turn: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    return Ticket(spec, spec.key, str(spec.name), Errand(), 0.0, turn)  # type: ignore[arg-type]  # unused


async def test_a_busy_worker_is_asked_again_after_a_second() -> None:
    made, one = Refusals(), ticket()
    made.busy("a", one, Unavailable("no room"), 10.0, others=False)
    assert made.is_busy("a", one.key, 10.5)
    assert not made.is_busy("a", one.key, 11.5)
    assert not made.is_busy("b", one.key, 10.5)
    made.forget("a", one.key)
    assert not made.is_busy("a", one.key, 10.5)


async def test_a_worker_without_anything_of_ours_that_stays_busy_is_given_up() -> None:
    made, one = Refusals(), ticket()
    made.busy("a", one, Unavailable("no room"), 10.0, others=False)
    made.busy("a", one, Unavailable("no room"), 39.0, others=False)
    with pytest.raises(Unavailable, match="no room"):
        made.busy("a", one, Unavailable("no room"), 40.0, others=False)
    made.busy("a", one, Unavailable("no room"), 41.0, others=False)
    made.busy("a", one, Unavailable("no room"), 90.0, others=True)
    made.busy("a", one, Unavailable("no room"), 100.0, others=False)


async def test_a_worker_that_cannot_is_asked_again_after_a_minute() -> None:
    made = Refusals()
    made.cannot("a", "key", CannotRun("no such architecture"), 10.0)
    made.cannot("b", "other", CannotRun("else"), 11.0)
    assert made.is_final("a", "key", 69.0)
    assert not made.is_final("a", "key", 71.0)
    assert str(made.cause("key", 69.0)) == "no such architecture"
    assert made.cause("key", 71.0) is None


async def test_what_is_known_of_refusals_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.services.inference.refusals._KNOWN", 1)
    made, one = Refusals(), ticket()
    for name in ("a", "b"):
        made.cannot(name, "key", CannotRun(""), 1.0)
        made.busy(name, one, Unavailable(""), 1.0, others=False)
    assert not made.is_final("a", "key", 1.5)
    assert not made.is_busy("a", one.key, 1.5)
    assert made.is_final("b", "key", 1.5)
    assert made.is_busy("b", one.key, 1.5)


@pytest.mark.parametrize(
    ("decision", "kind", "text"),
    [
        (Refuse(Obstacle.NO_WORKER), Unavailable, "no engine is installed"),
        (Refuse(Obstacle.DRAINING), Unavailable, "they drain or do not answer"),
        (Refuse(Obstacle.LABELS), Unavailable, "what this model is placed on: eu, gpu"),
        (
            Refuse(Obstacle.MEMORY, 3 * GIB),
            CannotRun,
            "model requires more system memory (8.0 GiB) than is available (3.0 GiB)",
        ),
        (Refuse(Obstacle.UNABLE), CannotRun, "in the way that was asked"),
    ],
)
def test_every_obstacle_has_its_words(
    decision: Refuse, kind: type[RegistryError], text: str
) -> None:
    demand = Demand(key="k", model="m", memory=8 * GIB, labels=frozenset({"gpu", "eu"}))
    error = refusal(decision, demand, "no engine is installed")
    assert type(error) is kind
    assert text in str(error)
