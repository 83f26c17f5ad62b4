"""The server's clock, between two looks at it."""

import time

import pytest

from registry.adapters.postgres_clock import ServerClock


class Watch:
    """A cursor that tells a time."""

    def __init__(self, micros: int = 0) -> None:
        self.micros = micros

    def execute(self, _: str) -> None:
        pass

    def fetchall(self) -> list[tuple[int]]:
        return [(self.micros,)]


def test_it_is_asked_for_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    steady, server = 0, Watch()
    monkeypatch.setattr(time, "monotonic_ns", lambda: steady)
    clock = ServerClock()
    seen = []
    for steady, server.micros in (  # noqa: B007  # the clock looks at it
        (0, 5_000),
        (10**9, 0),
        (20 * 10**9, 50_000_000),
    ):
        clock.look(server)  # type: ignore[arg-type]
        seen.append(clock.now())
    assert seen == [5_000_000, 1_005_000_000, 50 * 10**9]


def test_an_answer_that_was_long_on_its_way_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter((0, 0, 60 * 10**9, 90 * 10**9, 91 * 10**9))
    server, clock = Watch(10), ServerClock()
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(ticks))
    clock.look(server)  # type: ignore[arg-type]
    clock.look(server)  # type: ignore[arg-type]
    assert clock.now() == 91 * 10**9 + 10_000
