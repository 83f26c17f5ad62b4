"""registry/core/convert/companions.py: FP8 with scales, MXFP4."""

import re
from typing import Any

import pytest

from registry.core.convert.companions import pair_up
from registry.core.convert.config import Config
from registry.core.convert.plan import Packed4, Plain, Scaled
from registry.core.convert.safetensors import Stored
from registry.core.errors import CheckpointInvalid


def stored(*tensors: tuple[str, str, tuple[int, ...]]) -> dict[str, Stored]:
    return {
        name: Stored(name, dtype, shape, "m.safetensors", 0, 0) for name, dtype, shape in tensors
    }


def config(**quantization: Any) -> Config:
    return Config({"quantization_config": quantization} if quantization else {})


def test_plain_tensors_stay_as_they_are() -> None:
    (found,) = pair_up(stored(("a.weight", "BF16", (2, 2))), config())
    assert (found.name, found.type, found.view) == ("a.weight", "BF16", Plain())


def test_fp8_is_read_as_bf16_with_its_scales() -> None:
    tensors = stored(("a.weight", "F8_E4M3", (200, 300)), ("a.weight_scale_inv", "F32", (2, 3)))
    (found,) = pair_up(tensors, config(quant_method="fp8"))
    assert found.type == "BF16"
    assert found.view == Scaled(tensors["a.weight_scale_inv"], (128, 128))
    tensors = stored(("a.weight", "F8_E4M3", (200, 300)), ("a.weight_scale_inv", "BF16", (4, 3)))
    (found,) = pair_up(tensors, config(weight_block_size=[64, 128]))
    assert found.view == Scaled(tensors["a.weight_scale_inv"], (64, 128))


def test_mxfp4_is_one_tensor_of_twice_as_many_numbers() -> None:
    tensors = stored(
        ("e.down_proj_blocks", "U8", (8, 4, 2, 16)), ("e.down_proj_scales", "U8", (8, 4, 2))
    )
    (found,) = pair_up(tensors, config(quant_method="mxfp4"))
    assert (found.name, found.type, found.shape) == ("e.down_proj", "MXFP4", (8, 4, 64))
    assert found.view == Packed4(tensors["e.down_proj_scales"])


FP8 = ("a", "F8_E4M3", (200, 300))
BLOCKS = ("a_blocks", "U8", (4, 2, 16))
FAULTS: list[tuple[Config, dict[str, Stored], str]] = [
    (config(quant_method="gptq"), {}, "quantized with gptq cannot be converted"),
    (config(quant_method="bitsandbytes"), {}, "quantized with bitsandbytes"),
    (config(quant_method="modelopt_fp4"), {}, "quantized with modelopt_fp4"),
    (config(weight_block_size=[1]), {}, "bad weight_block_size"),
    (config(weight_block_size=[0, 1]), {}, "bad weight_block_size"),
    (config(weight_block_size=[1.5, 1]), {}, "bad weight_block_size"),
    (config(), stored(FP8), "tensor a is F8_E4M3 without a scale for each block"),
    (config(), stored(FP8, ("a_scale_inv", "U8", (2, 3))), "without a scale for each block"),
    (config(), stored(("a", "F8_E4M3", (2,)), ("a_scale_inv", "F32", (1,))), "but no matrix"),
    (
        config(),
        stored(FP8, ("a_scale_inv", "F32", (3, 3))),
        "scales [3, 3] are not those of blocks",
    ),
    (config(), stored(BLOCKS), "tensor a_blocks has no scales"),
    (config(), stored(BLOCKS, ("a_scales", "F32", (4, 2))), "tensor a_blocks has no scales"),
    (config(), stored(BLOCKS, ("a_scales", "U8", (4, 3))), "is not that of MXFP4 blocks"),
    (
        config(),
        stored(("a_blocks", "U8", (2, 16)), ("a_scales", "U8", (2,))),
        "is not that of MXFP4",
    ),
    (config(), stored(("a_blocks", "U8", (4, 2, 8)), ("a_scales", "U8", (4, 2))), "is not that of"),
    (
        config(),
        stored(("a_blocks", "U8", (0, 2, 16)), ("a_scales", "U8", (0, 2))),
        "a_blocks is empty",
    ),
]


@pytest.mark.parametrize(("settings", "tensors", "words"), FAULTS)
def test_numbers_that_cannot_be_read_are_refused(
    settings: Config, tensors: dict[str, Stored], words: str
) -> None:
    with pytest.raises(CheckpointInvalid, match=re.escape(words)):
        pair_up(tensors, settings)
