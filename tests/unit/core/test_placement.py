"""Each rule of the choice of a worker, as a table."""

from collections import Counter
from dataclasses import replace

import pytest

from registry.core.placement import (
    Candidate,
    Decision,
    Demand,
    Obstacle,
    Presence,
    Refuse,
    Stay,
    Take,
    decide,
    weight,
)

GB = 1 << 30
DEMAND = Demand(key="key", model="sha256:1", memory=4 * GB, size=4 * GB)


def worker(name: str = "a", **values: object) -> Candidate:
    """A worker with 16 GB, half of it free."""
    base = Candidate(name=name, memory_total=16 * GB, memory_free=8 * GB)
    return replace(base, **values)  # type: ignore[arg-type]  # the table's own names


def ready(name: str = "a", **values: object) -> Candidate:
    return worker(name, presence=Presence.READY, **values)


def loading(name: str = "a", **values: object) -> Candidate:
    return worker(name, presence=Presence.LOADING, **values)


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ([], Refuse(Obstacle.NO_WORKER)),
        ([worker(draining=True)], Refuse(Obstacle.DRAINING, 16 * GB)),
        ([worker(able=False)], Refuse(Obstacle.UNABLE, 16 * GB)),
        ([worker(memory_total=2 * GB)], Refuse(Obstacle.MEMORY, 2 * GB)),
        ([worker(memory_total=2 * GB), worker("b", memory_total=3 * GB)],
         Refuse(Obstacle.MEMORY, 3 * GB)),
        ([worker(able=False), worker("b", draining=True)], Refuse(Obstacle.UNABLE, 16 * GB)),
        ([worker(memory_total=0, memory_free=0)], Take("a")),
        ([worker(draining=True), worker("b")], Take("b")),
    ],
)  # fmt: skip
def test_who_may_run_it_at_all(candidates: list[Candidate], expected: Decision) -> None:
    assert decide(DEMAND, candidates) == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["gpu", "big"], Take("b")),
        (["gpu"], Take("b")),
        (["tpu"], Refuse(Obstacle.LABELS, 16 * GB)),
    ],
)
def test_a_worker_must_have_every_label(labels: list[str], expected: Decision) -> None:
    demand = replace(DEMAND, labels=frozenset(labels))
    candidates = [worker(), worker("b", labels=frozenset({"gpu", "big"}))]
    assert decide(demand, candidates) == expected


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ([worker(), ready("b")], "b"),
        ([ready(slots=2, taken=1), ready("b", slots=4, taken=1)], "b"),
        ([ready(slots=4, taken=1), ready("b", slots=4, taken=2)], "a"),
        ([ready(taken=1), ready("b")], "b"),
        ([loading(slots=4), ready("b")], "b"),
        ([ready(held=True), ready("b")], "b"),
    ],
)
def test_a_free_slot_comes_first_and_the_most_free_slots_win(
    candidates: list[Candidate], expected: str
) -> None:
    assert decide(DEMAND, candidates) == Take(expected)


def test_a_conversation_returns_to_its_worker_and_conversations_spread() -> None:
    candidates = [ready(name) for name in "abcd"]
    counted: Counter[Decision] = Counter()
    for number in range(400):
        demand = replace(DEMAND, hint=f"conversation {number}")
        assert decide(demand, candidates) == decide(demand, candidates[::-1])
        counted[decide(demand, candidates)] += 1
    assert len(counted) == 4
    assert min(counted.values()) > 60


def test_a_worker_that_goes_moves_only_its_own_conversations() -> None:
    candidates = [ready(name) for name in "abcd"]
    for number in range(100):
        demand = replace(DEMAND, hint=str(number))
        before = decide(demand, candidates)
        after = decide(demand, candidates[:3])
        assert before in {after, Take("d")}


