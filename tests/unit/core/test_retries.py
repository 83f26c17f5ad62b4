"""Pauses between tries."""

import pytest

from registry.core.retries import pause_s


@pytest.mark.parametrize(
    ("failures", "wished", "chance", "expected"),
    [
        (1, 0.0, 1.0, 0.5),
        (1, 0.0, 0.0, 0.25),
        (2, 0.0, 1.0, 1.0),
        (4, 0.0, 0.5, 3.0),
        (9, 0.0, 1.0, 30.0),
        (10_000, 0.0, 0.0, 15.0),
        (1, 7.0, 1.0, 7.0),
    ],
)
def test_pauses_double_up_to_a_limit_and_respect_wishes(
    failures: int, wished: float, chance: float, expected: float
) -> None:
    assert pause_s(failures, wished, chance) == expected
