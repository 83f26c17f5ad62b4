"""Granite: Llama with four scales. Source: the engine's graph; shown by numbers."""

from collections.abc import Iterator

from registry.core.convert.architectures import llama
from registry.core.convert.config import Config
from registry.core.convert.family import Family
from registry.core.convert.plan import KeyValue, f32

_SCALES = (
    ("attention.scale", "attention_multiplier"),
    ("embedding_scale", "embedding_multiplier"),
    ("residual_scale", "residual_multiplier"),
    ("logit_scale", "logits_scaling"),
)


def keys(config: Config) -> Iterator[KeyValue]:
    """Llama's keys, and what embedding, attention, residuals and logits are multiplied with."""
    yield from llama.keys(config)
    for key, name in _SCALES:
        yield f32(key, config.number(name))


FAMILY = Family(
    name="granite",
    classes=("GraniteForCausalLM",),
    keys=keys,
    rules=llama.rules,
    constants=llama.frequencies,
)
