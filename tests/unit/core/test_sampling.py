from typing import Any

import pytest

from registry.core.sampling import Sampling


def test_defaults_are_those_of_the_api() -> None:
    assert Sampling.of({}, 100).body() == {
        "n_predict": 1000,
        "n_keep": 4,
        "temperature": 0.8,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.0,
        "typical_p": 1.0,
        "repeat_last_n": 64,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": -1,
    }


@pytest.mark.parametrize(
    ("wished", "predicted"), [(-1, 1000), (-2, 1000), (0, 0), (5, 5), (1000, 1000), (9e9, 1000)]
)
def test_every_answer_has_an_end(wished: float, predicted: int) -> None:
    assert Sampling.of({"num_predict": wished}, 100).num_predict == predicted


def test_each_option_has_its_name_there() -> None:
    options: dict[str, Any] = {
        "num_keep": 1, "seed": 2.9, "num_predict": 3, "top_k": 4, "top_p": 0.5, "min_p": 0.6,
        "typical_p": 0.7, "repeat_last_n": 8, "temperature": 0.9, "repeat_penalty": 1.1,
        "presence_penalty": 1.2, "frequency_penalty": 1.3, "stop": ["a", "", "b"],
    }  # fmt: skip
    assert list(Sampling.of(options, 10).body().values()) == [
        3, 1, 0.9, 4, 0.5, 0.6, 0.7, 8, 1.1, 1.2, 1.3, 2, ["a", "b"],
    ]  # fmt: skip


def test_openai_servers_are_told_only_what_was_said() -> None:
    assert Sampling.of({}, 10).openai_body() == {}
    options = {"top_k": 3, "temperature": 0, "num_predict": 7, "seed": 1, "stop": ["x"]}
    assert Sampling.of(options, 10).openai_body() == {
        "temperature": 0.0,
        "seed": 1,
        "max_tokens": 7,
        "stop": ["x"],
    }


def test_stop_sequences_are_bounded() -> None:
    assert len(Sampling.of({"stop": [str(n) for n in range(1000)]}, 10).stop) == 64


def test_to_look_back_by_minus_one_means_all_of_the_context() -> None:
    assert Sampling.of({"repeat_last_n": -1}, 100).repeat_last_n == 100
    assert Sampling.of({"repeat_last_n": 0}, 100).repeat_last_n == 0
