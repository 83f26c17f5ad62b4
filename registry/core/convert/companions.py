"""Tensors that are stored as two: numbers of 8 or 4 bits, and the scales of their blocks.

Source: spec inference-and-gguf 8.6, 9.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from registry.core.convert.config import Config
from registry.core.convert.documents import shown
from registry.core.convert.plan import Packed4, Plain, Scaled, View
from registry.core.convert.safetensors import Stored
from registry.core.errors import CheckpointInvalid

_FLOATS = frozenset({"F32", "F16", "BF16"})
_SCALE_INV = "_scale_inv"
_BLOCKS, _SCALES = "_blocks", "_scales"
_REFUSED = ("gptq", "awq", "bitsandbytes", "nvfp4", "compressed-tensors", "aqlm", "hqq", "eetq")
_DEFAULT_BLOCK = (128, 128)


@dataclass(frozen=True, slots=True)
class Found:
    """A tensor as a table of rules meets it: its name, its shape in numbers, how to read it."""

    name: str
    stored: Stored
    shape: tuple[int, ...]
    view: View = field(default_factory=Plain)

    @property
    def type(self) -> str:
        """The type of its numbers once read."""
        if isinstance(self.view, Scaled):
            return "BF16"
        return "MXFP4" if isinstance(self.view, Packed4) else self.stored.dtype


def pair_up(tensors: Mapping[str, Stored], config: Config) -> list[Found]:
    """Every tensor with its scales, if it has some.

    Raises:
        CheckpointInvalid: numbers without scales, or a kind of quantization that is not read.
    """
    _check_method(config)
    block = _block(config)
    found = []
    for name, stored in tensors.items():
        if name.endswith(_SCALE_INV) and name.removesuffix(_SCALE_INV) in tensors:
            continue
        if name.endswith(_SCALES) and name.removesuffix(_SCALES) + _BLOCKS in tensors:
            continue
        if stored.dtype == "F8_E4M3":
            found.append(_scaled(stored, tensors.get(name + _SCALE_INV), block))
        elif stored.dtype == "U8" and name.endswith(_BLOCKS):
            scales = tensors.get(name.removesuffix(_BLOCKS) + _SCALES)
            found.append(_packed(stored, scales))
        else:  # another dtype is refused if the tensor turns out to be needed
            found.append(Found(name, stored, stored.shape))
    return found


def check_floats(tensor: Found) -> None:
    """Make sure that a tensor's numbers can be read.

    Raises:
        CheckpointInvalid: another dtype; the message names it.
    """
    if tensor.type not in _FLOATS and tensor.type != "MXFP4":
        stored = tensor.stored
        raise CheckpointInvalid(
            f"{shown(stored.file)}: tensor {shown(stored.name)} is {stored.dtype}, "
            "which cannot be converted"
        )


def _check_method(config: Config) -> None:
    settings = config.inner("quantization_config")
    if settings is None:
        return
    method = settings.text("quant_method", default="")
    if method in _REFUSED or method.startswith(("bnb", "modelopt")):
        raise CheckpointInvalid(
            f"{config.file}: a checkpoint quantized with {shown(method)} cannot be converted"
        )


def _block(config: Config) -> tuple[int, int]:
    settings = config.inner("quantization_config")
    if settings is None or not settings.has("weight_block_size"):
        return _DEFAULT_BLOCK
    sizes = settings.numbers("weight_block_size")
    if len(sizes) != 2 or not all(1 <= size <= 65_536 and size == int(size) for size in sizes):
        raise CheckpointInvalid(f"{settings.file}: bad weight_block_size")
    return int(sizes[0]), int(sizes[1])


def _scaled(stored: Stored, scales: Stored | None, block: tuple[int, int]) -> Found:
    where = f"{shown(stored.file)}: tensor {shown(stored.name)}"
    if scales is None or scales.dtype not in {"F32", "BF16"}:
        raise CheckpointInvalid(f"{where} is {stored.dtype} without a scale for each block")
    if len(stored.shape) != 2:
        raise CheckpointInvalid(f"{where} is {stored.dtype}, but no matrix")
    rows, columns = stored.shape
    if scales.shape != (-(-rows // block[0]), -(-columns // block[1])):
        raise CheckpointInvalid(
            f"{where}: scales {list(scales.shape)} are not those of blocks {list(block)}"
        )
    return Found(stored.name, stored, stored.shape, Scaled(scales, block))


def _packed(stored: Stored, scales: Stored | None) -> Found:
    where = f"{shown(stored.file)}: tensor {shown(stored.name)}"
    if scales is None or scales.dtype != "U8":
        raise CheckpointInvalid(f"{where} has no scales")
    if len(stored.shape) < 3 or stored.shape[-1] != 16 or scales.shape != stored.shape[:-1]:
        raise CheckpointInvalid(f"{where}: the shape is not that of MXFP4 blocks with scales")
    shape = (*stored.shape[:-2], stored.shape[-2] * 32)
    if prod(shape) == 0:
        raise CheckpointInvalid(f"{where} is empty")
    return Found(stored.name.removesuffix(_BLOCKS), stored, shape, Packed4(scales))
