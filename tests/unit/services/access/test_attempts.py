"""Counts of failures: windows, forgiveness, bounds, what one address is."""

import pytest

from registry.core.errors import TooOften
from registry.services.access import attempts
from registry.services.access.attempts import Attempts, network
from tests.support.accounts import Clock


def test_a_key_has_its_attempts_in_a_minute() -> None:
    clock = Clock()
    counts = Attempts(3, clock)
    for _ in range(3):
        counts.begin("a")
    clock.pass_s(20)
    with pytest.raises(TooOften) as caught:
        counts.begin("a", "b")
    assert caught.value.retry_after_s == 41
    for _ in range(3):
        counts.begin("b")  # the refused one was not counted
    clock.pass_s(40)
    counts.begin("a")


def test_a_success_is_forgiven() -> None:
    counts = Attempts(2, Clock())
    for _ in range(9):
        counts.begin("a")
        counts.forgive("a")
    counts.begin("a")
    counts.begin("a")
    counts.forgive("a")
    counts.begin("a")
    with pytest.raises(TooOften):
        counts.begin("a")
    counts.forgive("unknown")


def test_keys_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_KNOWN", 3)
    counts = Attempts(1, Clock())
    for key in "abcd":
        counts.begin(key)
    assert len(counts._counts) == 3
    counts.begin("a")
    with pytest.raises(TooOften):
        counts.begin("d")


@pytest.mark.parametrize(
    ("address", "one"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("x" * 99, "x" * 64),
    ],
)
def test_an_address_is_a_household(address: str, one: str) -> None:
    assert network(address) == one
