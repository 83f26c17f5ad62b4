"""Architectures: known ones pass without a word."""

import pytest

from registry.core.architectures import KNOWN, warning
from registry.core.convert.architectures import FAMILIES


def test_what_can_be_converted_is_known() -> None:
    assert {family.name for family in FAMILIES.values()} <= KNOWN


@pytest.mark.parametrize("name", ["llama", "gpt-oss", "clip", "gemma3n"])
def test_known_architectures_are_not_remarked_upon(name: str) -> None:
    assert warning(name) == ""


def test_others_are_named_harmlessly() -> None:
    assert warning("nonesuch").startswith('unknown architecture "nonesuch": kept')
    assert "\x1b" not in warning("\x1b[2J" * 100)
    assert len(warning("x" * 10_000)) < 150
