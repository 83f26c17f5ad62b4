"""Float32 with the digits that Go gives them."""

import numpy as np
import pytest

from registry.core.float32 import shortest
from registry.core.gojson import Float32, dumps

# Each as Go's encoding/json words it; numpy differs in the one of them that is a tie.
POWERS = [
    (2.0**-12, "0.00024414063"),
    (2.0**-96, "1.2621775e-29"),
    (2.0**87, "1.5474251e+26"),
    (2.0**90, "1.2379401e+27"),
    (2.0**-149, "1e-45"),
    (2.0**-126, "1.1754944e-38"),
    (16_777_216.0, "16777216"),
]


@pytest.mark.parametrize(("value", "text"), POWERS)
def test_powers_of_two_are_worded_as_go_does(value: float, text: str) -> None:
    assert shortest(value) == float(text)
    assert dumps(Float32(-value)).decode() == f"-{text}"


FLOATS = [
    0.0,
    -0.0,
    0.1,
    1e-5,
    1e-6,
    1e21,
    16_777_216.0,
    3.4028234663852886e38,
    2.0**-126,
    2.0**-149,
    1e-45,
    1.1754942e-38,
    0.3333333432674408,
]


@pytest.mark.parametrize("value", FLOATS)
def test_floats_show_the_digits_of_their_float32(value: float) -> None:
    single = np.float32(value)
    assert repr(shortest(float(single))) == repr(float(str(single)))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_floats_that_are_no_numbers_stay(value: float) -> None:
    assert repr(shortest(value)) == repr(value)


def test_other_powers_of_two_and_random_floats_are_worded_alike() -> None:
    powers = [2.0**exponent for exponent in range(-149, 128)]
    bits = np.random.default_rng(1).integers(0, 0x7F800000, 2000, dtype=np.uint32)
    powers.remove(2.0**-12)
    for value in [*powers, *bits.view(np.float32).tolist()]:
        assert shortest(value) == float(str(np.float32(value)))
        assert shortest(-value) == -float(str(np.float32(value)))
