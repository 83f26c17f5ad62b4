"""What a model can be quantized to, and what it is stored as.

Source: spec inference-and-gguf 7.3 (numbers of `general.file_type`), spec ollama-api 6.7.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from registry.core.errors import OperationFailed
from registry.core.ggml import data_size
from registry.core.gguf import Tensor
from registry.core.image import UNKNOWN


class Target(NamedTuple):
    """A kind of file: its name, its `general.file_type`, the type most of its tensors have."""

    name: str
    number: int
    base: str

    @property
    def is_mixture(self) -> bool:
        """Whether tensors get types of their own, rather than all the same 16 or 32 bits."""
        return self.base not in PLAIN


PLAIN = frozenset({"F32", "F16", "BF16"})
"""The types that lose nothing, or only what 16 bits lose: what may be quantized."""

TARGETS = {
    found.name: found
    for found in (
        Target("F32", 0, "F32"),
        Target("F16", 1, "F16"),
        Target("BF16", 32, "BF16"),
        Target("Q4_0", 2, "Q4_0"),
        Target("Q4_1", 3, "Q4_1"),
        Target("Q5_0", 8, "Q5_0"),
        Target("Q5_1", 9, "Q5_1"),
        Target("Q8_0", 7, "Q8_0"),
        Target("Q2_K", 10, "Q2_K"),
        Target("Q3_K_S", 11, "Q3_K"),
        Target("Q3_K_M", 12, "Q3_K"),
        Target("Q3_K_L", 13, "Q3_K"),
        Target("Q4_K_S", 14, "Q4_K"),
        Target("Q4_K_M", 15, "Q4_K"),
        Target("Q5_K_S", 16, "Q5_K"),
        Target("Q5_K_M", 17, "Q5_K"),
        Target("Q6_K", 18, "Q6_K"),
        Target("IQ4_NL", 25, "IQ4_NL"),
        Target("IQ4_XS", 30, "IQ4_XS"),
        Target("IQ3_S", 26, "IQ3_S"),
        Target("IQ3_M", 27, "IQ3_S"),
    )
}
_SHORT = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}


def target(name: str) -> Target:
    """The target of that name, in any case.

    Raises:
        OperationFailed: there is none, in the recorded words, which name fewer than there are.
    """
    upper = name.upper()
    found = TARGETS.get(_SHORT.get(upper, upper))
    if found is None:
        raise OperationFailed(
            f"unsupported quantization type {upper[:40]} - "
            "supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0"
        )
    return found


def stored_as(file_type: str, tensors: Sequence[Tensor]) -> str:
    """What a model is stored as: `file_type` if it is known, else the type of most of its bytes."""
    if file_type != UNKNOWN:
        return file_type
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        if len(tensor.shape) > 1:
            sizes[tensor.type] += data_size(tensor.type, tensor.shape)
    return sizes.most_common(1)[0][0] if sizes else UNKNOWN
