"""Numbers from type to type: the bytes of ggml and of the gguf package, and what is refused."""

from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from registry.core.errors import OperationFailed
from registry.core.gguf import Tensor
from registry.tensors.engine import find_engine
from registry.tensors.kernels import Kernels

ENGINE = find_engine()
needs_engine = pytest.mark.skipif(ENGINE.library is None, reason="the engine is not installed")

NOISE = np.random.default_rng(5).standard_normal((96, 512), np.float32)
EDGES = np.zeros((96, 512), np.float32)
EDGES[1] = np.linspace(-2, 2, 512, dtype=np.float32)
EDGES[2, ::32] = 1e-8
EDGES[3] = np.tile(np.arange(32, dtype=np.float32) - 15.5, 16)
EDGES[4] = 60000


def expected(numbers: NDArray[np.float32], kind: str) -> bytes:
    return bytes(quants.quantize(numbers, GGMLQuantizationType[kind]).tobytes())


def convert(library: object, numbers: NDArray[np.generic], given: str, wanted: str) -> bytes:
    kernels = Kernels(library)  # type: ignore[arg-type]  # a CDLL or None
    kernels.prepare({wanted}, {given})
    done: list[int] = []
    made = kernels.convert(numbers, Tensor("t", given, (512, 96)), wanted, done.append)
    assert sum(done) == numbers.nbytes
    return made.tobytes()


@pytest.mark.parametrize("library", [pytest.param(ENGINE.library, marks=needs_engine), None])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("numbers", [NOISE, EDGES], ids=["noise", "edges"])
def test_these_types_are_the_same_with_and_without_the_engine(
    library: object, kind: str, numbers: NDArray[np.float32]
) -> None:
    assert convert(library, numbers, "F32", kind) == expected(numbers, kind)


@needs_engine
@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_ggml_gives_the_bytes_of_the_reference(kind: str) -> None:
    assert convert(ENGINE.library, NOISE, "F32", kind) == expected(NOISE, kind)


@needs_engine
@pytest.mark.parametrize(
    ("kind", "error"),
    [("Q2_K", 0.4), ("Q3_K", 0.25), ("Q4_K", 0.12), ("Q5_K", 0.06), ("Q6_K", 0.03)],
)
def test_k_quants_come_close_to_the_numbers(kind: str, error: float) -> None:
    data = convert(ENGINE.library, NOISE, "F32", kind)
    found = quants.dequantize(
        np.frombuffer(data, np.uint8).reshape(96, -1), GGMLQuantizationType[kind]
    )
    assert float(np.sqrt(np.mean((found - NOISE) ** 2))) < error


@pytest.mark.parametrize("library", [pytest.param(ENGINE.library, marks=needs_engine), None])
@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ("F16", NOISE.astype(np.float16)),
        ("BF16", (NOISE.view(np.uint32) >> 16).astype(np.uint16)),
    ],
)
def test_sixteen_bits_are_widened_exactly(
    library: object, given: str, numbers: NDArray[np.generic]
) -> None:
    if given == "F16":
        exact = numbers.astype(np.float32)
    else:
        exact = (numbers.astype(np.uint32) << 16).view(np.float32)
    assert convert(library, numbers, given, "F32") == exact.tobytes()


@needs_engine
@pytest.mark.parametrize("given", ["Q8_0", "Q4_0", "Q4_K", "Q6_K", "MXFP4"])
def test_quantized_numbers_can_be_read(given: str) -> None:
    if given == "MXFP4":
        packed = np.random.default_rng(1).integers(0, 255, (96, 16 * 17), np.uint8)
        packed[:, ::17] = 127
    else:
        data = convert(ENGINE.library, NOISE, "F32", given)
        packed = np.frombuffer(data, np.uint8).reshape(96, -1)
    exact = quants.dequantize(packed, GGMLQuantizationType[given])
    assert convert(ENGINE.library, packed, given, "F32") == exact.tobytes()


def test_types_that_cannot_be_read_are_named() -> None:
    with pytest.raises(OperationFailed, match="type Q4_K cannot be converted"):
        Kernels(None).prepare({"F16"}, {"Q4_K"})


def test_without_the_engine_only_some_types_can_be_made() -> None:
    kernels = Kernels(None)
    assert [kind for kind in ("F16", "Q8_0", "Q4_K", "Q4_0") if kernels.can_make(kind)] == [
        "F16",
        "Q8_0",
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("given", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("wanted", ["F32", "F16", "BF16", "Q8_0"])
def test_numbers_that_are_none_are_refused_by_the_tensors_name(
    value: float, given: str, wanted: str
) -> None:
    numbers = NOISE.copy()
    numbers[95, 511] = value
    kinds: dict[str, NDArray[Any]] = {"F32": numbers, "F16": numbers.astype(np.float16)}
    chunk = kinds.get(given, (numbers.view(np.uint32) >> 16).astype(np.uint16))
    with pytest.raises(OperationFailed, match='tensor "t" has values that are not finite'):
        convert(None, chunk, given, wanted)


@pytest.mark.parametrize(
    ("value", "wanted"), [(65_520, "F16"), (-1e6, "F16"), (3.4e38, "BF16"), (-1e7, "Q8_0")]
)
def test_numbers_too_large_for_the_type_are_refused(value: float, wanted: str) -> None:
    numbers = NOISE.copy()
    numbers[0, 0] = value
    with pytest.raises(OperationFailed, match=f"too large for {wanted}"):
        convert(None, numbers, "F32", wanted)


@needs_engine
def test_what_ggml_itself_finds_wrong_is_refused() -> None:
    numbers = np.full((96, 512), 3e38, np.float32)
    numbers[:, ::2] = -3e38
    with pytest.raises(OperationFailed, match='tensor "t" cannot be quantized to Q4_0'):
        convert(ENGINE.library, numbers, "F32", "Q4_0")
