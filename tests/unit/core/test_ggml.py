import gguf

from registry.core.ggml import TENSOR_TYPES

ONLY_IN_MEMORY = {"Q8_1", "Q8_K"}
NOT_IN_THE_PACKAGE_YET = {42: ("Q2_0", 64, 18)}


def test_types_are_those_of_the_gguf_package() -> None:
    sizes = gguf.constants.GGML_QUANT_SIZES
    theirs = {kind.value: (kind.name, *size) for kind, size in sizes.items()}
    kept = {key: value for key, value in theirs.items() if value[0] not in ONLY_IN_MEMORY}
    assert {key: tuple(value) for key, value in TENSOR_TYPES.items()} == (
        NOT_IN_THE_PACKAGE_YET | kept
    )


def test_no_type_has_two_numbers() -> None:
    assert len({kind.name for kind in TENSOR_TYPES.values()}) == len(TENSOR_TYPES)
