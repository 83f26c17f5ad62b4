"""registry/tensors/transforms.py: rows read, moved and typed, piece by piece."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from registry.core.convert.plan import (
    AddOne,
    Columns,
    Output,
    Packed4,
    Pairs,
    Part,
    Plain,
    Scaled,
    Turned,
)
from registry.core.convert.safetensors import Stored
from registry.core.errors import CheckpointInvalid, OperationFailed
from registry.tensors import transforms
from tests.support.conversion import opened
from tests.support.conversion import stored as read_stored
from tests.support.tiny_models import from_bf16, safetensors, to_bf16

RNG = np.random.default_rng(3)
FILE = "m.safetensors"


@pytest.fixture(params=[1 << 20, 40, 1])
def chunk_elements(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Pieces of any size give the same."""
    monkeypatch.setattr(transforms, "CHUNK_ELEMENTS", request.param)
    return int(request.param)


pytestmark = pytest.mark.usefixtures("chunk_elements")


def data(
    tensors: dict[str, NDArray[Any]], make: Any, dtypes: dict[str, str] | None = None
) -> NDArray[Any]:
    """All pieces of the output that `make` plans from the stored tensors, one after another."""
    contents = {FILE: safetensors(tensors, dtypes)}
    output: Output = make(read_stored(contents))
    with opened(contents) as files:
        found = list(transforms.pieces({FILE: files[0]}, output))
    assert all(chunk.flags.c_contiguous and chunk.ndim == 2 for chunk in found)
    return np.concatenate(found)


def one(kind: str, *steps: Any, **part: Any) -> Any:
    """An output of one part of the tensor `a`."""

    def make(stored: dict[str, Stored]) -> Output:
        first = stored["a"]
        rows = part.pop("start", 0), part.pop("stop", first.rows), part.pop("step", 1)
        return Output("x", (1,), kind, (Part(first, *rows, part.pop("view", Plain()), steps),))

    return make


MATRIX = RNG.standard_normal((12, 10)).astype("<f4")


def test_numbers_of_the_same_type_are_copied() -> None:
    assert (data({"a": MATRIX}, one("F32")) == MATRIX).all()
    assert (data({"a": to_bf16(MATRIX)}, one("BF16")) == to_bf16(MATRIX)).all()


def test_numbers_are_rounded_to_f16_and_widened_to_f32() -> None:
    assert (data({"a": MATRIX}, one("F16")) == MATRIX.astype("<f2")).all()
    assert (data({"a": to_bf16(MATRIX)}, one("F32")) == from_bf16(to_bf16(MATRIX))).all()
    half = MATRIX.astype("<f2")
    assert (data({"a": half}, one("F32")) == half.astype("<f4")).all()
    assert (
        data({"a": to_bf16(MATRIX)}, one("F16")) == from_bf16(to_bf16(MATRIX)).astype("<f2")
    ).all()


def test_a_vector_is_one_row() -> None:
    found = data({"a": MATRIX[0]}, one("F32", AddOne()))
    assert found.shape == (1, 10)
    assert (found[0] == MATRIX[0] + 1).all()


def test_rows_are_chosen_by_start_stop_and_step() -> None:
    assert (data({"a": MATRIX}, one("F32", start=2, stop=7)) == MATRIX[2:7]).all()
    assert (data({"a": MATRIX}, one("F32", start=1, step=2)) == MATRIX[1::2]).all()


def test_columns_are_chosen() -> None:
    assert (data({"a": MATRIX}, one("F32", Columns(1, 2))) == MATRIX[:, 1::2]).all()


def test_rows_of_a_head_take_turns_from_its_two_halves() -> None:
    found = data({"a": MATRIX}, one("F32", Pairs(6)))
    order = [0, 3, 1, 4, 2, 5]
    assert (found == MATRIX[order + [6 + place for place in order]]).all()
    vector = data({"a": np.arange(12, dtype="<f4")}, one("F32", Pairs(6)))
    assert vector.tolist() == [[*order, *(6 + place for place in order)]]


def test_a_matrix_of_several_is_turned() -> None:
    stack = RNG.standard_normal((3, 4, 6)).astype("<f4")
    view = Turned(1)
    assert (data({"a": stack}, one("F32", view=view, stop=6)) == stack[1].T).all()
    found = data({"a": stack}, one("F16", view=Turned(2), start=1, stop=6, step=2))
    assert (found == stack[2].T[1::2].astype("<f2")).all()


def test_parts_follow_one_another() -> None:
    def make(stored: dict[str, Stored]) -> Output:
        parts = (Part(stored["b"], 0, 2), Part(stored["a"], 1, 3))
        return Output("x", (1,), "F32", parts)

    found = data({"a": MATRIX, "b": MATRIX + 1}, make)
    assert (found == np.concatenate([MATRIX[:2] + 1, MATRIX[1:3]])).all()


