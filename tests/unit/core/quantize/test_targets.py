"""Names of quantizations, and what a model is stored as."""

import pytest

from registry.core.errors import OperationFailed
from registry.core.ggml import TYPE_NUMBERS
from registry.core.gguf import Tensor
from registry.core.image import file_type
from registry.core.quantize import TARGETS, stored_as, target

DOCUMENTED = [
    "q2_K",
    "q3_K_L",
    "q3_K_M",
    "q3_K_S",
    "q4_0",
    "q4_1",
    "q4_K_M",
    "q4_K_S",
    "q5_0",
    "q5_1",
    "q5_K_M",
    "q5_K_S",
    "q6_K",
    "q8_0",
]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_documented_type_is_there_in_any_case(name: str) -> None:
    assert target(name) == target(name.upper()) == target(name.lower()) == TARGETS[name.upper()]


def test_numbers_and_names_are_those_that_files_are_read_by() -> None:
    for found in TARGETS.values():
        assert found.base in TYPE_NUMBERS
        assert file_type(found.number) == ("unknown" if found.name == "F32" else found.name)
    assert [name for name, found in TARGETS.items() if not found.is_mixture] == [
        "F32", "F16", "BF16",
    ]  # fmt: skip


def test_short_names_mean_the_medium_size() -> None:
    assert [target(f"q{bits}_k").name for bits in (3, 4, 5)] == ["Q3_K_M", "Q4_K_M", "Q5_K_M"]


@pytest.mark.parametrize("name", ["q9_z", "", "Q4", "IQ1_S"])
def test_what_does_not_exist_is_refused_in_the_recorded_words(name: str) -> None:
    with pytest.raises(OperationFailed) as caught:
        target(name)
    assert str(caught.value) == (
        f"unsupported quantization type {name.upper()} - "
        "supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0"
    )


@pytest.mark.parametrize(
    ("said", "kinds", "found"),
    [
        ("F16", ["F32"], "F16"),
        ("unknown", ["F32", "F32"], "F32"),
        ("unknown", ["F16", "F32", "F16"], "F16"),
        ("unknown", [], "unknown"),
    ],
)
def test_a_file_that_does_not_say_is_what_most_of_its_bytes_are(
    said: str, kinds: list[str], found: str
) -> None:
    tensors = [Tensor(f"t{n}", kind, (32, 32)) for n, kind in enumerate(kinds)]
    tensors.append(Tensor("norm", "Q8_0", (1 << 20,)))
    assert stored_as(said, tensors) == found
