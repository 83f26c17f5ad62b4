from typing import Any

import pytest

from registry.core.errors import OperationFailed
from registry.core.options import check_options


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