def test_settings_become_a_tensor() -> None:
    found = data({}, lambda stored: Output("x", (2,), "F32", values=(1.5, 2.5)))
    assert found.tolist() == [[1.5, 2.5]]


def e4m3(byte: int) -> float:
    """By the definition of the format."""
    byte = int(byte)
    sign = -1 if byte & 128 else 1
    exponent, fraction = byte >> 3 & 15, byte & 7
    return sign * (
        fraction / 8 * 2**-6 if not exponent else (1 + fraction / 8) * 2.0 ** (exponent - 7)
    )


@pytest.mark.parametrize("kind", ["F32", "BF16"])
def test_fp8_is_multiplied_by_the_scale_of_its_block(kind: str) -> None:
    numbers = RNG.integers(0, 127, (10, 7), np.uint8) | RNG.integers(0, 2, (10, 7), np.uint8) << 7
    scales = from_bf16(to_bf16(RNG.standard_normal((3, 3)).astype("<f4")))
    stored_scales = to_bf16(scales) if kind == "BF16" else scales
    wide = np.repeat(np.repeat(scales, 4, 0)[:10], 3, 1)[:, :7]
    wanted = to_bf16(np.vectorize(e4m3)(numbers).astype("<f4") * wide)

    def make(stored: dict[str, Stored]) -> Output:
        view = Scaled(stored["s"], (4, 3))
        return Output("x", (7, 10), "BF16", (Part(stored["a"], 0, 10, 1, view),))

    found = data({"a": numbers, "s": stored_scales}, make, {"a": "F8_E4M3"})
    assert (found == wanted).all()


def test_fp8_that_is_no_number_is_refused() -> None:
    def make(stored: dict[str, Stored]) -> Output:
        return Output(
            "x", (2, 2), "BF16", (Part(stored["a"], 0, 2, 1, Scaled(stored["s"], (2, 2))),)
        )

    numbers = np.array([[1, 2], [3, 0xFF]], np.uint8)
    bad_scale = np.array([[0x7FFFFFFF]], "<u4").view("<f4")
    for array, scale in ((numbers, np.ones((1, 1), "<f4")), (numbers & 3, bad_scale)):
        with pytest.raises(CheckpointInvalid, match="not finite"):
            data({"a": array, "s": scale}, make, {"a": "F8_E4M3"})


def test_mxfp4_is_packed_as_the_engine_reads_it() -> None:
    nibbles = RNG.integers(0, 16, (6, 3, 32), np.uint8)
    blocks = nibbles[..., ::2] | nibbles[..., 1::2] << 4  # element 2k low, 2k + 1 high
    scales = RNG.integers(0, 255, (6, 3), np.uint8)

    def make(stored: dict[str, Stored]) -> Output:
        part = Part(stored["a_blocks"], 1, 6, 2, Packed4(stored["a_scales"]))
        return Output("x", (96, 3), "MXFP4", (part,))

    found = data({"a_blocks": blocks, "a_scales": scales}, make).reshape(3, 3, 17)
    assert (found[:, :, 0] == scales[1::2]).all()
    assert (
        found[:, :, 1:] & 15 == nibbles[1::2, :, :16]
    ).all()  # byte j: element j low, j + 16 high
    assert (found[:, :, 1:] >> 4 == nibbles[1::2, :, 16:]).all()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan])
def test_numbers_that_are_not_finite_are_refused_wherever_they_are(kind: str, value: float) -> None:
    for place in (0, 57, 119):
        numbers = MATRIX.copy()
        numbers.flat[place] = value
        array = (
            to_bf16(numbers)
            if kind == "BF16"
            else numbers.astype({"F32": "<f4", "F16": "<f2"}[kind])
        )
        if kind == "BF16" and np.isnan(value):
            array.flat[place] = 0x7FC0 if not np.signbit(value) else 0xFFC0
        with pytest.raises(CheckpointInvalid, match=r"m\.safetensors: tensor a has numbers"):
            data({"a": array}, one(kind))


def test_the_largest_numbers_are_let_pass() -> None:
    numbers = np.array([[np.finfo("<f4").max, np.finfo("<f4").min, 0.0, -0.0]], "<f4")
    assert (data({"a": numbers}, one("F32")) == numbers).all()
    half = np.array([[65504, -65504]], "<f2")
    assert (data({"a": half}, one("F16")) == half).all()


def test_numbers_too_large_for_f16_are_refused() -> None:
    numbers = np.array([[1.0, 70000.0]], "<f4")
    with pytest.raises(CheckpointInvalid, match="tensor a has numbers too large for F16"):
        data({"a": numbers}, one("F16"))


def test_a_file_that_became_shorter_is_an_error() -> None:
    contents = {FILE: safetensors({"a": MATRIX})}
    output = one("F32")(read_stored(contents))
    with (
        opened({FILE: contents[FILE][:-40]}) as files,
        pytest.raises(OperationFailed, match="ends at"),
    ):
        list(transforms.pieces({FILE: files[0]}, output))
