"""The architectures that can be converted: one module each, found by the model's class."""

from registry.core.convert.architectures import (
    bert,
    cohere,
    gemma,
    gemma2,
    gemma3,
    gemma_embedding,
    gptoss,
    granite,
    lfm2,
    llama,
    mixtral,
    nomic_bert,
    olmo2,
    olmo3,
    phi3,
    qwen2,
    qwen2moe,
    qwen3,
    qwen3moe,
    smollm3,
    xlm_roberta,
)
from registry.core.convert.documents import shown
from registry.core.convert.family import Family
from registry.core.errors import CheckpointInvalid

MODULES = (
    llama,
    mixtral,
    qwen2,
    qwen3,
    qwen2moe,
    qwen3moe,
    gemma,
    gemma2,
    gemma3,
    gemma_embedding,
    phi3,
    gptoss,
    granite,
    smollm3,
    olmo2,
    olmo3,
    cohere,
    lfm2,
    bert,
    xlm_roberta,
    nomic_bert,
)
_ALL: tuple[Family, ...] = tuple(module.FAMILY for module in MODULES)
FAMILIES = {name: one for one in _ALL for name in one.classes}
"""The family of each model class."""

BY_ARCHITECTURE = {one.name: one for one in reversed(_ALL)}
"""The family of each architecture of the engine; of several, the one listed first above."""


def family(architecture: str) -> Family:
    """The family of a model class.

    Raises:
        CheckpointInvalid: none; the wording is the real server's.
    """
    found = FAMILIES.get(architecture)
    if found is None:
        raise CheckpointInvalid(f'unsupported architecture "{shown(architecture)}"')
    return found
