from typing import Any

import pytest

from registry.core.errors import OperationFailed
from registry.core.options import (
    check_options,
    context_size,
    integer,
    merged,
    number,
    unknown,
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"temperature": True}, 'option "temperature" must be of type float32'),
        ({"seed": "x"}, 'option "seed" must be of type integer'),
        ({"main_gpu": []}, 'option "main_gpu" must be of type integer'),
        ({"use_mmap": 1.0}, 'option "use_mmap" must be of type boolean'),
        ({"stop": "x"}, 'option "stop" must be of type array'),
        ({"stop": ["a", 1.0]}, 'option "stop" must be of an array of strings'),
        ({"top_p": "x", "min_p": "x"}, 'option "min_p" must be of type float32'),
    ],
)
def test_the_first_option_of_a_wrong_type_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OperationFailed) as caught:
        check_options(options)
    assert str(caught.value) == message


def test_right_types_nulls_and_unknown_names_pass() -> None:
    check_options(
        {
            "num_ctx": 4096.0,
            "seed": 1.5,
            "top_p": 1,
            "use_mmap": False,
            "stop": ["a"],
            "temperature": None,
            "mirostat": "whatever",
        }
    )


def test_sent_options_win_and_nulls_are_not_there() -> None:
    stored = {"seed": 1.0, "top_k": 2.0, "min_p": None}
    assert merged(stored, {"seed": 5, "top_k": None}) == {"seed": 5, "top_k": 2.0}
    assert merged(stored, None) == {"seed": 1.0, "top_k": 2.0}


def test_names_that_mean_nothing() -> None:
    assert unknown({"seed": 1, "numa": True, "f16_kv": True}) == ["f16_kv", "numa"]


@pytest.mark.parametrize(
    ("wished", "default", "trained", "size"),
    [
        (None, 0, 0, 4096),
        (None, 0, 128, 128),
        (None, 8192, 0, 8192),
        (512, 8192, 0, 512),
        (1, 0, 0, 4),
        (-5, 0, 0, 4),
        (0, 0, 0, 4096),
        (float("inf"), 0, 0, 1 << 24),
        (float("nan"), 0, 0, 4096),
        (1e30, 0, 1000, 1000),
    ],
)
def test_the_context_is_at_most_what_the_model_was_trained_for(
    wished: float | None, default: int, trained: int, size: int
) -> None:
    assert context_size({"num_ctx": wished}, default, trained) == size


def test_images_need_room() -> None:
    assert context_size({"num_ctx": 100}, 0, 0, images=True) == 2048


@pytest.mark.parametrize(
    ("value", "as_integer", "as_number"),
    [
        (None, 7, 7.0),
        (3.9, 3, 3.9),
        (-3.9, -3, -3.9),
        (1e300, (1 << 31) - 1, 1e9),
        (-1e300, -(1 << 31) + 1, -1e9),
        (float("nan"), 7, 7.0),
    ],
)
def test_numbers_are_such_as_an_engine_can_count_with(
    value: float | None, as_integer: int, as_number: float
) -> None:
    assert integer({"x": value}, "x", 7) == as_integer
    assert number({"x": value}, "x", 7) == as_number
