"""registry/core/convert/config.py: typed keys, and rope in all spellings."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from registry.core.convert.config import Config, Rope, llama3_factors, rope
from registry.core.errors import CheckpointInvalid


def test_the_language_models_keys_come_first() -> None:
    config = Config.of({"hidden_size": 1, "x": 2, "text_config": {"hidden_size": 3}})
    assert config.count("hidden_size") == 3
    assert config.count("x") == 2
    assert Config.of({"text_config": 7, "x": 2}).count("x") == 2


def test_the_first_spelling_that_is_there_counts() -> None:
    config = Config({"a": None, "b": 2, "c": 3})
    assert config.count("a", "b", "c") == 2
    assert config.count("z", default=5) == 5
    assert config.has("z", "b")
    assert not config.has("z", "a")


def test_values_are_read_by_their_kind() -> None:
    config = Config(
        {"n": 4.0, "f": 2, "t": "x", "l": [1, 2.5], "s": ["a"], "y": True, "o": {"p": 1}}
    )
    assert config.count("n") == 4
    assert config.number("f") == 2.0
    assert config.text("t") == "x"
    assert config.text("u", default="d") == "d"
    assert config.numbers("l") == (1.0, 2.5)
    assert config.texts("s") == ("a",)
    assert config.flag("y", False)
    assert config.flag("absent", True)
    inner = config.inner("o")
    assert inner is not None
    assert inner.count("p") == 1
    assert inner.file == "config.json: o"
    assert config.inner("t") is None


Read = Callable[[Config], object]
WRONG: list[tuple[Any, Read, str]] = [
    ({}, lambda c: c.count("a", "b"), "config.json: a or b is missing"),
    ({"a": "1"}, lambda c: c.count("a"), "a must be a whole number"),
    ({"a": True}, lambda c: c.count("a"), "a must be a whole number"),
    ({"a": 1.5}, lambda c: c.count("a"), "a must be a whole number"),
    ({"a": 0}, lambda c: c.count("a"), "a must be a whole number from 1"),
    ({"a": 2**31}, lambda c: c.count("a"), "a must be a whole number"),
    ({"a": float("inf")}, lambda c: c.count("a"), "a must be a whole number"),
    ({"a": True}, lambda c: c.number("a"), "a must be a number"),
    ({"a": "x"}, lambda c: c.number("a"), "a must be a number"),
    ({"a": float("nan")}, lambda c: c.number("a"), "a must be a finite number"),
    ({"a": 1e39}, lambda c: c.number("a"), "a must be a finite number"),
    ({"a": 10**400}, lambda c: c.number("a"), "a must be a finite number"),
    ({"a": 1}, lambda c: c.flag("a", True), "a must be true or false"),
    ({"a": 1}, lambda c: c.text("a"), "a must be a text"),
    ({"a": 1}, lambda c: c.numbers("a"), "a must be a list"),
    ({"a": ["1"]}, lambda c: c.numbers("a"), "a must be a list of numbers"),
    ({"a": [True]}, lambda c: c.numbers("a"), "a must be a list of numbers"),
    ({"a": [1] * 65_537}, lambda c: c.numbers("a"), "a must be a list"),
    ({"a": [1]}, lambda c: c.texts("a"), "a must be a list of texts"),
    ({}, lambda c: c.architecture, "unknown architecture"),
    ({"architectures": []}, lambda c: c.architecture, "unknown architecture"),
    ({"architectures": [1]}, lambda c: c.architecture, "unknown architecture"),
    ({"rope_scaling": {"type": "spiral"}}, rope, "rope type spiral is not supported"),
    ({"rope_theta": -1}, rope, "rope_theta must be above 0"),
]


@pytest.mark.parametrize(("values", "read", "words"), WRONG)
def test_a_value_of_a_wrong_kind_is_named(values: Any, read: Read, words: str) -> None:
    with pytest.raises(CheckpointInvalid, match=words):
        read(Config(values))


SPELLINGS: list[tuple[dict[str, Any], str, float, str]] = [
    ({}, "full_attention", 10000.0, "default"),
    ({"rope_theta": 5.0}, "full_attention", 5.0, "default"),
    ({"rotary_emb_base": 1000}, "full_attention", 1000.0, "default"),
    ({"rope_theta": 5.0, "rope_scaling": {"type": "linear"}}, "full_attention", 5.0, "linear"),
    ({"rope_scaling": None}, "full_attention", 10000.0, "default"),
    ({"rope_parameters": {"rope_theta": 6.0, "rope_type": "yarn"}}, "full_attention", 6.0, "yarn"),
    ({"rope_theta": 5.0, "rope_parameters": {"rope_theta": 6.0}}, "full_attention", 6.0, "default"),
    (
        {
            "rope_parameters": {
                "full_attention": {"rope_theta": 7.0, "rope_type": "linear"},
                "sliding_attention": {"rope_theta": 8.0},
            }
        },
        "sliding_attention", 8.0, "default",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("values", "layer", "theta", "kind"), SPELLINGS)
def test_rope_is_read_in_every_spelling(
    values: dict[str, Any], layer: str, theta: float, kind: str
) -> None:
    found = rope(Config(values), layer)
    assert (found.theta, found.kind) == (theta, kind)


def test_llama3_leaves_short_waves_and_stretches_long_ones() -> None:
    settings = {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    found = llama3_factors(Rope(500000.0, "llama3", Config(settings)), 128)
    assert len(found) == 64
    assert found[0] == 1.0
    assert found[-1] == 8.0
    assert list(found) == sorted(found)
    wave = 2 * math.pi * 500000.0 ** (60 / 128)
    share = (8192 / wave - 1) / 3
    assert found[30] == pytest.approx(1 / ((1 - share) / 8 + share))
    assert 1 < found[30] < 8


@pytest.mark.parametrize(
    "settings",
    [
        {"factor": 0.0},
        {"factor": 8, "low_freq_factor": 4, "high_freq_factor": 4},
        {"factor": 2, "low_freq_factor": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(CheckpointInvalid, match="make no sense"):
        llama3_factors(Rope(1e4, "llama3", Config(settings)), 8)
