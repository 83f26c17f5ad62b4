"""Password hashing: fits or not, one form of a text, bounded work."""

import asyncio

import pytest

from registry.core.errors import RequestInvalid, Unavailable
from registry.services.access import passwords
from tests.support.accounts import PASSWORD, cheap_passwords

pytestmark = pytest.mark.anyio


async def test_only_the_password_fits_its_hash() -> None:
    made = cheap_passwords()
    kept = await made.hash(PASSWORD)
    assert kept.startswith("$argon2id$")
    assert PASSWORD not in kept
    assert await made.hash(PASSWORD) != kept
    assert await made.fits("a", PASSWORD, kept)
    for wrong in ("", PASSWORD + " ", PASSWORD[:-1], "\ud800", "x" * 100_000):
        assert not await made.fits("a", wrong, kept)


async def test_nothing_fits_where_there_is_no_hash_or_a_broken_one() -> None:
    made = cheap_passwords()
    for kept in ("", "nonsense", "$argon2id$v=19$m=8,t=1,p=1$"):
        assert not await made.fits("a", PASSWORD, kept)


async def test_a_password_that_fitted_is_known_for_that_name_and_hash_only() -> None:
    made = cheap_passwords()
    kept = await made.hash(PASSWORD)
    assert not made.is_proven("a", PASSWORD, kept)
    assert await made.fits("A", PASSWORD, kept)
    assert made.is_proven("a", PASSWORD, kept)
    assert await made.fits("a", PASSWORD, kept)
    assert not made.is_proven("b", PASSWORD, kept)
    assert not made.is_proven("a", PASSWORD + "x", kept)
    assert not made.is_proven("a", PASSWORD, await made.hash(PASSWORD))
    assert not made.is_proven("a", PASSWORD, "")
    assert not await made.fits("a", "wrong", kept)
    assert not made.is_proven("a", "wrong", kept)


async def test_one_text_typed_on_two_systems_is_one_password() -> None:
    made = cheap_passwords()
    assert await made.fits("a", "pa\u0308ssword-a", await made.hash("p\u00e4ssword-a"))


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_PROVEN", 2)
    made = cheap_passwords()
    kept = await made.hash(PASSWORD)
    for name in "abc":
        await made.fits(name, PASSWORD, kept)
    assert [made.is_proven(name, PASSWORD, kept) for name in "abc"] == [False, True, True]


async def test_a_crowd_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_WAITING", 4)
    made = cheap_passwords()
    kept = await made.hash(PASSWORD)
    outcomes = await asyncio.gather(
        *(made.fits(str(n), PASSWORD, kept) for n in range(30)), return_exceptions=True
    )
    assert any(isinstance(one, Unavailable) for one in outcomes)
    assert any(one is True for one in outcomes)
    assert await made.fits("later", PASSWORD, kept)


async def test_lengths_are_checked_before_work_is_done() -> None:
    made = cheap_passwords()
    for wrong in ("short", "x" * 1025):
        with pytest.raises(RequestInvalid):
            await made.hash(wrong)


async def test_other_parameters_are_outdated() -> None:
    kept = await cheap_passwords().hash(PASSWORD)
    assert not cheap_passwords().is_outdated(kept)
    assert cheap_passwords(2).is_outdated(kept)


async def test_the_usual_parameters_are_those_of_the_rfc() -> None:
    assert "m=65536,t=3,p=4" in await passwords.Passwords().hash(PASSWORD)
