"""Gemma 2. Source: spec inference-and-gguf 9.2."""

from collections.abc import Iterator

from registry.core.convert.architectures import gemma
from registry.core.convert.config import Config
from registry.core.convert.decoder import attention, ends, gated, sandwich_norms
from registry.core.convert.family import GELU, PLUS_ONE, Family, Rule
from registry.core.convert.plan import KeyValue, f32, u32


def keys(config: Config) -> Iterator[KeyValue]:
    """Gemma's keys, the sliding window, and where logits are bent."""
    yield from gemma.keys(config)
    yield from softcaps(config)
    yield u32("attention.sliding_window", config.count("sliding_window"))


def softcaps(config: Config) -> Iterator[KeyValue]:
    """The limits that logits approach, where there are any."""
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if config.has(name):
            yield f32(name, config.number(name))


def rules(config: Config) -> tuple[Rule, ...]:
    """Four norms in a layer, all stored less 1."""
    return (
        *ends(config, PLUS_ONE),
        *sandwich_norms(config, PLUS_ONE),
        *attention(config),
        *gated(config),
    )


FAMILY = Family(
    name="gemma2",
    classes=("Gemma2ForCausalLM",),
    keys=keys,
    rules=rules,
    activations=GELU,
    tied=True,
    tokenizer=gemma.TURNS,
)