@pytest.mark.parametrize(
    ("demand", "candidates", "expected"),
    [
        # nobody knows how long one takes: wait at the worker, one more than it has slots
        (DEMAND, [ready(taken=1, ours=1), worker("b")], Take("a")),
        (DEMAND, [ready(taken=2, ours=2), worker("b")], Stay()),
        (DEMAND, [ready(taken=9, ours=0)], Take("a")),
        (DEMAND, [ready(taken=3, ours=1), ready("b", taken=2, ours=1)], Take("b")),
        (DEMAND, [ready(taken=1, ours=1, held=True)], Stay()),
        # while it loads, no more than there are slots
        (DEMAND, [loading(slots=2, taken=1, ours=1)], Take("a")),
        (DEMAND, [loading(slots=1, taken=1, ours=1)], Stay()),
        # the queue takes longer than a load elsewhere: 4 GB at 500 MB/s are 8.6 s
        (replace(DEMAND, service_s=20.0), [ready(taken=1, ours=1), worker("b")], Take("b")),
        (replace(DEMAND, service_s=5.0), [ready(taken=1, ours=1), worker("b")], Take("a")),
        (replace(DEMAND, service_s=5.0, queued=2), [ready(taken=2, ours=2), worker("b")],
         Take("b")),
        (replace(DEMAND, service_s=5.0, queued=2),
         [ready(taken=2, ours=2), worker("b", load_bytes_per_s=100_000_000)], Stay()),
        (replace(DEMAND, service_s=5.0, queued=2),
         [ready(taken=2, ours=2), worker("b", missing=4 * GB)], Stay()),
        # or has stood for ten seconds
        (replace(DEMAND, waited_s=10.0), [ready(taken=2, ours=2), worker("b")], Take("b")),
        (replace(DEMAND, waited_s=9.9), [ready(taken=2, ours=2), worker("b")], Stay()),
        # but never by evicting, by waiting for room, or more often than allowed
        (replace(DEMAND, waited_s=60.0),
         [ready(taken=2, ours=2), worker("b", memory_free=0, memory_idle=8 * GB)], Stay()),
        (replace(DEMAND, waited_s=60.0), [ready(taken=2, ours=2), worker("b", held=True)],
         Stay()),
        (replace(DEMAND, waited_s=60.0, replicas_max=1), [ready(taken=2, ours=2), worker("b")],
         Stay()),
        (replace(DEMAND, waited_s=60.0),
         [ready(taken=2, ours=2), loading("b", taken=1, ours=1), worker("c")], Stay()),
    ],
)  # fmt: skip
def test_a_full_runner_is_waited_for_or_gets_a_second_one(
    demand: Demand, candidates: list[Candidate], expected: Decision
) -> None:
    assert decide(demand, candidates) == expected


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        # at hand and fits, at hand and evicts, has to be fetched
        ([worker(missing=1), worker("b", memory_free=0, memory_idle=4 * GB)], "b"),
        ([worker(memory_free=0, memory_idle=4 * GB), worker("b", memory_free=4 * GB)], "b"),
        ([worker(missing=1, memory_free=4 * GB), worker("b", missing=1)], "b"),
        ([worker(missing=1, memory_free=0, memory_idle=16 * GB), worker("b", missing=1)], "b"),
        # one that loads something else already would make it wait
        ([worker(loads=1, memory_free=9 * GB), worker("b")], "b"),
        ([worker(missing=1, loads=1, memory_free=9 * GB), worker("b", missing=1)], "b"),
        ([worker(loads=1)], "a"),
    ],
)
def test_a_model_that_is_nowhere_is_loaded_where_it_costs_least(
    candidates: list[Candidate], expected: str
) -> None:
    assert decide(DEMAND, candidates) == Take(expected)


def test_one_model_lands_on_the_same_worker_and_models_spread() -> None:
    candidates = [worker(name) for name in "abcd"]
    counted: Counter[Decision] = Counter()
    for number in range(400):
        demand = replace(DEMAND, model=f"sha256:{number}", hint=str(number))
        assert decide(demand, candidates) == decide(replace(demand, hint="x"), candidates)
        counted[decide(demand, candidates)] += 1
    assert len(counted) == 4
    assert min(counted.values()) > 60


def test_without_room_it_waits_for_the_worker_with_the_least_in_the_way() -> None:
    full = [worker(memory_free=1), worker("b", memory_free=1, memory_idle=GB)]
    assert decide(DEMAND, full) == Stay("b")
    assert decide(DEMAND, [worker(held=True), worker("b", memory_free=1)]) == Stay("a")


def test_weights_are_the_same_in_every_process() -> None:
    assert weight("model", "worker").hex() == "37c1afa87ab1d7a8"
