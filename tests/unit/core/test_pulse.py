"""Signs of life."""

from registry.core.pulse import Pulses


def test_a_count_ages_until_it_moves() -> None:
    pulses = Pulses()
    assert pulses.age_s("a", 1, 10.0) == 0
    assert pulses.age_s("a", 1, 12.5) == 2.5
    assert pulses.age_s("a", 2, 13.0) == 0
    assert pulses.age_s("a", 2, 14.0) == 1
    assert pulses.age_s("b", None, 14.0) == 0
    assert pulses.age_s("b", None, 15.0) == 1


def test_after_a_pause_everything_is_seen_anew() -> None:
    pulses = Pulses()
    pulses.age_s("a", 1, 0.0)
    assert pulses.age_s("a", 1, 5.0) == 5
    pulses.forget()
    assert pulses.age_s("a", 1, 9.0) == 0
